"""What every data source gives: labelled images, and where the object is.

Pixel coordinates here and in `train/data/views.py` are the image's own: x to the
right, y down; the left edge of the first pixel is 0, its centre 0.5. A rectangle is
`center_x, center_y, half_width, half_height, angle`, with the angle of
`cram_jax/geometry/coordinates.py`.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, Protocol

import numpy as np

from train.errors import UserError

Truth = Literal["rotated", "box", "mask", "none"]


class UnreadableImageError(ValueError):
    """An image, or its annotation, cannot be used; the message names it."""


class NoSplitError(ValueError):
    """A data set does not have the split that was asked for; the message says which."""


class WrongLabelError(UserError, ValueError):
    """A label is no class of its set; the message names the image."""


# The value of a pixel whose region is not known; no score and no loss counts it.
IGNORED = 255
# The label of an image that has objects, each with a category, and no class itself.
NO_LABEL = -1


@dataclasses.dataclass(frozen=True)
class DatasetInfo:
    """What is known of a split before an image is decoded.

    Attributes:
        name: as `open_source` was given it.
        split: "train" or "test", another name that the set has, or "validation" for
            what is held out of training.
        class_names: one per class; a label is an index into them.
        num_examples: images in this split.
        truth: "rotated": the object's true rotated rectangle. "box": its axis-aligned
            box. "mask": its mask, and the mask's box. "none": class labels only.
        channels: 1 or 3, of every image.
        image_size: (height, width) if the images share one (folder sets: if a
            sample of them does), else None.
        regions: what the values 0, 1, ... of `Example.regions` mean; empty where the
            set has no masks.
        categories: one per kind of object; `Objects.labels` are indices into them.
            Empty where the set does not say what objects an image has.
        rotated_objects: whether the rectangles of `Example.objects` may be rotated.
        most_objects: in one image of this split.
    """

    name: str
    split: str
    class_names: tuple[str, ...]
    num_examples: int
    truth: Truth
    channels: int
    image_size: tuple[int, int] | None = None
    regions: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    rotated_objects: bool = False
    most_objects: int = 0

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return len(self.class_names)


@dataclasses.dataclass(frozen=True, eq=False)
class Objects:
    """The objects of one image, N of them; N may be 0.

    Attributes:
        rectangles: float64 [N, 5] in pixel coordinates, sides of positive length.
        labels: int64 [N], indices into `DatasetInfo.categories`.
        ignored: bool [N]; such an object (a crowd, one too hard to see) need not be
            found, and to find it is no mistake.
    """

    rectangles: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray

    @classmethod
    def none(cls) -> Objects:
        """The objects of an image without any."""
        return cls(np.zeros((0, 5)), np.zeros(0, np.int64), np.zeros(0, bool))

    def __len__(self) -> int:
        """The number of objects."""
        return len(self.labels)

    def chosen(self, which: np.ndarray) -> Objects:
        """Some of them: bool [N], or positions in the order that is wanted."""
        return Objects(self.rectangles[which], self.labels[which], self.ignored[which])


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
    """One decoded image with its label and, where known, its object or its objects.

    Attributes:
        image: uint8 [H, W, C].
        label: index of the class; `NO_LABEL` in sets whose objects have categories.
        rectangle: float64 [5] in pixel coordinates, or None.
        mask: uint8 [H, W], 1 on the object, or None.
        regions: uint8 [H, W], an index into `DatasetInfo.regions`, or `IGNORED`; None
            where that is not known.
        no_regions: the sentence that says why they are not known, of an image of a set
            that has them; it names the file.
        objects: all of them, of an image of a set with `DatasetInfo.categories`.
    """

    image: np.ndarray
    label: int
    rectangle: np.ndarray | None = None
    mask: np.ndarray | None = None
    regions: np.ndarray | None = None
    no_regions: str = ""
    objects: Objects | None = None


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


def checked_label(label: int, info: DatasetInfo, *, name: str, hint: str = "") -> int:
    """The label, if it is a class of its set.

    Args:
        label: an image's label.
        info: what is known of its split.
        name: what messages call the image.
        hint: end of the message, what to do about a split without labels.

    Raises:
        WrongLabelError: otherwise; -1 is how sets mark images without a label.
    """
    if 0 <= label < info.num_classes:
        return int(label)
    if info.categories:
        raise WrongLabelError(
            f"{info.name} {info.split} has objects, each with a category, and no class "
            f"for a whole image as {name}; give --task.name detection to find them."
        )
    last = info.num_classes - 1
    if label < 0:
        raise WrongLabelError(
            f"{info.name} {info.split} has no labels: {name} has label {label}, and "
            f"classes are 0 to {last}{hint}."
        )
    raise WrongLabelError(
        f"{name} has label {label}, and the classes of {info.name} are 0 to {last}; "
        "correct the set."
    )
