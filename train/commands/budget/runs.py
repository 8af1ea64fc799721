"""The runs of a curve: the bare network and one for each area, seed by seed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.commands.budget.options import CurveConfig
from train.commands.budget.rule import Point
from train.commands.fit import fit
from train.config.attention import BudgetConfig
from train.config.places import with_absolute_places
from train.config.run import FitConfig
from train.data.facts import Facts
from train.errors import DONE, UserError
from train.printing import printable, say
from train.run import layout
from train.run.claim import check_config, check_inputs

ACCURACY = "accuracy"


class PlannedRun(NamedTuple):
    """A run of the curve.

    Attributes:
      target: its area; None for the bare network.
      config: its config, with a work directory of its own.
    """

    target: float | None
    config: FitConfig


def planned_runs(options: CurveConfig) -> list[PlannedRun]:
    """All runs, seed by seed, so that an interrupted curve has whole ones."""
    names = [item.name for item in dataclasses.fields(FitConfig)]
    base = FitConfig(**{name: getattr(options, name) for name in names})
    base = with_absolute_places(base)
    runs = []
    for seed in range(base.seed, base.seed + options.seeds):
        for target in (None, *sorted(set(options.areas))):
            name = "bare" if target is None else f"area-{target:g}"
            place = options.workdir / f"{name}-seed{seed}"
            config = _bare(base) if target is None else _with_area(base, target)
            config = dataclasses.replace(config, seed=seed, workdir=place)
            runs.append(PlannedRun(target, config))
    return runs


def _with_area(base: FitConfig, target: float) -> FitConfig:
    budget = dataclasses.replace(base.budget, area=target)
    return dataclasses.replace(base, budget=budget)


def _bare(base: FitConfig) -> FitConfig:
    """The same network without a layer, and without what only a layer can be asked."""
    return dataclasses.replace(
        base,
        model=dataclasses.replace(base.model, attention="none", attention_fill="zero"),
        equivariance=dataclasses.replace(base.equivariance, weight=0.0),
        budget=BudgetConfig(),
    )


def train_all(runs: Sequence[PlannedRun], inputs: Facts) -> int:
    """Trains what is not finished; returns the exit code of the last start.

    Args:
      runs: in their order.
      inputs: facts of the data set that they share.

    Raises:
      UserError: if a directory holds another run, and where `fit` does.
    """
    for run in runs:  # before the first takes its minutes
        check_config(run.config)
        check_inputs(run.config, inputs)
    for number, run in enumerate(runs, start=1):
        name, quiet = run.config.workdir.name, run.config.output.quiet
        is_finished = (run.config.workdir / layout.RESULT).exists()
        if not quiet:
            word = ": finished before" if is_finished else ""
            say(f"Run {number} of {len(runs)}, {printable(name)}{word}")
        if not is_finished and (code := fit(run.config)) != DONE:
            return code
    return DONE


def held_out_scores(workdir: Path) -> dict[str, float]:
    """The scores on held-out images at the end of a run, as `fit` recorded them.

    Raises:
      UserError: if the file cannot be read, or the task has no accuracy.
    """
    path = workdir / layout.RESULT
    try:
        scores = dict(json.loads(path.read_bytes())["validation"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{printable(path)} cannot be read: {error!r}.") from error
    if ACCURACY not in scores:
        raise UserError(
            f"{printable(path)} has no {ACCURACY}, by which the rule chooses a budget."
        )
    return scores


def measured(runs: Sequence[PlannedRun]) -> tuple[list[dict[str, Any]], float]:
    """Every area's runs in order of the areas, and the bare network's accuracy.

    Returns:
      One record for each area, "target", "area" and "accuracy" (means over seeds),
      "runs" (name, area, accuracy); and the mean accuracy of the bare network.
    """
    records: dict[float | None, list[dict[str, Any]]] = {}
    for run in runs:
        scores = held_out_scores(run.config.workdir)
        areas = [v for name, v in scores.items() if name.endswith("/mask_area")]
        record = {
            "run": run.config.workdir.name,
            "area": float(np.mean(areas)) if areas else None,
            "accuracy": scores[ACCURACY],
        }
        records.setdefault(run.target, []).append(record)
    bare = records.pop(None)
    points = [
        {"target": target, "area": _mean(each, "area")}
        | {"accuracy": _mean(each, "accuracy"), "runs": each}
        for target, each in sorted(records.items(), key=lambda item: item[0] or 0.0)
    ]
    return points, _mean(bare, "accuracy")


def _mean(records: Sequence[dict[str, Any]], name: str) -> float:
    return float(np.mean([record[name] for record in records]))


def as_points(records: Sequence[dict[str, Any]]) -> list[Point]:
    """What the rule looks at."""
    return [Point(r["target"], r["area"], r["accuracy"]) for r in records]
