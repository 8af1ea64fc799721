"""Where TFDS sets keep the truth about their objects."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from train.data.sources.base import Truth


class Layout(NamedTuple):
    """Where a set keeps the truth: feature names, "/" between nested ones.

    Attributes:
        box: a BBoxFeature (ymin, xmin, ymax, xmax in [0, 1]), or a sequence of them;
            then the largest counts.
        mask: an image of one channel.
        is_object: mask values -> bool.
        rectangle: a rectangle in isotropic coordinates of the image.
    """

    box: str | None = None
    mask: str | None = None
    is_object: Callable[[np.ndarray], np.ndarray] | None = None
    rectangle: str | None = None

    @property
    def truth(self) -> Truth:
        """The best truth that the set has."""
        if self.rectangle:
            return "rotated"
        return "mask" if self.mask else "box" if self.box else "none"


def _is_one(mask: np.ndarray) -> np.ndarray:
    return mask == 1


def _is_bright(mask: np.ndarray) -> np.ndarray:
    return mask > 127


LAYOUTS = {
    "cluttered_digits": Layout(rectangle="rectangle"),
    # head_bbox is all zero on the test split, and not the animal: the mask counts.
    "oxford_iiit_pet": Layout(mask="segmentation_mask", is_object=_is_one),
    # Grey levels are the share of annotators.
    "caltech_birds2011": Layout("bbox", "segmentation_mask", _is_bright),
    "cars196": Layout("bbox"),
    "stanford_dogs": Layout("objects/bbox"),
}
