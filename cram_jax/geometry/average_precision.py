"""Average precision of detections: COCO's score, for rotated rectangles.

The detections of one class, of all images, are ordered by score. Down to each of them,
*precision* is the share of those detections that are right, and *recall* the share of
the wanted truths that they found. The average precision is the mean over the recalls
0, 0.01, ... 1 of the best precision at that recall or a higher one, 0 where no recall
is as high. A class without a wanted truth has no score and is left out of all means.
What is right, see `cram_jax.geometry.matching`; at angle 0 it is what pycocotools says
(Lin et al., arXiv 1405.0312, and its code, for what the paper leaves open).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cram_jax.checks import check_count
from cram_jax.geometry.matching import (
    COCO_THRESHOLDS,
    DetectionMatches,
    join_matches,
    overlap_thresholds,
)

__all__ = ["DetectionScores", "average_precision"]

RECALLS = np.linspace(0.0, 1.0, 101)


class DetectionScores(NamedTuple):
    """Scores of K classes at T thresholds; NaN for classes without a wanted truth.

    Attributes:
      thresholds: float64 `[T]`, overlaps from which a detection counts as right.
      truths: whole numbers `[K]`, how many truths there were to find.
      recalls: float64 `[101]`, from 0 to 1: the x of precision-recall curves.
      precision: float64 `[K, T, 101]`, the curves: the best precision at each recall
        or a higher one.
      recall: float64 `[K, T]`, the share of truths that all detections together found.
    """

    thresholds: np.ndarray
    truths: np.ndarray
    recalls: np.ndarray
    precision: np.ndarray
    recall: np.ndarray

    @property
    def per_class(self) -> np.ndarray:
        """The average precision `[K, T]` of each class at each threshold."""
        return self.precision.mean(axis=-1)

    @property
    def mean(self) -> float:
        """The mean over classes and thresholds, COCO's AP at the default thresholds.

        NaN where no class has a wanted truth, and so in `at`.
        """
        return _mean(self.per_class[self.truths > 0])

    def at(self, threshold: float) -> float:
        """The mean over classes at one threshold: AP50 is `at(0.5)`, AP75 `at(0.75)`.

        Raises:
          ValueError: for a threshold that the matches were not made for.
        """
        (places,) = np.nonzero(np.isclose(self.thresholds, threshold, rtol=0))
        if len(places) == 0:
            raise ValueError(
                f"No score was computed at the threshold {threshold}, only at"
                f" {self.thresholds.tolist()}; match detections at it as well."
            )
        return _mean(self.per_class[self.truths > 0, places[0]])


def average_precision(
    matches: DetectionMatches | Iterable[DetectionMatches],
    num_classes: int,
    *,
    thresholds: Sequence[float] = COCO_THRESHOLDS,
) -> DetectionScores:
    """Scores what `match_detections` found in all images of a set.

    Detections of equal score are ordered as their images are, as in pycocotools;
    without such the order of images does not matter.

    Args:
      matches: those of every image, or joined ones. No image at all is legal.
      num_classes: K; labels are 0 to K - 1.
      thresholds: those that the matches were made for.

    Returns:
      Scores, recalls and precision-recall curves of every class.

    Raises:
      ValueError: for labels that are no class, and matches made for another number of
        thresholds.
    """
    check_count("num_classes", num_classes)
    limits = overlap_thresholds(thresholds)
    joined = _joined(matches, limits)
    for name in ("labels", "wanted_labels"):
        labels = getattr(joined, name)
        wrong = labels[(labels < 0) | (labels >= num_classes)]
        if wrong.size:
            raise ValueError(
                f"{name} must be classes from 0 to {num_classes - 1}, got {wrong[0]};"
                " leave padding out before matching."
            )
    truths = np.bincount(joined.wanted_labels, minlength=num_classes)
    order = np.lexsort((-joined.scores, joined.labels))
    ends = np.searchsorted(joined.labels[order], np.arange(num_classes + 1))
    precision = np.full((num_classes, len(limits), len(RECALLS)), np.nan)
    recall = np.full((num_classes, len(limits)), np.nan)
    for label in np.flatnonzero(truths):
        rows = order[ends[label] : ends[label + 1]]
        right, ignored = joined.right[rows], joined.ignored[rows]
        precision[label], recall[label] = _curves(right, ignored, truths[label])
    return DetectionScores(limits, truths, RECALLS, precision, recall)


def _joined(
    matches: DetectionMatches | Iterable[DetectionMatches], thresholds: np.ndarray
) -> DetectionMatches:
    """All matches as one, also if there are none."""
    parts = [matches] if isinstance(matches, DetectionMatches) else list(matches)
    if not parts:
        none, flags = np.zeros(0, np.int64), np.zeros((0, len(thresholds)), bool)
        return DetectionMatches(np.zeros(0), none, flags, flags, none)
    joined = join_matches(parts)
    if joined.right.shape[1] != len(thresholds):
        raise ValueError(
            f"The matches were made for {joined.right.shape[1]} thresholds, got"
            f" {len(thresholds)}: {thresholds.tolist()}; pass the same to both."
        )
    return joined


def _curves(
    right: np.ndarray, ignored: np.ndarray, truths: int
) -> tuple[np.ndarray, np.ndarray]:
    """Curves `[T, 101]` and last recalls `[T]` of one class, best detection first."""
    hits = np.cumsum(right, axis=0, dtype=np.float64)
    misses = np.cumsum(~(right | ignored), axis=0, dtype=np.float64)
    # Nothing but ignored ones so far: 0 / 0, which counts as 0.
    precision = hits / (hits + misses + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    # What no detection reaches has precision 0.
    best = np.concatenate([best, np.zeros((1, best.shape[1]))])
    recall = hits / truths
    places = [np.searchsorted(column, RECALLS) for column in recall.T]
    curves = np.stack([best[place, t] for t, place in enumerate(places)])
    return curves, recall[-1] if len(recall) else np.zeros(best.shape[1])


def _mean(values: np.ndarray) -> float:
    """The mean of all values, NaN without a warning if there are none."""
    return float(values.mean()) if values.size else float("nan")
