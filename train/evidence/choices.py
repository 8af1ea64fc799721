"""What yardsticks need to be told, chosen on held-out training images.

A map is cut at two thresholds: one for its box (the most boxes right, on average over
the IoUs 0.3, 0.5 and 0.7), one for its region (the largest mean IoU with the object's
mask). A constant box is chosen twice by the same measures, of all boxes made of
quantiles of the true edges. None of them has seen an image it is scored on.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping

import numpy as np

from train.evidence.box_accuracy import BOX_IOUS, box_iou, map_boxes, region_iou

THRESHOLDS = np.arange(1, 33) * 0.03
# Maps are compared in every second pixel or so: it is about a threshold only.
_SIDE = 96
_QUANTILES = np.linspace(0.05, 0.95, 10)


@dataclasses.dataclass(frozen=True)
class Choices:
    """What was chosen on held-out training images.

    Attributes:
      images: how many there were with a known object.
      thresholds: for the box and for the region of each map, by the name of its row.
      constant_box: `[4]` in pixels of the network's input, for its box.
      constant_region: the same for its region.
    """

    images: int
    thresholds: Mapping[str, tuple[float, float]]
    constant_box: np.ndarray
    constant_region: np.ndarray


def threshold_values(
    maps: np.ndarray, boxes: np.ndarray, regions: np.ndarray
) -> np.ndarray:
    """What each threshold is worth: sums over images, `[THRESHOLDS, 2]`.

    Args:
      maps: `[N, H, W]` from 0 to 1.
      boxes: `[N, 4]`, the objects'.
      regions: bool `[N, H, W]`, the objects'.

    Returns:
      The number of right boxes, a mean over `BOX_IOUS`, and the IoU of the regions.
      The values of several batches add up.
    """
    stride = max(1, max(maps.shape[1:]) // _SIDE)
    maps, regions = (each[:, ::stride, ::stride] for each in (maps, regions))
    values = []
    for threshold in THRESHOLDS:
        found = box_iou(stride * map_boxes(maps, threshold), boxes)
        overlap = region_iou(maps >= threshold, regions)
        values.append((right_boxes(found).sum(), overlap.sum()))
    return np.array(values)


def right_boxes(iou: np.ndarray) -> np.ndarray:
    """The share of `BOX_IOUS` that an IoU `[...]` reaches."""
    return np.mean([iou >= least for least in BOX_IOUS], axis=0)


def best_thresholds(values: np.ndarray) -> tuple[float, float]:
    """The thresholds for boxes and for regions, from summed `threshold_values`.

    Among equally good ones it is the middle: next to it others are nearly as good.
    """
    best = []
    for column in values.T:
        places = np.flatnonzero(column >= column.max() - 1e-9)
        best.append(float(THRESHOLDS[places[len(places) // 2]]))
    return best[0], best[1]


def constant_candidates(boxes: np.ndarray) -> np.ndarray:
    """Boxes `[K, 4]` of whole pixels: all quantiles of each edge of `[N, 4]`."""
    edges = np.rint(np.quantile(boxes, _QUANTILES, axis=0)).T
    return np.unique(list(itertools.product(*edges)), axis=0)


def constant_values(
    candidates: np.ndarray, boxes: np.ndarray, regions: np.ndarray
) -> np.ndarray:
    """What each of K boxes is worth: sums over images, `[K, 2]`.

    Args:
      candidates: `[K, 4]`, whole pixels inside the picture.
      boxes: `[N, 4]`, the objects'.
      regions: bool `[N, H, W]`, the objects'.

    Returns:
      As `threshold_values`; the mean IoU decides between boxes equally often right.
    """
    left, top, right, bottom = candidates.astype(int).T
    area = np.maximum(right - left, 0) * np.maximum(bottom - top, 0)
    worth = np.zeros((len(candidates), 2))
    for box, region in zip(boxes, regions, strict=True):
        iou = box_iou(candidates, box)
        # Pixels of the object above and to the left of each corner.
        sums = np.pad(np.cumsum(np.cumsum(region, 0), 1), ((1, 0), (1, 0)))
        shared = sums[bottom, right] - sums[top, right]
        shared = shared - sums[bottom, left] + sums[top, left]
        shared = np.where(area > 0, shared, 0)
        overlap = shared / np.maximum(area + region.sum() - shared, 1)
        worth += np.stack([right_boxes(iou) + 1e-3 * iou, overlap], axis=1)
    return worth
