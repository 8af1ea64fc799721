"""Where layers look on photographs: with and without a budget, seed by seed.

    python -m benchmarks.photographs --data data            # data/pets3, ...
    python -m benchmarks.photographs --data data --quick    # minutes: it works at all

Every run is `python -m train fit --preset photographs`, or its preset for that set,
with another layer, stage, budget and seed, in a directory of its own, and `python -m
train evaluate`; started again, the benchmark goes on where it stopped. Test images
choose nothing: thresholds of maps and the constant box come from the tenth of the
training images that the presets hold out, and the last step is scored.

It writes RESULTS.json, RESULTS.md (mean and 95% interval over seeds, differences paired
by seed, and what they say of the paper's claims) and RESULTS.png.
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from benchmarks import photographs_picture, photographs_report
from benchmarks.photographs_verdicts import findings
from benchmarks.tables import run_all, shown_command
from train.run import layout
from train.run.metric_log import read_records

PRESETS = {"pets3": "pets3", "butterflies10": "butterflies"}
# Equivariance takes longer to score than a run, and no table shows it.
EVALUATION = ("--equivariance-images", "0")
# Learning rate of a regression predictor, as a multiple of the network's: at the
# presets' 3, which is for heat maps, it saturates.
REGRESSION_SCALE = 0.1
# What is asked of the mask beside the labels.
BUDGETS: dict[str, tuple[str, ...]] = {
    "both": (),
    "budget": ("--budget.outside=0",),
    "outside": ("--budget.area=None",),
    "labels": (
        "--budget.area=None",
        "--budget.outside=0",
        "--budget.mask-dropout=0",
    ),
}


@dataclass(frozen=True)
class Arm:
    """One thing that is compared with others.

    Attributes:
      layer: name of the attention layer; "none" is the bare network.
      asked: key of `BUDGETS`.
      stage: after which the layer is.
      equivariance: weight of the equivariance loss.
    """

    layer: str
    asked: str = "both"
    stage: int = 4
    equivariance: float = 0.0

    @property
    def name(self) -> str:
        """Name of its runs' directories and its rows."""
        if self.layer == "none":
            return "none"
        loss = "-equivariance" if self.equivariance else ""
        stage = f"-stage{self.stage}" if self.stage != 4 else ""
        return f"{self.layer}-{self.asked}{stage}{loss}"

    def options(self) -> list[str]:
        """Options of `fit` that make it, beside the preset."""
        if self.layer == "none":
            fill = ["--model.attention-fill=zero"]
            return ["--model.attention=none", *fill, *BUDGETS["labels"]]
        chosen = [f"--model.attention={self.layer}", *BUDGETS[self.asked]]
        if self.layer == "rectangular-regression":
            chosen += [f"--optimizer.predictor-scale={REGRESSION_SCALE}"]
        if self.equivariance:
            chosen += [f"--equivariance.weight={self.equivariance}"]
        return [*chosen, f"--model.attention-stages={self.stage}"]


BARE, BEST = Arm("none"), Arm("rectangular")
TRUNK = Arm("positionwise-trunk")
LAYERS = (
    "rectangular",
    "rectangular-regression",
    "positionwise-trunk",
    "positionwise-pooled",
)
STUDIES: dict[str, tuple[Arm, ...]] = {
    "claims": (BARE, BEST, TRUNK),
    "layers": tuple(Arm(layer) for layer in LAYERS),
    "losses": tuple(
        Arm(layer, asked)
        for asked in ("labels", "budget", "outside")
        for layer in LAYERS
    ),
    "equivariance": (Arm("rectangular", equivariance=0.3),),
    "stages": tuple(
        Arm(layer, stage=stage)
        for stage in (3, 5)
        for layer in ("rectangular", "positionwise-trunk")
    ),
}


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: Path = Path("data")
    """Folder in which the archives pets3.zip and butterflies10.zip were unpacked."""
    sets: tuple[str, ...] = ("pets3", "butterflies10")
    """Names of the folders in it; others than these two train by the preset
    photographs."""
    studies: tuple[
        Literal["claims", "layers", "losses", "equivariance", "stages"], ...
    ] = ("claims", "layers", "losses", "equivariance", "stages")
    """claims: the bare network, the rectangular and the position-wise layer. layers:
    four layers. losses: each with labels only, budget only, outside view only.
    equivariance: with that loss. stages: after stages 3 and 5 instead of 4."""
    seeds: int = 5
    """Seeds 0, 1, ... of the study claims."""
    more_seeds: int = 3
    """Seeds of the other studies."""
    quick: bool = False
    """One seed, one epoch, 64 pixels: to see that everything works. All of it, results
    included, goes to WORKDIR/quick."""
    jobs: int = 1
    """Runs side by side, each on its share of the CPU cores."""
    workdir: Path = Path("runs/benchmark-photographs")
    """Directory of the runs."""
    results: Path = Path("results/photographs")
    """RESULTS.json, .md and .png are written."""
    only_report: bool = False
    """Train nothing: write the results of the runs that are there."""


