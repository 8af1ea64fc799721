"""What to train on and how images become network input: one frozen record."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data set, image size and augmentation."""

    name: str = "digits"
    """Data set: "digits", "tfds:NAME[/CONFIG]" or "folder:PATH"."""

    data_dir: str | None = None
    """Where prepared data sets live. Default: $CRAM_JAX_DATA or ~/.cache/cram_jax."""

    train_split: str = "train"
    """Split to train on. Slices of TFDS sets work here and below, as in
    "train[:80%]"."""

    eval_split: str = "test"
    """Split to evaluate on; "test" also finds a set's only validation split."""

    validation: float = 0.0
    """Share of the training images of each class that is held out of training: they
    are scored at each evaluation and choose the best checkpoint, which the test images
    never do. 0: none, and no checkpoint is best."""

    train_examples: int | None = None
    """Train on this many images only (a fixed subset). Default: all."""

    eval_examples: int | None = None
    """Evaluate on this many images only (a fixed subset). Default: all."""

    image_size: int | None = None
    """Side of the square network input in pixels. Default: the images' own size where
    they are square and share one, else 224."""

    crop_area: tuple[float, float] = (1.0, 1.0)
    """Random resized crop in training: smallest and largest share of an image's area.
    (1, 1): no random crop, but the largest central square."""

    crop_aspect: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest width-to-height ratio of a random crop. Must be (1, 1)
    where the true rectangles are rotated."""

    flip: bool = False
    """Mirror half of the training images left to right. Never for digits."""

    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation in training; each factor
    is drawn from [1 - strength, 1 + strength]."""

    eval_crop: float = 1.0
    """Side of the central crop in evaluation, as a share of the shorter side; most
    ImageNet networks were measured at 0.875."""

    interpolation: Literal["bilinear", "bicubic"] | None = None
    """Of the resize, antialiased. Default: that of the pretrained weights, else
    bilinear."""

    workers: int = 0
    """Processes that decode and augment; 0: threads of this process. Sets held in
    memory always use threads."""

    threads: int = 2
    """Threads that make batches where there are no worker processes."""

    memory_limit_mb: int = 1024
    """Sets whose decoded images need at most this many MB are decoded once and kept
    in memory. 0: never."""

    on_bad_image: Literal["raise", "skip"] = "raise"
    """An image that cannot be decoded stops the run, or is named, skipped and counted
    (weight 0 in its batch)."""

    boxes_file: str = "boxes.csv"
    """Name of the CSV of boxes inside a folder: path,xmin,ymin,xmax,ymax in pixels."""

    box_max_inside: bool = False
    """In the CSV of boxes, xmax and ymax are the last pixel inside the box, not its
    far edge (Tiny ImageNet has it so)."""

    def __post_init__(self) -> None:
        _require(self.name != "", "data.name must not be empty", self.name)
        for field in ("train_examples", "eval_examples", "image_size"):
            value = getattr(self, field)
            _require(value is None or value >= 1, f"data.{field} must be >= 1", value)
        _require(
            0.0 <= self.validation < 1.0,
            "data.validation must be in [0, 1)",
            self.validation,
        )
        for field in ("train_split", "eval_split"):
            value = getattr(self, field)
            _require(value.strip() != "", f"data.{field} must not be empty", value)
        low, high = self.crop_area
        _require(
            0.0 < low <= high <= 1.0,
            "data.crop_area must be 0 < smallest <= largest <= 1",
            self.crop_area,
        )
        low, high = self.crop_aspect
        _require(
            0.0 < low <= high,
            "data.crop_aspect must be 0 < smallest <= largest",
            self.crop_aspect,
        )
        _require(
            0.0 <= self.color_jitter < 1.0,
            "data.color_jitter must be in [0, 1)",
            self.color_jitter,
        )
        _require(
            0.0 < self.eval_crop <= 1.0,
            "data.eval_crop must be in (0, 1]",
            self.eval_crop,
        )
        for field, least in (("workers", 0), ("threads", 1), ("memory_limit_mb", 0)):
            value = getattr(self, field)
            _require(value >= least, f"data.{field} must be >= {least}", value)
        _require(
            self.interpolation in (None, "bilinear", "bicubic"),
            'data.interpolation must be "bilinear" or "bicubic"',
            self.interpolation,
        )
        _require(
            self.on_bad_image in ("raise", "skip"),
            'data.on_bad_image must be "raise" or "skip"',
            self.on_bad_image,
        )


def _require(holds: bool, rule: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{rule}, got {value!r}.")
