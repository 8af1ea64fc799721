"""The options of every subcommand but `fit`: one record each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import tyro

from train.config.checks import require
from train.config.data import DataConfig
from train.config.task import TaskConfig


@dataclass(frozen=True)
class MovedDataConfig:
    """Where the images of a run are now."""

    name: str | None = None
    """Data set to score on, as in fit ("folder:PATH"); none: the run's own."""
    data_dir: str | None = None
    """Where prepared data sets live now; none: as in training."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores a trained network on its evaluation images."""

    workdir: Path
    """Directory of the run."""
    checkpoint: str = "latest"
    """Which checkpoint: latest, best on held-out images (data.validation), or the
    number of a step."""
    batch_size: int | None = None
    """Images at a time; none: as in training."""
    split: str | None = None
    """Split to score, or validation for the held-out training images; none: the run's
    own evaluation split."""
    train_images: bool = False
    """Also score the training images, which shows the gap between the two."""
    equivariance_images: int = 500
    """Images that are also shown rotated, scaled and shifted, to see whether the
    masks move along (WORKDIR/equivariance.png); 0: none."""
    yardsticks: bool = True
    """Where objects are known: also score the whole image, a constant box, an oracle
    and class activation maps, in a table beside the layers."""
    data: MovedDataConfig = dataclasses.field(default_factory=MovedDataConfig)


@dataclass(frozen=True)
class PredictConfig:
    """Says what a trained network sees in images of yours, and where it looks."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, folders (walked at any depth), or patterns in quotes."""
    workdir: Path
    """Directory of the run."""
    output: Path | None = None
    """Directory for the pictures (NAME-rectangle.png) and predictions.json; none:
    WORKDIR/predictions. No file is written over that predict has not written."""
    checkpoint: str = "latest"
    """Which checkpoint: latest, best on held-out images (data.validation), or the
    number of a step."""
    cam: bool = False
    """Also draw the class activation map of the predicted class, beside the
    rectangle."""
    top: int = 1
    """Likeliest classes to name, with their probabilities."""


@dataclass(frozen=True)
class ReportConfig:
    """Compares runs: a Markdown table over seeds, and curves as PNG."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Work directories. Runs whose configs differ only in the seed form one row.
    What is no evaluated run, or not finished, is named and passed over."""
    output: Path = Path("report")
    """Directory for report.md and the curves."""
    unfinished: bool = False
    """Also report on runs that have not had all of their epochs."""


@dataclass(frozen=True)
class DataReportConfig:
    """Says what a data set holds, and shows a batch of it; trains nothing."""

    name: tyro.conf.Positional[str]
    """A folder of images, or a data set's name as in fit (digits, tfds:NAME)."""
    output: Path = Path("data-report")
    """Directory for data.json and the pictures."""
    images: int = 32
    """Images of each picture."""
    seed: int = 0
    """Seed of the augmentation."""
    task: TaskConfig = dataclasses.field(default_factory=TaskConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)

    def __post_init__(self):
        """Checks ranges."""
        require(self.images >= 1, "images must be 1 or more", self.images)


@dataclass(frozen=True)
class ExportConfig:
    """Writes a trained network for use outside of this program."""

    workdir: Path
    """Directory of the run."""
    to: Literal["stablehlo", "safetensors"] = "stablehlo"
    """The form: a program that jax alone can run, or the weights alone."""
    output: Path | None = None
    """Directory for the files; none: WORKDIR/export."""
    checkpoint: str = "latest"
    """Which checkpoint: latest, best on held-out images (data.validation), or the
    number of a step."""
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")
    """Devices that the program shall run on: cpu, cuda, rocm, tpu."""


@dataclass(frozen=True)
class ModelsConfig:
    """Lists the networks and attention layers by name."""

    image_size: int = 224
    """Side of the square image for which FLOPs are counted."""
    channels: int = 3
    """Channels of that image."""
    classes: int = 1000
    """Number of classes."""
