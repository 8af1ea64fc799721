"""Which detections of an image are right: COCO's rules, for rotated rectangles.

Detections choose in the order of their scores, the best first; equal scores keep the
order that they have. Each takes, among the truths of its class that overlap with it by
the threshold or more and are not taken, the one that overlaps most (of equals the
last), and is *right*. Two kinds of truth are there but not asked for:

* *ignored* ones, for instance those too small or hidden to count: a detection that
  finds no wanted truth may take one, and counts as neither right nor wrong. As every
  truth, it can be taken once; a second detection of it is wrong.
* *crowds*, regions that hold too many objects to be told apart: they are ignored, are
  never used up, and their overlap is the share of the *detection* that lies in them.

Only the `max_detections` best of each class in an image count. At angle 0 all of this
is what pycocotools does. (Ours: the angle; and that a detection with a number that is
NaN or infinite is wrong, where pycocotools may call it right.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from cram_jax.checks import check_count
from cram_jax.geometry.pairwise import rectangle_rows, rotated_iou_matrix
from cram_jax.geometry.rectangle import Rectangle

__all__ = ["DetectionMatches", "join_matches", "match_detections"]

# 0.5, 0.55, ... 0.95, to the last digit as pycocotools has them.
COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())


class DetectionMatches(NamedTuple):
    """What detections add to a score: those of one image, or of many.

    Every array is joined with that of other images along its first axis
    (`join_matches`), so a score is exact over a whole set however it was divided.

    Attributes:
      scores: float64 `[N]`, one for each detection, in the order given.
      labels: whole numbers `[N]`, the detections' classes.
      right: bool `[N, T]`, whether it is right at each of the thresholds.
      ignored: bool `[N, T]`, whether it counts as neither right nor wrong.
      wanted_labels: whole numbers `[M]`, the class of each truth that is to be found.
    """

    scores: np.ndarray
    labels: np.ndarray
    right: np.ndarray
    ignored: np.ndarray
    wanted_labels: np.ndarray


def match_detections(
    rectangles: ArrayLike | Rectangle,
    scores: ArrayLike,
    labels: ArrayLike,
    true_rectangles: ArrayLike | Rectangle,
    true_labels: ArrayLike,
    *,
    ignored: ArrayLike | None = None,
    crowd: ArrayLike | None = None,
    thresholds: Sequence[float] = COCO_THRESHOLDS,
    max_detections: int = 100,
) -> DetectionMatches:
    """Compares the detections of one image with its truths; the module has the rules.

    Rectangles may be in any unit, the same for both. Lists may be empty.

    Args:
      rectangles: `[N, 5]`, see `Rectangle`; without padding.
      scores: `[N]`, the surer the larger; NaN is the smallest.
      labels: whole numbers `[N]`, the classes.
      true_rectangles: `[M, 5]`.
      true_labels: whole numbers `[M]`.
      ignored: bool `[M]`, truths that are not asked for; None is none.
      crowd: bool `[M]`, truths that are crowds, hence ignored; None is none.
      thresholds: `[T]` overlaps in (0, 1] from which a detection counts as right.
      max_detections: how many of a class count, those with the highest scores.

    Returns:
      A row for each detection, in the order given; those beyond the limit are ignored.

    Raises:
      ValueError: for lists that differ in length, labels that are no whole numbers,
        thresholds out of range, negative half sizes, truths that are not finite.
    """
    check_count("max_detections", max_detections)
    limits = overlap_thresholds(thresholds)
    found = rectangle_rows("rectangles", rectangles)
    true = _finite("true_rectangles", true_rectangles)
    sureness = _sureness("scores", scores, found)
    classes = _classes("labels", labels, found)
    true_classes = _classes("true_labels", true_labels, true)
    is_crowd = _flags("crowd", crowd, true)
    wanted = ~(_flags("ignored", ignored, true) | is_crowd)
    beyond = _ranks(sureness, classes) >= max_detections
    pairs = (classes[:, None] == true_classes) & ~beyond[:, None]
    overlaps = rotated_iou_matrix(found, true, crowd=is_crowd, pairs=pairs)
    right, passed_over = _take(overlaps, sureness, wanted, is_crowd, limits)
    passed_over |= beyond[:, None]
    return DetectionMatches(sureness, classes, right, passed_over, true_classes[wanted])


def join_matches(matches: Iterable[DetectionMatches]) -> DetectionMatches:
    """The matches of several images, at least one, as those of one set.

    Detections of equal score keep their order: join images in the order of the data
    set, so that a score does not depend on how they were divided.

    Raises:
      ValueError: if there are none, or they were made for different thresholds.
    """
    matches = list(matches)
    counts = {each.right.shape[1] for each in matches}
    if len(counts) != 1:
        raise ValueError(
            "Matches to be joined, at least one, must have the same thresholds, got"
            f" {len(matches)} matches with {sorted(counts)} thresholds."
        )
    return DetectionMatches(*map(np.concatenate, zip(*matches, strict=True)))


def overlap_thresholds(thresholds: Sequence[float]) -> np.ndarray:
    """The thresholds as float64 `[T]`, checked."""
    values = np.asarray(thresholds, np.float64)
    fits = values.ndim == 1 and values.size > 0
    if not fits or not ((values > 0) & (values <= 1)).all():
        raise ValueError(
            f"thresholds must be a list of overlaps in (0, 1], got {thresholds}."
        )
    return values


def _one_each(name: str, values: ArrayLike, rows: np.ndarray) -> np.ndarray:
    """The values as `[N]`, one for each of the rectangles."""
    array = np.asarray(values)
    if array.shape != (len(rows),):
        raise ValueError(
            f"{name} must hold one value for each rectangle, got shape"
            f" {list(array.shape)} beside {len(rows)} rectangles."
        )
    return array


def _finite(name: str, rectangles: ArrayLike | Rectangle) -> np.ndarray:
    rows = rectangle_rows(name, rectangles)
    if not np.isfinite(rows).all():
        wrong = rows[~np.isfinite(rows).all(axis=1)]
        raise ValueError(f"{name} must be finite, got {wrong[0].tolist()}.")
    return rows


def _sureness(name: str, values: ArrayLike, rows: np.ndarray) -> np.ndarray:
    array = _one_each(name, values, rows).astype(np.float64)
    return np.where(np.isnan(array), -np.inf, array)


def _classes(name: str, values: ArrayLike, rows: np.ndarray) -> np.ndarray:
    array = _one_each(name, values, rows)
    if array.size and array.dtype.kind not in "iu":
        raise ValueError(f"{name} must be whole numbers, got {array.dtype}.")
    return array.astype(np.int64)


def _flags(name: str, values: ArrayLike | None, rows: np.ndarray) -> np.ndarray:
    if values is None:
        return np.zeros(len(rows), bool)
    array = _one_each(name, values, rows)
    if array.size and not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} must be True or False, got {array.tolist()}.")
    return array.astype(bool)


def _ranks(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The place `[N]` of each detection among those of its class, from 0."""
    order = np.lexsort((-scores, labels))
    ranked = labels[order]
    ranks = np.empty(len(labels), np.int64)
    ranks[order] = np.arange(len(labels)) - np.searchsorted(ranked, ranked)
    return ranks


