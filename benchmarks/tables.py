"""What the benchmarks share: a run with its evaluation, and tables over seeds."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import queue
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from train.commands.intervals import mean_and_interval
from train.run import layout

# Name in the table, key in evaluation.json (L: the layer), and how many digits.
Column = tuple[str, str, int]
Values = list[float | None]


def run_once(
    workdir: Path,
    arguments: list[str],
    cores: Sequence[int] | None = None,
    *,
    evaluation: Sequence[str] = (),
) -> dict:
    """Trains with these arguments of `fit` and evaluates, unless that is done.

    Args:
      workdir: the run's.
      arguments: those of `fit`, without the work directory.
      cores: CPU cores to stay on; None: any.
      evaluation: further arguments of `evaluate`.

    Returns:
      evaluation.json, whose splits are "test" and "train".
    """
    result = workdir / layout.EVALUATION
    if not result.exists():
        program = [sys.executable, "-m", "train"]
        if cores is not None:
            # Before jax counts the cores for its threads.
            pin = f"import os; os.sched_setaffinity(0, {list(cores)}); "
            start = "import runpy; runpy.run_module('train', run_name='__main__')"
            program = [sys.executable, "-c", pin + start]
        # Runs of one network compile the same programs, whatever their seed.
        cache = {"JAX_COMPILATION_CACHE_DIR": str(workdir.parent.resolve() / "cache")}
        place, environment = ["--workdir", str(workdir)], os.environ | cache
        fit, evaluate = ["fit", *arguments], ["evaluate", "--train-images", *evaluation]
        subprocess.run([*program, *fit, *place], check=True, env=environment)
        subprocess.run(
            [*program, *evaluate, *place],
            check=True,
            env=environment,
            stdout=subprocess.DEVNULL,
        )
    return json.loads(result.read_text())


def run_all(
    runs: Mapping[Path, list[str]], jobs: int, *, evaluation: Sequence[str] = ()
) -> list[dict]:
    """`run_once` for every work directory, `jobs` at a time; the results in order."""
    if jobs == 1 or not hasattr(os, "sched_getaffinity"):
        return [run_once(*item, evaluation=evaluation) for item in runs.items()]
    available = sorted(os.sched_getaffinity(0))
    free: queue.SimpleQueue[Sequence[int]] = queue.SimpleQueue()
    for job in range(jobs):
        free.put(available[job::jobs] or available)

    def run(item: tuple[Path, list[str]]) -> dict:
        cores = free.get()
        try:
            return run_once(*item, cores, evaluation=evaluation)
        finally:
            free.put(cores)

    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(run, runs.items()))


def score(evaluation: dict, key: str) -> float | None:
    """One number of an evaluation; L in the key stands for its first layer.

    None where there is no such score, or it is not finite.
    """
    split, name = key.split("/", 1)
    scores = evaluation.get(split, {})
    if name.startswith("L/"):
        name = next((key for key in scores if key.endswith(name[1:])), name)
    value = scores.get(name)
    return value if value is not None and math.isfinite(value) else None


def cell(values: Values, digits: int, *, sign: str = "") -> str:
    """Mean and interval, or nothing where a layer has no such score."""
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return ""
    mean, interval = mean_and_interval(present)
    spread = "" if interval is None else f" ± {interval:.{digits}f}"
    return f"{mean:{sign}.{digits}f}{spread}"


def differences(values: Values, others: Values) -> list[float]:
    """Paired by seed; nothing if one of them has no such score."""
    pairs = zip(values, others, strict=True)
    return [a - b for a, b in pairs if a is not None and b is not None]


def table(rows: dict[str, dict[str, Values]], columns: Sequence[Column]) -> list[str]:
    """One row per name: mean and interval of each score that any of them has."""
    columns = [
        column
        for column in columns
        if any(value is not None for row in rows.values() for value in row[column[0]])
    ]
    names = [name for name, _, _ in columns]
    lines = ["| run | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for row, values in rows.items():
        cells = [cell(values[name], digits) for name, _, digits in columns]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def by_seed(rows: dict[str, dict[str, Values]]) -> dict[str, dict[str, Values]]:
    """One row for every seed of every row."""
    return {
        f"{row}, seed {seed}": {name: [each[seed]] for name, each in values.items()}
        for row, values in rows.items()
        for seed in range(len(next(iter(values.values()))))
    }


def paired(
    rows: dict[str, dict[str, Values]], column: Column, *, first: str
) -> list[str]:
    """A line for every other row: its score minus that of `first`, seed by seed."""
    name, _, digits = column
    lines = []
    for row, values in rows.items():
        pairs = differences(values[name], rows[first][name])
        if row == first or not pairs:
            continue
        above = sum(difference > 0 for difference in pairs)
        text = cell(list(pairs), digits, sign="+")
        lines.append(f"- {row}: {text}; above on {above} of {len(pairs)}")
    return lines


def verdict(values: Sequence[float], *, better: int = 1, digits: int = 4) -> str:
    """holds, fails or undecided: by the side of 0 on which the 95% interval lies.

    Args:
      values: paired differences, one per seed.
      better: 1 where the claim is that they are positive, -1 for negative.
      digits: behind the point.
    """
    mean, interval = mean_and_interval(values) if values else (0.0, None)
    if interval is None:
        return "undecided (too few seeds)"
    word = "undecided"
    if abs(mean) > interval:
        word = "holds" if mean * better > 0 else "fails"
    spread = f"{mean:+.{digits}f} ± {interval:.{digits}f}"
    return f"**{word}** ({spread}, {len(values)} seeds)"


def shown_command(module: str, options: Any) -> str:
    """The command that gives these results on any machine.

    Without options that have their usual value, name a place, or say how the runs are
    done (`jobs`, `only_report`).

    Args:
      module: the benchmark's name, as `python -m` takes it.
      options: a dataclass whose fields all have defaults.
    """
    words = ["python", "-m", module]
    for field in dataclasses.fields(options):
        given, usual = getattr(options, field.name), field.default
        how = field.name in ("jobs", "only_report") or isinstance(usual, Path)
        if given != usual and not how:
            values = given if isinstance(given, tuple) else (given,)
            words.append(f"--{field.name.replace('_', '-')}")
            words += [] if given is True else [str(value) for value in values]
    return shlex.join(words)
