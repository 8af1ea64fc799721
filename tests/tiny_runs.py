"""A data set and a training run so small that a test may start it many times."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import flax.linen as nn
import jax
import numpy as np
from PIL import Image

from tests import compilation
from train.__main__ import main
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import CheckpointConfig, OutputConfig
from train.config.run import FitConfig
from train.data.facts import Facts
from train.errors import DONE
from train.learning.devices import JitParallel
from train.learning.experiment import Experiment, make_experiment
from train.learning.network import build_network
from train.run.checkpoints.store import Checkpoints
from train.run.workdir import load_config, load_inputs
from train.tasks.registry import make_task

PATIENCE = 900  # seconds; only a hang takes longer, even on a busy machine
SIDE = 12
CLASSES = ("blob", "cross", "edge")
INPUTS = Facts(
    image_shape=(SIDE, SIDE, 3),
    class_names=CLASSES,
    num_examples=24,
    truth="rotated",
    regions=("background", "object"),
    categories=CLASSES,
)


def write_images(folder: Path, per_class: int = 8) -> Path:
    """A folder set of `3 * per_class` training and 15 test images, with boxes."""
    generator = np.random.default_rng(0)
    lines = ["path,xmin,ymin,xmax,ymax"]
    for split, count in (("train", per_class), ("test", 5)):
        for label, name in enumerate(CLASSES):
            directory = folder / split / name
            directory.mkdir(parents=True)
            for index in range(count):
                image = generator.integers(0, 60, (SIDE, SIDE, 3), np.uint8)
                left, top = generator.integers(0, 6, 2)
                image[top : top + 6, left : left + 6, label] += 150
                Image.fromarray(image).save(directory / f"{index}.png")
                box = f"{left},{top},{left + 6},{top + 6}"
                lines.append(f"{split}/{name}/{index}.png,{box}")
    (folder / "boxes.csv").write_text("\n".join(lines) + "\n")
    return folder


def write_masks(folder: Path) -> Path:
    """The masks of the squares in `write_images`, for the task segmentation."""
    for line in (folder / "boxes.csv").read_text().splitlines()[1:]:
        name, *box = line.split(",")
        left, top, right, bottom = map(int, box)
        mask = np.zeros((SIDE, SIDE), np.uint8)
        mask[top:bottom, left:right] = 255
        place = folder / "masks" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(place)
    return folder


def write_objects(folder: Path) -> Path:
    """The squares in `write_images` as the objects of `rotated:PATH`."""
    images: dict[str, list] = {"train": [], "test": []}
    for line in (folder / "boxes.csv").read_text().splitlines()[1:]:
        name, *box = line.split(",")
        left, top, right, bottom = map(int, box)
        split, category, _ = name.split("/")
        center, size = [(left + right) / 2, (top + bottom) / 2], [right - left] * 2
        boxes = [[CLASSES.index(category), *center, *size, 0.0]]
        sides = {"width": SIDE, "height": SIDE}
        images[split].append({"file_name": name, **sides, "boxes": boxes})
    for split, listed in images.items():
        values = {"categories": list(CLASSES), "images": listed}
        (folder / f"{split}.json").write_text(json.dumps(values))
    return folder


def of_task(task: str, folder: Path) -> tuple[str, ...]:
    """Options of `fit` for a task on the images of `write_images` and its truth."""
    source = "rotated" if task == "detection" else "folder"
    return f"--task.name={task}", f"--data.name={source}:{folder}"


def tiny_config(workdir: Path = Path("unused"), **changes) -> FitConfig:
    """A config of few parameters; `changes` are fields of `FitConfig`."""
    config = FitConfig(
        workdir=workdir,
        epochs=4.0,
        batch_size=8,
        data=DataConfig(name="folder:unused"),
        model=ModelConfig(widths=(4, 4, 4), attention_stages=(1,)),
        optimizer=OptimizerConfig(learning_rate=1e-2),
        checkpoint=CheckpointConfig(every_steps=3),
        output=OutputConfig(log_every=2, pictures=0, tensorboard=False, quiet=True),
    )
    return dataclasses.replace(config, **changes)


def tiny_experiment(config: FitConfig, parallel) -> Experiment:
    """The experiment of a config on images that need no files."""
    return make_experiment(config, INPUTS, parallel)


def tiny_network(model: ModelConfig, **optimizer) -> nn.Module:
    """The network that a run of three classes makes of a section of the config."""
    config = tiny_config(model=model, optimizer=OptimizerConfig(**optimizer))
    return build_network(config, make_task(config), INPUTS)


def random_batch(step: int, size: int) -> dict[str, np.ndarray]:
    """A batch of noise with a bright square, as the pipeline would give it."""
    generator = np.random.default_rng(step)
    images = generator.integers(0, 100, (size, SIDE, SIDE, 3), np.uint8)
    labels = generator.integers(0, len(CLASSES), size).astype(np.int32)
    rectangles = np.zeros((size, 5), np.float32)
    for row in range(size):
        left, top = generator.integers(0, 6, 2)
        images[row, top : top + 6, left : left + 6, labels[row]] += 150
        rectangles[row] = [(left + 3) / 6 - 1, (top + 3) / 6 - 1, 0.5, 0.5, 0.0]
    return {
        "image": images,
        "label": labels,
        "weight": np.ones(size, np.float32),
        "rectangle": rectangles,
        "rectangle_weight": np.ones(size, np.float32),
    }


def command(*arguments: str | Path, **variables: str) -> tuple[list[str], dict]:
    """Argument list and keywords of `subprocess` for `python -m train ...`."""
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": compilation.flags()}
    environment = os.environ | flags | variables
    words = [sys.executable, "-m", "train", *map(str, arguments)]
    return words, {
        "env": environment,
        "cwd": Path(__file__).parent.parent,
        "text": True,
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
    }


def run(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m train ...` to its end."""
    words, keywords = command(*arguments, **variables)
    return subprocess.run(words, timeout=PATIENCE, check=False, **keywords)


def tiny_arguments(folder: Path, workdir: Path, *more: str) -> list[str]:
    """`fit` on `folder` with the settings of `tiny_config`."""
    return [
        "fit",
        f"--workdir={workdir}",
        f"--data.name=folder:{folder}",
        "--epochs=4",
        "--batch-size=8",
        "--model.widths=4",
        "4",
        "4",
        "--optimizer.learning-rate=1e-2",
        "--checkpoint.every-steps=3",
        "--output.log-every=2",
        "--output.pictures=0",
        "--output.no-tensorboard",
        *more,
    ]


def finish(folder: Path, workdir: Path, *more: str) -> Path:
    """Trains on `folder` in this process, to the end; the work directory."""
    assert main(tiny_arguments(folder, workdir, *more)) == DONE
    return workdir


def final_state(workdir: Path):
    """The newest checkpoint's step, fetched state and record."""
    config, inputs = load_config(workdir), load_inputs(workdir)
    experiment = make_experiment(config, inputs, JitParallel(jax.devices()[:1]))
    checkpoints = Checkpoints(workdir, config.checkpoint, read_only=True)
    try:
        found = checkpoints.restore_latest(experiment.initial_state(), print)
    finally:
        checkpoints.close()
    assert found is not None
    step, state, record = found
    return step, jax.device_get(state), record