def _take(
    overlaps: np.ndarray,
    scores: np.ndarray,
    wanted: np.ndarray,
    crowd: np.ndarray,
    thresholds: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Whether detections take a wanted, or an ignored truth: bool `[N, T]` each.

    Classes need not be told apart: overlaps `[N, M]` across them are 0.
    """
    limits = np.minimum(thresholds, 1 - 1e-10)[:, None]
    # Of equal overlaps argmax finds the first, COCO takes the last.
    overlaps, wanted, crowd = overlaps[:, ::-1], wanted[::-1], crowd[::-1]
    right = np.zeros((len(scores), len(limits)), bool)
    ignored = np.zeros_like(right)
    if right.size == 0 or wanted.size == 0:
        return right, ignored
    free = np.ones((len(limits), len(wanted)), bool)
    close = overlaps.max(axis=1) >= limits.min()
    for row in np.argsort(-scores, kind="stable"):
        if not close[row]:
            continue
        choice = free & (overlaps[row] >= limits)
        preferred = choice & wanted
        choice = np.where(preferred.any(1, keepdims=True), preferred, choice)
        best = np.where(choice, overlaps[row], 0.0).argmax(axis=1)
        (hit,) = np.nonzero(choice.any(axis=1))
        best = best[hit]
        free[hit, best] = crowd[best]
        right[row, hit], ignored[row, hit] = wanted[best], ~wanted[best]
    return right, ignored
