"""What to train on and how images become network input: one frozen record."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from train.config.checks import require_choices, require_fields


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Data set, image size and augmentation."""

    name: str = "digits"
    """Data set: "digits", "tfds:NAME[/CONFIG]" or "folder:PATH"; with objects in each
    image "many_digits", "rotated:PATH" (JSON of rotated boxes), "coco:PATH" (COCO's
    JSON) or "dota:PATH" (DOTA's text files)."""

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

    image_size: int | tuple[int, int] | None = None
    """Side of the square network input in pixels, or its height and width. Default: the
    images' own size where they are square and share one, else 224."""

    crop_area: tuple[float, float] = (1.0, 1.0)
    """Random resized crop in training: smallest and largest share of an image's area.
    (1, 1): no random crop, but the largest central square."""

    crop_aspect: tuple[float, float] = (1.0, 1.0)
    """Smallest and largest width-to-height ratio of a random crop. It must be (1, 1)
    where the true rectangles are rotated."""

    flip: bool = False
    """Mirror half of the training images left to right. Never for digits."""

    color_jitter: float = 0.0
    """Strength of random brightness, contrast and saturation in training; each factor
    is drawn from [1 - strength, 1 + strength]."""

    trivial_augment: bool = False
    """Change the colours of each training image by one operation of random strength:
    TrivialAugment (Mueller and Hutter 2021) without shear, rotation and shift, which no
    upright box survives; images move by `crop_area`, `flip` and equivariance."""

    erasing: float = 0.0
    """Probability that a random rectangle of a training image, 2% to 40% of it, is
    replaced by noise (Zhong et al. 2020). Labels, boxes and masks stay."""

    mixup: float = 0.0
    """Blend each training image and its label with another's (Zhang et al. 2018): the
    share is drawn from Beta(mixup, mixup); 0.2 is usual. 0: off. With cutmix too, each
    is done to half of the batches. Training accuracy then counts both labels by their
    shares. For the task classification."""

    cutmix: float = 0.0
    """Replace a rectangle of each training image by the same one of another image (Yun
    et al. 2019); a label counts by the area of its image, regions move along. The area
    is drawn from Beta(cutmix, cutmix); 1 is usual. 0: off."""

    eval_crop: float = 1.0
    """Side of the central crop in evaluation, as a share of the shorter side; most
    ImageNet networks were measured at 0.875."""

    interpolation: Literal["bilinear", "bicubic"] | None = None
    """How images are resized, always antialiased. Default: as for the pretrained
    weights, else bilinear."""

    workers: int = 0
    """Processes that decode and augment; 0: threads of this process. Sets held in
    memory always use threads."""

    threads: int = 2
    """Threads that make batches where there are no worker processes."""

    memory_limit_mb: int = 1024
    """Sets whose decoded images need at most this many megabytes are decoded once and
    kept in memory. 0: never."""

    on_bad_image: Literal["raise", "skip"] = "raise"
    """An image that cannot be decoded stops the run, or is named, skipped and counted
    (weight 0 in its batch)."""

    boxes_file: str = "boxes.csv"
    """Name of the CSV of boxes inside a folder: path,xmin,ymin,xmax,ymax in pixels."""

    masks: str | None = None
    """Name of the tree of masks inside a folder, as in masks/CLASS/NAME.png or
    masks/NAME.png. Default: trimaps/ and masks/, where they are there."""

    regions: tuple[str, ...] = ()
    """What the values 0, 1, 2, ... of masks mean, as in background road car; 255 is
    ignored. Default: masks show one object: in white, or in trimaps/ by the value 1,
    with 2 for the background and 3 for a border that is ignored."""

    box_max_inside: bool = False
    """In the CSV of boxes, xmax and ymax are the last pixel inside the box, not its
    far edge (Tiny ImageNet has it so)."""

    def __post_init__(self) -> None:
        """Checks ranges."""
        require_choices(self, "data")
        for names, accept, must in _RULES:
            require_fields(self, "data", names, accept, must)

    @property
    def alters_images(self) -> bool:
        """Whether training changes how an image looks where it is."""
        return self.color_jitter > 0 or self.trivial_augment or self.erasing > 0

    @property
    def mixes_images(self) -> bool:
        """Whether training mixes images with one another."""
        return self.mixup > 0 or self.cutmix > 0


_RULES = (
    (
        ("name", "train_split", "eval_split"),
        lambda text: text.strip() != "",
        "not be empty",
    ),
    (
        ("masks",),
        lambda name: name.strip("/. ") != "" and "/" not in name,
        "be the name of one folder",
    ),
    (
        ("regions",),
        lambda names: len(names) != 1 and len(names) == len(set(names)) < 255,
        "be two different names or more",
    ),
    (
        ("train_examples", "eval_examples", "threads"),
        lambda value: value >= 1,
        "be 1 or more",
    ),
    (
        ("image_size",),
        lambda size: min(size if isinstance(size, tuple) else (size,)) >= 1,
        "be 1 or more",
    ),
    (("workers", "memory_limit_mb"), lambda value: value >= 0, "be 0 or more"),
    (("validation", "color_jitter"), lambda value: 0 <= value < 1, "be in [0, 1)"),
    (("erasing",), lambda value: 0 <= value <= 1, "be in [0, 1]"),
    (("mixup", "cutmix"), lambda value: 0 <= value < math.inf, "be 0 or more"),
    (("eval_crop",), lambda value: 0 < value <= 1, "be in (0, 1]"),
    (
        ("crop_area",),
        lambda area: 0 < area[0] <= area[1] <= 1,
        "be 0 < smallest <= largest <= 1",
    ),
    (
        ("crop_aspect",),
        lambda aspect: 0 < aspect[0] <= aspect[1],
        "be 0 < smallest <= largest",
    ),
)
