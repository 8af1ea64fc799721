"""Where TFDS sets keep the truth about their objects."""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, NamedTuple

import numpy as np

from train.data.sources.base import IGNORED, Truth
from train.data.sources.regions import Found, trimap_regions


class Layout(NamedTuple):
    """Where a set keeps the truth: feature names, "/" between nested ones.

    Attributes:
        box: a BBoxFeature (ymin, xmin, ymax, xmax in [0, 1]), or a sequence of them;
            then the largest counts.
        mask: an image of one channel.
        is_object: mask values -> bool.
        is_trimap: mask values are those of a trimap; see `train.data.sources.regions`.
        rectangle: a rectangle in isotropic coordinates of the image.
        objects: a sequence of objects, each a "rectangle" as above and a "label". Such
            a set has no class for a whole image.
    """

    box: str | None = None
    mask: str | None = None
    is_object: Callable[[np.ndarray], np.ndarray] | None = None
    rectangle: str | None = None
    is_trimap: bool = False
    objects: str | None = None

    @property
    def truth(self) -> Truth:
        """The best truth that the set has."""
        if self.rectangle:
            return "rotated"
        return "mask" if self.mask else "box" if self.box else "none"

    def categories(self, features: Any) -> tuple[str, ...]:
        """Names of the kinds of objects, from the features of the set."""
        return tuple(features[self.objects]["label"].names) if self.objects else ()

    def regions(self, values: np.ndarray, mask: np.ndarray, name: str) -> Found:
        """Object and background of a mask's values; without a trimap the mask says it.

        Args:
          values: the mask's, as stored.
          mask: uint8 of 0 and 1.
          name: what messages call it.
        """
        return trimap_regions(values, name) if self.is_trimap else (mask, "")


def _has_region(mask: np.ndarray) -> np.ndarray:
    """Which pixels of a mask of named regions lie on another than the first."""
    return (mask > 0) & (mask != IGNORED)


def _is_one(mask: np.ndarray) -> np.ndarray:
    return mask == 1


def _is_bright(mask: np.ndarray) -> np.ndarray:
    return mask > 127


LAYOUTS = {
    "cluttered_digits": Layout(mask="mask", is_object=_is_one, rectangle="rectangle"),
    "many_digits": Layout(objects="objects"),
    # head_bbox is all zero on the test split, and not the animal: the mask counts.
    "oxford_iiit_pet": Layout(
        mask="segmentation_mask", is_object=_is_one, is_trimap=True
    ),
    # Grey levels are the share of annotators.
    "caltech_birds2011": Layout("bbox", "segmentation_mask", _is_bright),
    "cars196": Layout("bbox"),
    "stanford_dogs": Layout("objects/bbox"),
}

_MASK = "segmentation_mask"  # where TFDS sets keep them in general


def layout_of(name: str, features: Container[str], *, named: bool) -> Layout:
    """Where a set keeps its truth.

    Args:
      name: the set's.
      features: names of its features at the top.
      named: masks hold indices of named regions (`DataConfig.regions`).
    """
    layout = LAYOUTS.get(name, Layout("bbox" if "bbox" in features else None))
    if not named:
        return layout
    mask = layout.mask or (_MASK if _MASK in features else None)
    return layout._replace(mask=mask, is_object=_has_region, is_trimap=False)
