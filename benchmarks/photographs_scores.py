"""The scores of `benchmarks.photographs`, by arm and seed.

The runs of one data set are evaluations (see `train.commands.evaluate`) by arm and
seed. A *row* of its table is one answer to where the object is: that of an arm's layer,
or one of the yardsticks in the same evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from benchmarks.tables import Values, differences, score

Runs = Mapping[str, Mapping[str, Mapping[str, Any]]]

LAYER = "layer"
WHOLE, CENTER = "whole image", "centre of the image"
CONSTANT, ORACLE = "constant box", "oracle rectangle"
CAM, GRAD_CAM = "CAM, true class", "Grad-CAM, true class"
CAM_PREDICTED = "CAM, predicted class"
MAPS = (CAM, CAM_PREDICTED, GRAD_CAM)

ACCURACY, GAP, AREA, IOU = "accuracy", "train - test", "mask area", "mask IoU"
BOX, POINTING, CORLOC, MASS = "box 0.5", "pointing", "CorLoc", "mass on object"
SECONDS = "seconds of training"
# Name in the table, key in the evaluation, and how many digits. Keys with a split are
# the network's own (L: its layer), the others each yardstick's.
COLUMNS = (
    (ACCURACY, "test/accuracy", 4),
    (GAP, "", 4),
    (AREA, "test/L/mask_area", 3),
    ("area of the region", "area", 3),
    ("box 0.3", "box_accuracy_0.3", 3),
    (BOX, "box_accuracy_0.5", 3),
    ("box 0.7", "box_accuracy_0.7", 3),
    ("top-1 box 0.5", "top1_box_accuracy_0.5", 3),
    (CORLOC, "corloc", 3),
    (IOU, "iou", 3),
    ("pixel AP", "pixel_average_precision", 3),
    (POINTING, "pointing", 3),
    (MASS, "mass_on_object", 3),
    (SECONDS, "cost/seconds", 0),
)
DIGITS = {name: digits for name, _, digits in COLUMNS}
_KEYS = {name: key for name, key, _ in COLUMNS}


class Row(NamedTuple):
    """One answer: of which arm, and which row of its yardsticks."""

    arm: str
    answer: str = LAYER


def answer_of(evaluation: Mapping[str, Any], answer: str) -> Mapping[str, float]:
    """A row of the yardsticks; empty where there is none. `LAYER` is the layer's."""
    rows = evaluation.get("yardsticks", {}).get("rows", {})
    if answer != LAYER:
        return rows.get(answer, {})
    ends = (": rectangle", ": mask")
    return next((rows[name] for name in rows if name.endswith(ends)), {})


def value(evaluation: Mapping[str, Any], answer: str, column: str) -> float | None:
    """One number, or None where there is no such score, or it is not finite."""
    key = _KEYS[column]
    if "/" not in key and column != GAP:
        found = answer_of(evaluation, answer).get(key)
        return found if found is not None and math.isfinite(found) else None
    if answer != LAYER:
        return None
    if column != GAP:
        return score(dict(evaluation), key)
    train = score(dict(evaluation), "train/accuracy")
    test = score(dict(evaluation), "test/accuracy")
    return None if train is None or test is None else train - test


def seeds_of(runs: Runs, arm: str) -> list[str]:
    """The seeds of an arm, in order; none where it has no runs."""
    return sorted(runs.get(arm, {}), key=int)


def values(runs: Runs, row: Row, column: str) -> Values:
    """A column of a row, seed by seed."""
    seeds = seeds_of(runs, row.arm)
    return [value(runs[row.arm][seed], row.answer, column) for seed in seeds]


def shared(runs: Runs, row: Row, other: Row) -> dict[str, tuple[Any, Any]]:
    """The evaluations of two rows by the seeds that both have."""
    seeds = [
        seed for seed in seeds_of(runs, row.arm) if seed in runs.get(other.arm, {})
    ]
    return {seed: (runs[row.arm][seed], runs[other.arm][seed]) for seed in seeds}


def paired_values(
    runs: Runs, row: Row, other: Row, column: str
) -> tuple[Values, Values]:
    """A column of two rows over the seeds that both have."""
    pairs = shared(runs, row, other).values()
    return (
        [value(run, row.answer, column) for run, _ in pairs],
        [value(run, other.answer, column) for _, run in pairs],
    )


def difference(runs: Runs, row: Row, other: Row, column: str) -> list[float]:
    """A column of a row minus that of another, paired by seed."""
    return differences(*paired_values(runs, row, other, column))


def scores_of(runs: Runs, row: Row) -> dict[str, Values]:
    """All columns of a row, seed by seed, as `benchmarks.tables.table` takes them."""
    return {column: values(runs, row, column) for column, _, _ in COLUMNS}
