"""The table of `evaluate` that sets the layers beside what no learning scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
from rich import box
from rich.markup import escape
from rich.table import Table

from train.data.loaders import Feed
from train.data.pipeline import Batch
from train.errors import UserError
from train.evidence.answers import Shown
from train.evidence.choices import Choices
from train.evidence.yardsticks import Look, Scores, choose, yardstick_scores
from train.learning.devices import Parallel
from train.learning.evaluator import explain
from train.learning.experiment import Experiment
from train.printing import printable

YARDSTICKS = "yardsticks"
# Thresholds need no more images than these, from all over the held-out ones.
_MOST_HELD_OUT = 256
_COLUMNS = {
    "box\n0.3": "box_accuracy_0.3",
    "box\n0.5": "box_accuracy_0.5",
    "box\n0.7": "box_accuracy_0.7",
    "top-1\n0.5": "top1_box_accuracy_0.5",
    "IoU\n": "iou",
    "Cor-\nLoc": "corloc",
    "on it\n": "pointing",
    "pixel\nAP": "pixel_average_precision",
    "area\n": "area",
}
_LEGEND = (
    "box: share of images whose box has that IoU with the object's, or more; top-1: and"
    " whose class is right; on it: centre or peak lies on the object. Class activation"
    " maps (CAM) are told the class; rectangles are not."
)


def measured_yardsticks(
    experiment: Experiment,
    variables: Any,
    step: Any,
    feed: Feed,
    batches: Iterable[Batch],
    parallel: Parallel,
) -> dict[str, Any]:
    """The rows by name, and what was chosen on how many held-out images.

    Args:
      experiment: with the truth of the images to score, which is not "none".
      variables: placed.
      step: placed.
      feed: has the held-out images, if any are.
      batches: the images to score.
      parallel: the devices.
    """
    look = _looking(partial(explain, experiment, variables, step), parallel)
    truth = experiment.inputs.truth
    choices, note = _choices(look, feed, truth)
    found: dict[str, Any] = {
        "held_out_images": 0 if choices is None else choices.images,
        "rows": yardstick_scores(look, batches, truth, choices),
    }
    if choices is not None:
        found["constant_boxes"] = {
            "box": choices.constant_box.tolist(),
            "region": choices.constant_region.tolist(),
        }
        found["thresholds"] = {
            name: {"box": cut[0], "region": cut[1]}
            for name, cut in choices.thresholds.items()
        }
    return found | ({"note": note} if note else {})


def _looking(show: Callable[[Any], Shown], parallel: Parallel) -> Look:
    compiled = jax.jit(show)
    return lambda batch: jax.device_get(compiled(parallel.place_batch(dict(batch))))


def _choices(look: Look, feed: Feed, truth: str) -> tuple[Choices | None, str]:
    """What held-out images choose; else a sentence that says why nothing is chosen."""
    without = "so scores of maps at a threshold, and the constant box, are left out"
    if feed.evaluates_held_out:
        return None, f"The held-out images themselves are scored, {without}."
    try:
        batches = feed.held_out_sample(_MOST_HELD_OUT)
        if batches is None:
            hint = "train with --data.validation 0.1"
            return None, f"No training images are held out, {without}; {hint}."
        choices = choose(look, batches, truth)
    except UserError as error:
        return None, f"Held-out images cannot be read, {without}. {error}"
    if choices is None:
        return None, f"No object is known in the held-out images, {without}."
    return choices, ""


def yardsticks_table(found: Mapping[str, Any], title: str) -> Table:
    """One row per answer to where the object is; a dash for what it has no score of.

    Columns that no row has are left out; the file has more of them.
    """
    rows: Mapping[str, Scores] = found["rows"]
    there = {name for scores in rows.values() for name in scores}
    columns = {head: name for head, name in _COLUMNS.items() if name in there}
    table = Table(
        title=escape(printable(title)),
        caption=" ".join([_LEGEND, _chosen(found)]),
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        show_edge=False,
    )
    table.add_column("where is it?")
    for head in columns:
        table.add_column(head, justify="right", no_wrap=True)
    for name, scores in rows.items():
        values = (scores.get(column) for column in columns.values())
        shown = ["-" if value is None else f"{value:.3f}" for value in values]
        table.add_row(escape(printable(name)), *shown)
    return table


def _chosen(found: Mapping[str, Any]) -> str:
    if "note" in found:
        return escape(printable(found["note"]))
    return (
        "Thresholds of maps and the constant box were chosen on"
        f" {found['held_out_images']} held-out training images; rectangles need no"
        " threshold."
    )
