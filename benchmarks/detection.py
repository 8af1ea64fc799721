"""Attention layers, and losses of boxes, in a detector of rotated rectangles.

    python -m benchmarks.detection --data data       # many_digits, data/uav_cars
    python -m benchmarks.detection --sets many_digits --studies losses --epochs 5

Every run is `python -m train fit --preset digits-detect` or `uav-cars`, with another
layer or loss and seed, in a directory of its own; started again, the benchmark goes on
where it stopped. Detector, recipe, steps and images are the same in all rows. It writes
RESULTS.json, RESULTS.md (mean and 95% interval over seeds, and differences to the first
row, paired by seed) and RESULTS_SET.png: test images, true objects white, a row for
each run. The row "no learning" tells the mean training object of every category at
each place of a grid.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from benchmarks.segmentation_report import picture_rows
from benchmarks.tables import by_seed, paired, run_all, score, shown_command, table
from cram_jax import average_precision, match_detections
from cram_jax.geometry.coordinates import map_extents
from train.commands.options import parse_fit
from train.data.loaders import Feed
from train.run import layout
from train.tasks.registry import make_task

PRESETS = {"many_digits": "digits-detect", "uav_cars": "uav-cars"}
# After which stage a layer is: stride 4 of the small network, 16 of the other.
STAGES = {"many_digits": 2, "uav_cars": 4}
LAYERS: dict[str, tuple[str, ...]] = {
    "none": (),
    "positionwise-trunk": (),
    "squeeze-excite": (),
    "rectangular": (),
    "rectangular, K = 4": ("--model.attention-count=4",),
    "rectangular, K = 8": ("--model.attention-count=8",),
}
LOSSES = ("smooth-l1", "gaussian", "iou")
EVALUATION = ("--equivariance-images", "0")
AP75 = ("AP 0.75", "test/ap75", 3)
COLUMNS = (
    ("AP", "test/ap", 3),
    ("AP 0.5", "test/ap50", 3),
    AP75,
    ("recall 0.5", "test/recall50", 3),
    ("AP, training images", "train/ap", 3),
    ("mask area", "test/L/mask_area", 3),
)
GRID = 10  # places along each side of the row without learning


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: Path = Path("data")
    """Folder in which the archive uav_cars.zip was unpacked."""
    sets: tuple[Literal["many_digits", "uav_cars"], ...] = ("many_digits", "uav_cars")
    """Data sets."""
    studies: tuple[Literal["layers", "losses"], ...] = ("layers", "losses")
    """layers: attention layers. losses: of boxes, without a layer."""
    seeds: int = 3
    """Seeds 0, 1, ... of each row."""
    epochs: float | None = None
    """Passes over the training images; none: the preset's."""
    jobs: int = 1
    """Runs side by side, each on its share of the CPU cores."""
    workdir: Path = Path("runs/benchmark-detection")
    """Directory of the runs."""
    results: Path = Path("results/detection")
    """RESULTS.json, RESULTS.md and RESULTS_SET.png are written."""
    only_report: bool = False
    """Train nothing: write the results of the seeds of which all runs are there."""


def rows_of(study: str) -> dict[str, tuple[str, ...]]:
    """The rows of a study and their options of `fit`; the first is compared with."""
    if study == "losses":
        none = "--model.attention=none"
        return {loss: (none, f"--task.box-loss={loss}") for loss in LOSSES}
    return {
        row: (f"--model.attention={row.partition(',')[0]}", *more)
        for row, more in LAYERS.items()
    }


def fit_arguments(options: Options, name: str, row: tuple, seed: int) -> list[str]:
    """The arguments of one training run; `row` are its options."""
    arguments = ["--preset", PRESETS[name], "--seed", str(seed), *row]
    arguments += [f"--model.attention-stages={STAGES[name]}"]
    if name != "many_digits":
        arguments += ["--data.name", f"rotated:{options.data / name}"]
    if options.epochs is not None:
        arguments += ["--epochs", str(options.epochs)]
    # Scored once, at the end; the test images choose nothing.
    once = ["--output.evaluate-every", "1000", "--output.no-tensorboard"]
    return [*arguments, *once]


def place_of(options: Options, name: str, row: str, seed: int) -> Path:
    """The work directory of one run."""
    epochs = "" if options.epochs is None else f"-{options.epochs:g}"
    return options.workdir / f"{name}-{row.replace(', K = ', '-')}{epochs}-{seed}"


