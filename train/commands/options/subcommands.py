"""The options of every subcommand but `fit`: one record each."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import tyro

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


@dataclass(frozen=True)
class ReportConfig:
    """Compares runs: a Markdown table over seeds, and curves as PNG."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Work directories. Runs whose configs differ only in the seed form one row.
    What is no evaluated run is named and passed over."""
    output: Path = Path("report")
    """Directory for report.md and the curves."""


@dataclass(frozen=True)
class ModelsConfig:
    """Lists the networks and attention layers by name."""

    image_size: int = 224
    """Side of the square image for which FLOPs are counted."""
    channels: int = 3
    """Channels of that image."""
    classes: int = 1000
    """Number of classes."""
