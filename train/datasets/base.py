"""What every data source gives: labelled images, and where the object is.

Pixel coordinates here and in `train/transforms.py`: x to the right, y down, in pixels
of the image; the left edge of the first pixel is 0, its centre 0.5. A rectangle is
`center_x, center_y, half_width, half_height, angle`, with the angle of
`cram_jax/coordinates.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

import numpy as np

Truth = Literal["rotated", "box", "mask", "none"]


class UnreadableImageError(ValueError):
    """An image, or its annotation, cannot be used; the message names it."""


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a split before an image is decoded.

    Attributes:
        name: as `open_source` was given it.
        split: "train" or "test", or another name that the set has.
        class_names: one per class; a label is an index into them.
        num_examples: images in this split.
        truth: "rotated": the object's true rotated rectangle. "box": its axis-aligned
            box. "mask": its mask, and the mask's box. "none": class labels only.
        channels: 1 or 3, of every image.
        image_size: (height, width) if the images share one (folder sets: if a
            sample of them does), else None.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    num_examples: int
    truth: Truth
    channels: int
    image_size: tuple[int, int] | None = None

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One decoded image with its label and, where known, its object.

    Attributes:
        image: uint8 [H, W, C].
        label: index of the class.
        rectangle: float64 [5] in pixel coordinates, or None.
        mask: uint8 [H, W], 1 on the object, or None.
    """

    image: np.ndarray
    label: int
    rectangle: np.ndarray | None = None
    mask: np.ndarray | None = None


class Source(Protocol):
    """A random-access split of a data set. Picklable unless held in memory."""

    @property
    def info(self) -> DatasetInfo:
        """What is known without decoding."""
        ...

    def __len__(self) -> int:
        """The number of images."""
        ...

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        ...
