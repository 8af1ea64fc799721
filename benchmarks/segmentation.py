"""Attention layers in a segmentation network, on three sets of masks, seed by seed.

    python -m benchmarks.segmentation                                  # digits
    python -m benchmarks.segmentation --sets digits butterflies pets3 --seeds 5
    python -m benchmarks.segmentation --skips --results results/segmentation_skips

Every run is `python -m train fit --preset NAME-segment` with another layer and seed, in
a directory of its own; started again, the benchmark goes on where it stopped. Network,
recipe, steps and images are the same in all rows. It writes RESULTS.json, RESULTS.md
(mean and 95% interval over seeds, and differences to the bare network, paired by seed)
and RESULTS.png: test images with the true regions and those that were found.
"""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from benchmarks.tables import by_seed, paired, run_all, score, table

LAYERS = (
    "none",
    "positionwise-pooled",
    "positionwise-trunk",
    "rectangular",
    "squeeze-excite",
    "scse",
)
MEAN_IOU = ("mean IoU", "test/mean_iou", 4)
COLUMNS = (
    MEAN_IOU,
    ("mean IoU, training images", "train/mean_iou", 4),
    ("IoU of the object", "test/iou_object", 4),
    ("Dice", "test/mean_dice", 4),
    ("outlines (F)", "test/boundary_f", 3),
    ("mask area", "test/L/mask_area", 3),
)
# Rows without a rectangle have no equivariance to score.
EVALUATION = ("--equivariance-images", "0")


@dataclass(frozen=True)
class Options:
    """What to compare."""

    sets: tuple[Literal["digits", "butterflies", "pets3"], ...] = ("digits",)
    """Data sets; each has a preset of the name SET-segment."""
    folders: Path = Path("data")
    """Where butterflies10/ and pets3/ are unpacked."""
    layers: tuple[str, ...] = LAYERS
    """Attention layers; the first is what the others are compared with."""
    seeds: int = 3
    """Seeds 0, 1, ... of each row."""
    epochs: float | None = None
    """Passes over the training images; none: the preset's."""
    skips: bool = False
    """Put the layers on the skips of the decoder, not into the encoder."""
    jobs: int = 1
    """Runs side by side, each on its share of the CPU cores."""
    workdir: Path = Path("runs/benchmark-segmentation")
    """Directory of the runs."""
    results: Path = Path("results/segmentation")
    """RESULTS.json, .md and .png are written."""


def fit_arguments(options: Options, name: str, layer: str, seed: int) -> list[str]:
    """The arguments of one training run."""
    arguments = ["--preset", f"{name}-segment", "--seed", str(seed)]
    arguments += ["--model.attention", layer]
    folders = {"butterflies": "butterflies10", "pets3": "pets3"}
    if name in folders:
        folder = options.folders / folders[name]
        arguments += ["--data.name", f"folder:{folder}"]
    if options.epochs is not None:
        arguments += ["--epochs", str(options.epochs)]
    if options.skips:
        arguments += ["--task.attention-in-skips"]
    # Scored once, at the end; the test images choose nothing.
    once = ["--output.evaluate-every", "1000", "--output.no-tensorboard"]
    return [*arguments, *once]


def place_of(options: Options, name: str, layer: str, seed: int) -> Path:
    """The work directory of one run."""
    where = "-skips" if options.skips else ""
    return options.workdir / f"{name}-{layer}{where}-{seed}"


def markdown(runs: dict[str, dict[str, list[dict]]], command: str) -> str:
    """For each set the table of means, paired differences, and every seed's figures."""
    count = len(next(iter(next(iter(runs.values())).values())))
    lines = [
        "# Segmentation with and without attention",
        "",
        f"`{command}` on {platform.machine()}, {os.cpu_count()} cores; mean ± 95%"
        f" interval over {count} seeds. The same network, recipe, steps and images in"
        " all rows (`train/config/presets.py`); no row's step or layer was chosen by"
        " test images. Outlines: F-score within 0.75% of the diagonal, one pixel at"
        " least; the ignored border of a trimap hides most of them.",
    ]
    for name, rows in runs.items():
        found = {
            layer: {
                column: [score(run, key) for run in each] for column, key, _ in COLUMNS
            }
            for layer, each in rows.items()
        }
        first = next(iter(found))
        lines += ["", f"## {name}", "", *table(found, COLUMNS)]
        lines += ["", f"Mean IoU, minus that of `{first}`, paired by seed:", ""]
        lines += paired(found, MEAN_IOU, first=first)
        lines += ["", "Every seed:", "", *table(by_seed(found), COLUMNS)]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(
        Options, args=arguments, prog="python -m benchmarks.segmentation"
    )
    runs: dict[str, dict[str, list[dict]]] = {name: {} for name in options.sets}
    # Seed by seed, so that an interrupted benchmark has whole pairs.
    for seed in range(options.seeds):
        for name in options.sets:
            planned = {
                place_of(options, name, layer, seed): fit_arguments(
                    options, name, layer, seed
                )
                for layer in options.layers
            }
            results = run_all(planned, options.jobs, evaluation=EVALUATION)
            for layer, result in zip(options.layers, results, strict=True):
                runs[name].setdefault(layer, []).append(result)
        write_results(options, runs, arguments)
    workdirs = [
        place_of(options, name, layer, 0)
        for name in options.sets
        for layer in options.layers
    ]
    picture_rows(workdirs, options.results.with_suffix(".png"))


def write_results(
    options: Options, runs: dict[str, dict[str, list[dict]]], arguments: list[str]
) -> None:
    """RESULTS.md and RESULTS.json of the seeds done so far."""
    command = shlex.join(["python", "-m", "benchmarks.segmentation", *arguments])
    options.results.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(runs, command) + "\n"
    options.results.with_suffix(".md").write_text(text)
    record = {"command": command, "machine": platform.machine(), "runs": runs}
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    print(text)


def picture_rows(workdirs: list[Path], path: Path, count: int = 4) -> None:
    """Test images spread over the set, one row for each trained network."""
    import jax
    import numpy as np
    from PIL import Image

    from cram_jax.drawing import image_grid
    from train.data.loaders import Feed
    from train.evidence.pictures import grid_of
    from train.learning.devices import JitParallel
    from train.learning.evaluator import Evaluator
    from train.run.checkpoints.restore import restore_trained

    rows = []
    for workdir in workdirs:
        parallel = JitParallel(jax.devices()[:1])
        trained = restore_trained(workdir, "latest", parallel)
        experiment = trained.experiment
        feed = Feed(trained.config, experiment.task, experiment.inputs)
        batch = feed.fixed_batch(count)
        look = Evaluator(experiment, parallel).observe
        shown = look(trained.variables, trained.step, batch["image"])
        rows.append(grid_of(batch, *shown, experiment.inputs.truth, experiment.task))
    Image.fromarray(np.asarray(image_grid(rows, columns=1))).save(path)


if __name__ == "__main__":
    main(sys.argv[1:])
