"""Which runs a report is made of; what cannot be used is named, not guessed at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from train.config.differences import differing_fields
from train.config.run import to_dict
from train.errors import UserError, cause_of
from train.learning.experiment import planned_steps
from train.printing import printable
from train.run import layout
from train.run.workdir import load_config, load_inputs

Record = dict[str, Any]
PassedOver = list[str]


class Run:
    """One run: its config and its records.

    Attributes:
      workdir: that it lies in.
      config: as a plain dict, without the seed.
      seed: the run's seed.
      eval: records of evaluation; values that are not finite are left out.
    """

    def __init__(self, workdir: Path, *, finished_only: bool = True):
        """Reads a work directory; raises UserError if it holds no evaluated run."""
        if workdir.name.startswith("."):
            raise UserError(f"{printable(workdir)} is hidden.")
        self.workdir = workdir
        self.config = _read_config(workdir)
        self.seed = self.config.pop("seed")
        records = read_metrics(workdir / layout.METRICS)
        self.eval = [_finite(each) for each in records if each["kind"] == "eval"]
        if not self.eval:
            raise UserError(f"{printable(workdir)} has not been evaluated yet.")
        if finished_only:
            _check_finished(workdir, self.last["step"])

    @property
    def last(self) -> Record:
        """The record of the last evaluation."""
        return self.eval[-1]


def _check_finished(workdir: Path, step: int) -> None:
    """Refuses a run that has not had all of its epochs, where it says how many steps.

    Raises:
      UserError: says how far it is.
    """
    if not (workdir / layout.INPUTS).exists():
        return  # What is left of an old run; `_equally_long` compares it with others.
    steps = planned_steps(load_config(workdir), load_inputs(workdir))[-1]
    if step < steps:
        raise UserError(
            f"{printable(workdir)} is not finished: evaluated at step {step} of"
            f" {steps} (--unfinished reports on it all the same)."
        )


def _read_config(workdir: Path) -> dict[str, Any]:
    path = workdir / layout.CONFIG
    try:
        if path.exists() and not isinstance(json.loads(path.read_bytes()), dict):
            raise UserError(f"{printable(path)} holds no config.")
        return to_dict(load_config(workdir))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(
            f"{printable(path)} cannot be read: {cause_of(error)}."
        ) from error


def read_metrics(path: Path) -> list[Record]:
    """All records of a metrics file, but for a last line cut short by a crash.

    Raises:
      UserError: if another line is no record, and which.
    """
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise UserError(
            f"{printable(path)} cannot be read: {error.strerror}."
        ) from None
    whole = content.rfind(b"\n") + 1
    records = []
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            record = json.loads(line)
        except ValueError:
            record = None
        if _is_record(record):
            records.append(record)
        elif line.strip() and line != content[whole:]:
            raise UserError(f"{printable(path)} is damaged in line {number}.")
    return records


def _is_record(record: Any) -> bool:
    numbers = ("step", "epoch")
    return (
        isinstance(record, dict)
        and isinstance(record.get("kind"), str)
        and all(isinstance(record.get(name), int | float) for name in numbers)
        and all(math.isfinite(record[name]) for name in numbers)
    )


def _finite(record: Record) -> Record:
    """The record without values that are no finite number."""
    return {
        name: value
        for name, value in record.items()
        if not isinstance(value, bool | list | dict | None)
        and (isinstance(value, str) or math.isfinite(value))
    }


def read_runs(
    workdirs: Iterable[Path], *, unfinished: bool = False
) -> tuple[list[Run], PassedOver]:
    """The runs that can be compared, and a sentence on each entry that cannot.

    Runs that are not finished are none of them, unless `unfinished` says so. Where
    several runs have one config and one seed, the longest counts: a copy is no second
    seed.
    """
    runs: list[Run] = []
    passed_over: PassedOver = []
    for workdir in workdirs:
        try:
            runs.append(Run(workdir, finished_only=not unfinished))
        except UserError as error:
            passed_over.append(" ".join(str(error).split("\n")))
    runs, repeated = _one_per_seed(runs)
    runs, shorter = _equally_long(runs)
    return runs, passed_over + repeated + shorter


def _one_per_seed(runs: Sequence[Run]) -> tuple[list[Run], PassedOver]:
    kept: list[Run] = []
    sentences = []
    for run in sorted(runs, key=lambda run: -run.last["step"]):
        same = [each for each in kept if _is_same(each, run)]
        if not same:
            kept.append(run)
            continue
        place, other = printable(run.workdir), printable(same[0].workdir)
        if run.workdir.resolve() == same[0].workdir.resolve():
            sentences.append(f"{place} was given twice.")
        elif run.eval == same[0].eval:
            sentences.append(f"{place} is a copy of {other}: no second seed.")
        else:
            sentences.append(
                f"{place} has the config and the seed ({run.seed}) of {other}, which"
                " counts: no second seed."
            )
    return [run for run in runs if run in kept], sentences


def _is_same(run: Run, other: Run) -> bool:
    return run.seed == other.seed and not differing_fields([run.config, other.config])


def _equally_long(runs: Sequence[Run]) -> tuple[list[Run], PassedOver]:
    """Runs of one config are averaged at the same step only: others are unfinished."""
    kept, sentences = [], []
    for run in runs:
        alike = [
            each for each in runs if not differing_fields([each.config, run.config])
        ]
        steps = max(each.last["step"] for each in alike)
        if run.last["step"] == steps:
            kept.append(run)
        else:
            sentences.append(
                f"{printable(run.workdir)} is not finished: evaluated at step"
                f" {run.last['step']}, others of its config at {steps}."
            )
    return kept, sentences
