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
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.tables import by_seed, paired, run_once, score, table

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


def markdown(runs: dict[str, list[dict]], command: str) -> str:
    """The table of means, the paired differences, and every seed's figures."""
    rows = {
        layer: {name: [score(run, key) for run in each] for name, key, _ in COLUMNS}
        for layer, each in runs.items()
    }
    first = next(iter(runs))
    lines = [
        "# Cluttered digits",
        "",
        f"`{command}` on {platform.machine()}, {os.cpu_count()} cores; mean ± 95%"
        f" interval over {len(runs[first])} seeds. All runs see the same images, moved"
        " ones included, and class labels only.",
        "",
        *table(rows, COLUMNS),
        "",
        f"Test accuracy minus that of `{first}`, paired by seed:",
        "",
        *paired(rows, COLUMNS[0], first=first),
    ]
    return "\n".join([*lines, "", "Every seed:", "", *table(by_seed(rows), COLUMNS)])


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.digits")
    runs = {}
    # Seed by seed, so that an interrupted benchmark has whole pairs.
    for seed in range(options.seeds):
        for layer in options.layers:
            workdir = options.workdir / f"{layer}-{seed}"
            run = run_once(workdir, fit_arguments(options, layer, seed))
            runs.setdefault(layer, []).append(run)
    command = shlex.join(["python", "-m", "benchmarks.digits", *arguments])
    options.results.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(runs, command) + "\n"
    options.results.with_suffix(".md").write_text(text)
    record = {"command": command, "machine": platform.machine(), "runs": runs}
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