def fit_arguments(options: Options, name: str, arm: Arm, seed: int) -> list[str]:
    """The arguments of one training run."""
    quick = ["--epochs=1", "--data.image-size=64"] if options.quick else []
    return [
        *("--preset", PRESETS.get(name, "photographs"), "--seed", str(seed)),
        *("--data.name", f"folder:{options.data / name}"),
        *("--output.evaluate-every=1000", "--output.no-tensorboard"),
        *arm.options(),
        *quick,
    ]


def planned_runs(options: Options) -> dict[Path, tuple[str, str, int]]:
    """Set, arm and seed of every run by its work directory.

    Study by study and seed by seed, so that an interrupted benchmark has whole pairs.
    """
    runs = {}
    for study in options.studies:
        seeds = options.seeds if study == "claims" else options.more_seeds
        for seed in range(1 if options.quick else seeds):
            for name in options.sets:
                for arm in STUDIES[study]:
                    place = options.workdir / name / f"{arm.name}-{seed}"
                    runs[place] = (name, arm.name, seed)
    return runs


def seconds_of(workdir: Path) -> float | None:
    """Seconds of training over all starts of a run, without those of evaluation."""
    records = read_records(workdir / layout.METRICS)
    return max((r["seconds"] for r in records if r["kind"] == "train"), default=None)


def quick_places(options: Any) -> Any:
    """A benchmark's options; a quick try leaves what a whole study has made alone."""
    if not options.quick:
        return options
    workdir = options.workdir / "quick"
    return dataclasses.replace(
        options, workdir=workdir, results=workdir / options.results.name
    )


def run(options: Options) -> dict[str, dict[str, dict[str, dict]]]:
    """Runs what is missing; evaluations by set, arm and seed."""
    planned = planned_runs(options)
    if options.only_report:
        planned = {
            place: run
            for place, run in planned.items()
            if (place / layout.EVALUATION).exists()
        }
    arms = {arm.name: arm for study in STUDIES.values() for arm in study}
    places = {
        place: fit_arguments(options, name, arms[arm], seed)
        for place, (name, arm, seed) in planned.items()
    }
    results = run_all(places, options.jobs, evaluation=EVALUATION)
    runs: dict[str, dict[str, dict[str, dict]]] = {}
    for place, result in zip(places, results, strict=True):
        name, arm, seed = planned[place]
        seconds = {"cost": {"seconds": seconds_of(place)}}
        runs.setdefault(name, {}).setdefault(arm, {})[str(seed)] = result | seconds
    return runs


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.photographs")
    options = quick_places(options)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    runs, picture = run(options), options.results.with_suffix(".png")
    drawn = photographs_picture.draw(options.workdir, tuple(runs), picture)
    record = {
        "command": shown_command("benchmarks.photographs", options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "picture": picture.name if drawn else None,
        "findings": {name: findings(of_set, name) for name, of_set in runs.items()},
        "runs": runs,
    }
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    photographs_report.write(record, options.results)
    for name, of_set in runs.items():
        print(photographs_report.summary(of_set, name))
    print(f"See {options.results.with_suffix('.md')}.")


if __name__ == "__main__":
    main(sys.argv[1:])
