"""Attention layers compared on cluttered digits, seed by seed.

    python -m benchmarks.digits                       # none, rectangular; 5 seeds
    python -m benchmarks.digits --layers none positionwise-trunk rectangular
    python -m benchmarks.digits --seeds 2 --epochs 2  # smaller

Every run is `python -m train fit --preset digits` with another layer and seed, in a
directory of its own; started again, the benchmark goes on where it stopped. It writes
RESULTS.json and RESULTS.md: mean and 95% interval over seeds, and the difference to
the first layer, paired by seed.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from train.evaluate import RESULT_FILE
from train.report import mean_and_interval

# Name in the table, key in evaluation.json (L: the layer), and how many digits.
COLUMNS = (
    ("test accuracy", "test/accuracy", 4),
    ("train accuracy", "train/accuracy", 4),
    ("IoU", "test/L/iou", 3),
    ("share IoU >= 0.5", "test/L/corloc", 3),
    ("centre error (px)", "test/L/center_error", 2),
    ("mask mass on object", "test/L/mass_on_object", 3),
)


@dataclass(frozen=True)
class Options:
    """What to compare."""

    layers: tuple[str, ...] = ("none", "rectangular")
    """Attention layers; the first is what the others are compared with."""
    seeds: int = 5
    """Seeds 0, 1, ... of each layer."""
    epochs: float | None = None
    """Passes over the training images; none: as the preset has it."""
    stage: int | None = None
    """Stage after which the layer is put; none: as the preset has it."""
    train_examples: int | None = None
    """Training images; none: as the preset has it."""
    equivariance: float | None = None
    """Weight of the equivariance loss; none: as the preset has it."""
    workdir: Path = Path("runs/benchmark-digits")
    """Directory of the runs."""
    results: Path = Path("results/digits")
    """RESULTS.json and RESULTS.md are written."""


def equivariance_weight(options: Options, layer: str) -> float | None:
    """Layers without a rectangle see the same moved images, but have no such loss."""
    return options.equivariance if layer.startswith("rectangular") else 0.0


def fit_arguments(options: Options, layer: str, seed: int) -> list[str]:
    """The arguments of one training run."""
    arguments = ["--preset", "digits", "--model.attention", layer, "--seed", str(seed)]
    for name, value in (
        ("--epochs", options.epochs),
        ("--model.attention-stages", options.stage),
        ("--data.train-examples", options.train_examples),
        ("--equivariance.weight", equivariance_weight(options, layer)),
    ):
        if value is not None:
            arguments += [name, str(value)]
    return arguments


def run_once(options: Options, layer: str, seed: int) -> dict:
    """Trains and evaluates, unless that is done; returns evaluation.json."""
    workdir = options.workdir / f"{layer}-{seed}"
    result = workdir / RESULT_FILE
    if not result.exists():
        program = [sys.executable, "-m", "train"]
        place = ["--workdir", str(workdir)]
        fit = [*program, "fit", *fit_arguments(options, layer, seed), *place]
        subprocess.run(fit, check=True)
        evaluate = [*program, "evaluate", *place, "--train-images"]
        subprocess.run(evaluate, check=True, stdout=subprocess.DEVNULL)
    return json.loads(result.read_text())


def score(evaluation: dict, key: str) -> float | None:
    """One number of an evaluation; L in the key stands for its first layer."""
    split, name = key.split("/", 1)
    scores = evaluation[split]
    if name.startswith("L/"):
        ending = name[1:]
        found = [key for key in scores if key.endswith(ending)]
        return scores[found[0]] if found else None
    return scores.get(name)


def cell(values: list[float | None], digits: int, *, sign: str = "") -> str:
    """Mean and interval, or nothing where a layer has no such score."""
    present = [value for value in values if value is not None]
    if not present or len(present) < len(values):
        return ""
    mean, interval = mean_and_interval(present)
    spread = "" if interval is None else f" ± {interval:.{digits}f}"
    return f"{mean:{sign}.{digits}f}{spread}"


def differences(values: list[float | None], others: list[float | None]) -> list[float]:
    """Paired by seed; nothing if one of them has no such score."""
    pairs = zip(values, others, strict=True)
    return [a - b for a, b in pairs if a is not None and b is not None]


def table(columns: dict[str, dict[str, list[float | None]]]) -> list[str]:
    """One row per name: mean and interval of each score."""
    names = [name for name, _, _ in COLUMNS]
    lines = ["| run | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
    for row, values in columns.items():
        cells = [cell(values[name], digits) for name, _, digits in COLUMNS]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def markdown(runs: dict[str, list[dict]], command: str) -> str:
    """The table of means, the paired differences, and every seed's figures."""
    columns = {
        layer: {name: [score(run, key) for run in each] for name, key, _ in COLUMNS}
        for layer, each in runs.items()
    }
    seeds = {
        f"{layer}, seed {seed}": {name: [values[seed]] for name, values in all_.items()}
        for layer, all_ in columns.items()
        for seed in range(len(runs[layer]))
    }
    first = next(iter(runs))
    lines = [
        "# Cluttered digits",
        "",
        f"`{command}` on {platform.machine()}, {os.cpu_count()} cores; mean ± 95%"
        f" interval over {len(runs[first])} seeds. All runs see the same images, moved"
        " ones included, and class labels only.",
        "",
        *table(columns),
        "",
        f"Test accuracy minus that of `{first}`, paired by seed:",
        "",
    ]
    for layer in list(runs)[1:]:
        accuracy = "test accuracy"
        paired = differences(columns[layer][accuracy], columns[first][accuracy])
        above = sum(difference > 0 for difference in paired)
        text = cell(list(paired), 4, sign="+")
        lines.append(f"- {layer}: {text}; above on {above} of {len(paired)}")
    return "\n".join([*lines, "", "Every seed:", "", *table(seeds)]) + "\n"


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.digits")
    runs = {}
    # Seed by seed, so that an interrupted benchmark has whole pairs.
    for seed in range(options.seeds):
        for layer in options.layers:
            runs.setdefault(layer, []).append(run_once(options, layer, seed))
    command = shlex.join(["python", "-m", "benchmarks.digits", *arguments])
    options.results.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(runs, command)
    options.results.with_suffix(".md").write_text(text)
    record = {"command": command, "machine": platform.machine(), "runs": runs}
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