def mean_objects_everywhere(
    feed: Feed,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The mean training object of each category at each place of a grid.

    Returns:
      Rectangles `[N, 5]`, scores (how frequent the category is) and labels `[N]`.
    """
    categories = len(feed.inputs.categories)
    sums, counts = np.zeros((categories, 2)), np.zeros(categories)
    for batch in feed.train_images():
        labels = batch["object_labels"]
        there = labels >= 0
        np.add.at(sums, labels[there], batch["objects"][there][:, 2:4])
        np.add.at(counts, labels[there], 1)
    extent_x, extent_y = map_extents(*feed.inputs.image_shape[:2])
    places = (np.arange(GRID) + 0.5) / GRID * 2 - 1
    x, y = np.meshgrid(places * extent_x, places * extent_y)
    labels = np.repeat(np.arange(categories), GRID**2)
    sizes = (sums / np.maximum(counts, 1)[:, None])[labels]
    centers = np.tile(np.stack([x.ravel(), y.ravel()], axis=1), (categories, 1))
    found = np.concatenate([centers, sizes, np.zeros((len(labels), 1))], axis=1)
    return found, counts[labels] / counts.sum(), labels


def score_without_learning(options: Options, name: str) -> dict[str, float]:
    """Test scores of `mean_objects_everywhere`."""
    config = parse_fit(fit_arguments(options, name, rows_of("layers")["none"], 0))
    feed = Feed(config, make_task(config))
    found = mean_objects_everywhere(feed)
    matches = []
    for batch in feed.eval_batches():
        for image in np.flatnonzero(np.asarray(batch["weight"]) > 0):
            labels = np.asarray(batch["object_labels"])[image]
            truth = np.asarray(batch["objects"])[image][labels >= 0]
            matches.append(match_detections(*found, truth, labels[labels >= 0]))
    scores = average_precision(matches, len(feed.inputs.categories))
    return {"ap": scores.mean, "ap50": scores.at(0.5), "ap75": scores.at(0.75)}


def run(options: Options, name: str, study: str) -> dict[str, list[dict]]:
    """Evaluations by row, of the seeds of which all are there."""
    rows, found = rows_of(study), {}
    for seed in range(options.seeds):
        planned = {
            place_of(options, name, row, seed): fit_arguments(options, name, more, seed)
            for row, more in rows.items()
        }
        done = all((place / layout.EVALUATION).exists() for place in planned)
        if options.only_report and not done:
            continue
        results = run_all(planned, options.jobs, evaluation=EVALUATION)
        for row, result in zip(rows, results, strict=True):
            found.setdefault(row, []).append(result)
    return found


def markdown(record: dict) -> str:
    """For each set and study means, paired differences, and every seed's figures."""
    lines = [
        "# Detection of rotated rectangles: layers and losses",
        "",
        f"`{record['command']}` on {record['machine']}; mean ± 95% interval over seeds."
        " The same detector, recipe, steps and images in all rows of a table"
        " (`train/config/presets/detection.py`). AP is COCO's, with rotated IoU; test"
        " images chose nothing.",
    ]
    for name, studies in record["runs"].items():
        guess = {"no learning": _columns([{"test": record["no_learning"][name]}])}
        for study, rows in studies.items():
            if not rows:
                continue
            found = {row: _columns(each) for row, each in rows.items()}
            first, seeds = next(iter(found)), len(next(iter(rows.values())))
            title = f"## {name}, {study}, {seeds} {'seeds' if seeds > 1 else 'seed'}"
            lines += ["", title, "", *table(guess | found, COLUMNS)]
            for column in COLUMNS[:3]:
                lines += ["", f"{column[0]}, minus that of `{first}`, paired by seed:"]
                lines += ["", *paired(found, column, first=first)]
            lines += ["", "Every seed:", "", *table(by_seed(found), COLUMNS)]
    return "\n".join(lines) + "\n"


def _columns(evaluations: list[dict]) -> dict[str, list[float | None]]:
    return {
        column: [score(each, key) for each in evaluations] for column, key, _ in COLUMNS
    }


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.detection")
    options.results.parent.mkdir(parents=True, exist_ok=True)
    record = {
        "command": shown_command("benchmarks.detection", options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "no_learning": {
            name: score_without_learning(options, name) for name in options.sets
        },
        "runs": {
            name: {study: run(options, name, study) for study in options.studies}
            for name in options.sets
        },
    }
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    options.results.with_suffix(".md").write_text(markdown(record))
    for name, studies in record["runs"].items():
        rows = [row for found in studies.values() for row in found]
        places = [place_of(options, name, row, 0) for row in rows]
        if places:
            picture = options.results.with_name(f"{options.results.name}_{name}.png")
            picture_rows(places, picture)
    print(markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
