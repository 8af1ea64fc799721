"""Attention layers compared on cluttered digits, seed by seed.

    python -m benchmarks.digits                          # the comparison
    python -m benchmarks.digits --seeds 2 --more-seeds 1 --epochs 1   # smaller
    python -m benchmarks.digits --studies preset --results results/digits_preset
    python -m benchmarks.digits --studies budget --results results/digits_budget

Every run is `python -m train fit --preset digits` with another layer, stage, number of
training images or seed, in a directory of its own; started again, the benchmark goes
on where it stopped. All runs take the same number of steps and see the same images,
moved ones included; only rectangles have an equivariance loss, and not all of them.
It writes RESULTS.json, RESULTS.md and RESULTS_curves.png: mean and 95% interval over
seeds, differences paired by seed, and what they say of the paper's claims.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks import digits_report
from benchmarks.digits_arms import DEFAULT_EXAMPLES, OF_PRESETS, STUDIES, Arm
from benchmarks.digits_further import BATCH, further_scores
from benchmarks.tables import run_all, shown_command
from train.config.presets import preset

# The learning rate of a regression predictor, as a multiple of the network's: at the
# preset's 5, which is for heat maps, it saturates.
REGRESSION_SCALE = 0.1


@dataclass(frozen=True)
class Options:
    """What to compare."""

    studies: tuple[
        Literal[
            "layers", "stages", "examples", "ablation", "movement", "preset", "budget"
        ],
        ...,
    ] = ("layers", "stages", "examples", "ablation", "movement")
    """layers: every layer at one stage. stages, examples: three layers at each stage,
    and with each number of training images. ablation: the moment rectangle with one
    thing changed at a time. movement: its loss weighed more. preset: the preset itself
    and without attention. budget: it with a budget for the mask's area, and without."""
    seeds: int = 5
    """Seeds 0, 1, ... of the studies layers, preset and budget."""
    more_seeds: int = 3
    """Seeds of the studies stages, examples, ablation and movement."""
    epochs: float = 5.0
    """Passes over 4,000 training images; the number of steps is the same whatever the
    number of images. Not of the studies preset and budget."""
    batch_size: int = 32
    """Images of a step: half the preset's, for twice its steps in less time. Not of the
    studies preset and budget."""
    preset_epochs: float | None = None
    """Passes over the images in these two studies; none: as the preset has it."""
    further_images: int = 10_000
    """Test images beyond the data set's 2,000 in these two studies; 0: none."""
    jobs: int = 1
    """Runs side by side, each on its share of the CPU cores."""
    workdir: Path = Path("runs/benchmark-digits")
    """Directory of the runs."""
    results: Path = Path("results/digits")
    """RESULTS.json, RESULTS.md and, of stages and examples, RESULTS_curves.png."""


def fit_arguments(arm: Arm, seed: int, epochs: float) -> list[str]:
    """The arguments of one training run of `epochs` passes."""
    weight = [] if arm.loss else ["--equivariance.weight", "0"]
    scale = ["--optimizer.predictor-scale", str(REGRESSION_SCALE)]
    # The preset has a budget; of the studies only one asks what it does.
    return [
        *("--preset", "digits", "--seed", str(seed), "--epochs", str(epochs)),
        *("--model.attention", arm.layer, "--model.attention-stages", str(arm.stage)),
        *("--data.train-examples", str(arm.examples)),
        *("--output.evaluate-every", "1000", "--output.no-tensorboard"),
        *weight,
        *("--budget.area", "None"),
        *(scale if arm.layer == "rectangular-regression" else []),
        *arm.options,
    ]


def planned_runs(options: Options) -> dict[str, tuple[str, list[str]]]:
    """Arm and arguments of every run by the name of its directory.

    Seed by seed, so that an interrupted benchmark has whole pairs.
    """
    runs = {}
    for seed in range(max(options.seeds, options.more_seeds)):
        for study in options.studies:
            whole = study in ("layers", *OF_PRESETS)
            if seed >= (options.seeds if whole else options.more_seeds):
                continue
            for arm in STUDIES[study]:
                epochs = options.epochs * DEFAULT_EXAMPLES / arm.examples
                if study in OF_PRESETS:
                    epochs = options.preset_epochs or preset("digits").epochs
                arguments = fit_arguments(arm, seed, epochs)
                if study not in OF_PRESETS:
                    arguments += ["--batch-size", str(options.batch_size)]
                prefix = "preset-" if study in OF_PRESETS else ""
                runs[f"{prefix}{arm.name}-{seed}"] = (arm.name, arguments)
    return runs


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.digits")
    if options.further_images % BATCH:
        raise SystemExit(
            f"--further-images must be a multiple of {BATCH};"
            f" got {options.further_images}."
        )
    planned = planned_runs(options)
    places = {options.workdir / name: plan for name, (_, plan) in planned.items()}
    runs: dict[str, list[dict]] = {}
    results = run_all(places, options.jobs)
    for (arm, _), place, result in zip(planned.values(), places, results, strict=True):
        if {*OF_PRESETS} & {*options.studies} and options.further_images:
            result["further"] = further_scores(place, options.further_images)
        runs.setdefault(arm, []).append(result)
    record = {
        "command": shown_command("benchmarks.digits", options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "studies": {
            study: [arm.name for arm in STUDIES[study]] for study in options.studies
        },
        "runs": runs,
    }
    if set(options.studies) - {*OF_PRESETS}:
        steps = options.epochs * DEFAULT_EXAMPLES / options.batch_size
        images = f"{options.batch_size} images"
        record["note"] = f"Every run takes {steps:.0f} steps of {images}."
        if {*OF_PRESETS} & {*options.studies}:
            record["note"] += " But not those of the preset."
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    print(digits_report.write(record, options.results))


if __name__ == "__main__":
    main(sys.argv[1:])
