"""Localisation scores by the protocol of Choe et al. (CVPR 2020, arXiv 2001.07437).

A map says where something is once it is cut at a threshold: its *box* is the tight one
round the largest connected region at or above it (neighbours touch by a side or a
corner). A rectangle needs no threshold: its box is its hull, cut off at the edges of
the picture. `box_accuracy_0.5` is the share of images whose box has an IoU of at least
0.5 with the object's; "top1" before it counts only images whose class the network got
right as well. *Pixel average precision* needs no threshold either: pixels of all images
together are ranked by the map's value, and the precision at each step of recall is
averaged.

Everything here is plain NumPy, on the host. Boxes are (left, top, right, bottom) in
pixels from the edges, so a box of one pixel has a width of 1; one of no area meets
nothing.
"""

from __future__ import annotations

import numpy as np

BOX_IOUS = (0.3, 0.5, 0.7)
# Values that are told apart in the ranking of pixels.
_LEVELS = 1000


def box_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `[..., 4]`, which broadcast; 0 without area."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    low = np.maximum(a[..., :2], b[..., :2])
    high = np.minimum(a[..., 2:], b[..., 2:])
    shared = _area(np.concatenate([low, high], axis=-1))
    union = _area(a) + _area(b) - shared
    return np.where(union > 0, shared / np.where(union > 0, union, 1.0), 0.0)


def _area(box: np.ndarray) -> np.ndarray:
    return np.prod(np.maximum(box[..., 2:] - box[..., :2], 0.0), axis=-1)


def region_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Intersection over union of bool regions `[..., H, W]`; 0 for two empty ones."""
    shared = np.sum(a & b, axis=(-2, -1))
    union = np.sum(a | b, axis=(-2, -1))
    return shared / np.maximum(union, 1)


def region_boxes(regions: np.ndarray) -> np.ndarray:
    """The tight boxes `[N, 4]` round bool regions `[N, H, W]`; zeros for empty ones."""
    boxes = np.zeros((len(regions), 4))
    for axis, (first, last) in ((1, (0, 2)), (2, (1, 3))):
        lines = np.asarray(regions.any(axis=axis))
        boxes[:, first] = lines.argmax(axis=1)
        boxes[:, last] = lines.shape[1] - np.fliplr(lines).argmax(axis=1)
    some = np.asarray(regions.any(axis=(1, 2)))
    return np.where(some[:, None], boxes, 0.0)


def largest_region(region: np.ndarray) -> np.ndarray:
    """The connected part of a bool region `[H, W]` with the most pixels.

    Neighbours touch by a side or a corner. Of equal parts the one that comes first in
    reading order.
    """
    from scipy.ndimage import label

    parts = np.empty(region.shape, np.int32)
    label(region, structure=np.ones((3, 3)), output=parts)
    sizes = np.bincount(parts.ravel())
    if len(sizes) < 3:  # the ground and one part at most
        return region
    return parts == 1 + np.argmax(sizes[1:])


def map_boxes(maps: np.ndarray, threshold: float) -> np.ndarray:
    """The boxes `[N, 4]` of maps `[N, H, W]` cut at a threshold."""
    parts = [largest_region(each >= threshold) for each in maps]
    return region_boxes(np.stack(parts)) if parts else np.zeros((0, 4))


def pixel_counts(maps: np.ndarray, objects: np.ndarray) -> np.ndarray:
    """How many pixels off and on the object have which value: int64 `[2, levels]`.

    The counts of several batches add up; `average_precision` makes a score of them.

    Args:
      maps: `[..., H, W]`, values from 0 to 1.
      objects: bool `[..., H, W]`.
    """
    level = np.clip(np.asarray(maps) * _LEVELS, 0, _LEVELS - 1).astype(np.int64)
    both = np.where(objects, level + _LEVELS, level)
    return np.bincount(both.ravel(), minlength=2 * _LEVELS).reshape(2, _LEVELS)


def average_precision(counts: np.ndarray) -> float:
    """Mean precision over the steps of recall; NaN if no pixel is on an object."""
    off, on = np.cumsum(counts[:, ::-1], axis=1)
    if on[-1] == 0:
        return float("nan")
    precision = on / np.maximum(on + off, 1)
    return float(np.sum(np.diff(on, prepend=0) * precision) / on[-1])
