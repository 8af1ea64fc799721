"""The tables and the pictures of `benchmarks.segmentation`."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
from PIL import Image

from benchmarks.tables import by_seed, paired, score, table
from cram_jax.drawing import image_grid
from train.data.loaders import Feed
from train.evidence.pictures import grid_of
from train.learning.devices import JitParallel
from train.learning.evaluator import Evaluator
from train.run.checkpoints.restore import restore_trained

MEAN_IOU = ("mean IoU", "test/mean_iou", 4)
COLUMNS = (
    MEAN_IOU,
    ("mean IoU, training images", "train/mean_iou", 4),
    ("IoU of the object", "test/iou_object", 4),
    ("Dice", "test/mean_dice", 4),
    ("outlines (F)", "test/boundary_f", 3),
    ("mask area", "test/L/mask_area", 3),
    ("parameters", "test/parameters", 0),
)
NO_LEARNING, UNET = "no learning", "U-Net (torch)"
PARAMETERS = "parameters"  # How many there are, among an evaluation's scores.


def markdown(record: dict) -> str:
    """For each set the table of means, paired differences, and every seed's figures."""
    lines = [
        "# Segmentation with and without attention",
        "",
        f"`{record['command']}` on {record['machine']}; mean ± 95%"
        " interval over seeds. The same encoder, recipe, steps and images in"
        " all rows (`train/config/presets/`); no row's step or layer was chosen by"
        " test images. The decoder is light (maps are added, 32 channels) but in rows"
        " called `-concat`, where it is a small U-Net's (maps are put side by side,"
        " from 16 channels to 128); it was chosen on held-out training images of seed"
        " 0, and the presets for photographs have it. Outlines: F-score within 0.75%"
        " of the diagonal, one pixel at least; the ignored border of a trimap hides"
        " most of them. The U-Net (`python -m benchmarks.segmentation_torch`) sees the"
        " same batches in as many steps.",
    ]
    for name, rows in record["runs"].items():
        if not rows:
            continue
        found = {layer: _columns(each) for layer, each in rows.items()}
        first = next(iter(found))
        guess = {NO_LEARNING: _columns([{"test": record["no_learning"][name]}])}
        unet = list(record["torch"].get(name, {}).values())
        theirs = {UNET: _columns(unet)} if unet else {}
        seeds = len(rows[first])
        title = f"## {name}, {seeds} {'seeds' if seeds > 1 else 'seed'}"
        lines += ["", title, "", *table(guess | found | theirs, COLUMNS)]
        lines += ["", f"Mean IoU, minus that of `{first}`, paired by seed:", ""]
        lines += paired(found, MEAN_IOU, first=first)
        lines += ["", "Every seed:", "", *table(by_seed(found | theirs), COLUMNS)]
    return "\n".join(lines) + "\n"


def _columns(evaluations: list[dict]) -> dict[str, list[float | None]]:
    return {
        column: [score(each, key) for each in evaluations] for column, key, _ in COLUMNS
    }


def write(record: dict, results: Path) -> None:
    """RESULTS.md and RESULTS.json."""
    results.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(record)
    results.with_suffix(".md").write_text(text)
    results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    print(text)


def picture_rows(workdirs: list[Path], path: Path, count: int = 4) -> None:
    """Test images spread over the set, one row for each trained network."""
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
    sheet = Image.fromarray(np.asarray(image_grid(rows, columns=1)))
    # Of 256 colours: a third of the bytes.
    sheet.quantize(256).save(path, optimize=True)
