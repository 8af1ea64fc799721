"""How much each rectangle of one list overlaps with each of another, in NumPy.

For scores that count matches above a threshold. `cram_jax.geometry.overlap` is the
differentiable one, in float32 as a rule, whose rounding may turn a match over and whose
compiled functions are made for one size of list. Here the same method runs in float64,
for lists of any size: boxes between pixels overlap exactly as much as in pycocotools.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from cram_jax.geometry.rectangle import Rectangle

__all__ = ["rotated_iou_matrix"]


def rectangle_rows(name: str, rectangles: ArrayLike | Rectangle) -> np.ndarray:
    """The rectangles as float64 `[N, 5]`, checked; an empty list will do for none."""
    if isinstance(rectangles, Rectangle):
        rectangles = rectangles.as_array()
    rows = np.asarray(rectangles, np.float64)
    if rows.size == 0:
        return np.zeros((0, 5))
    if rows.ndim != 2 or rows.shape[1] != 5:
        raise ValueError(
            f"{name} must be [N, 5], one row of center_x, center_y, half_width,"
            f" half_height, angle for each rectangle, got shape {list(rows.shape)}."
        )
    if (rows[:, 2:4] < 0).any():
        raise ValueError(
            f"{name} must have half sizes that are not negative, got"
            f" {rows[:, 2:4].min()}; that of a box is (right - left) / 2."
        )
    return rows


def rotated_iou_matrix(
    a: ArrayLike | Rectangle,
    b: ArrayLike | Rectangle,
    *,
    crowd: np.ndarray | None = None,
    pairs: np.ndarray | None = None,
) -> np.ndarray:
    """Intersection over union of every rectangle of a list with every one of another.

    The unit of length does not matter. A rectangle without area overlaps nothing, nor
    does one with a number that is NaN or infinite.

    Args:
      a: rectangles `[N, 5]`, half sizes not negative; see `Rectangle`.
      b: rectangles `[M, 5]`.
      crowd: bool `[M]`: where it is True the area shared is divided by that of `a`
        instead of by the union, as COCO does for regions that hold a crowd.
      pairs: bool `[N, M]`: which to compute, the others are 0; None computes all.

    Returns:
      float64 `[N, M]` in [0, 1].

    Raises:
      ValueError: for other shapes, and for negative half sizes.
    """
    a, b = _finite_or_nothing(a, "a"), _finite_or_nothing(b, "b")
    reach_a, reach_b = np.hypot(a[:, 2], a[:, 3]), np.hypot(b[:, 2], b[:, 3])
    away = np.hypot(*(a[:, None, axis] - b[None, :, axis] for axis in (0, 1)))
    near = away <= reach_a[:, None] + reach_b
    rows, columns = np.nonzero(near if pairs is None else near & pairs)
    first, second = a[rows], b[columns]
    area_a = 4 * first[:, 2] * first[:, 3]
    area_b = 4 * second[:, 2] * second[:, 3]
    # Without these bounds, rounding would give areas to hairs.
    shared = np.clip(_shared_areas(first, second), 0, np.minimum(area_a, area_b))
    whole = area_a + area_b - shared
    if crowd is not None:
        whole = np.where(crowd[columns], area_a, whole)
    matrix = np.zeros(near.shape)
    matrix[rows, columns] = shared / np.where(whole > 0, whole, 1.0)
    return matrix


def _finite_or_nothing(rectangles: ArrayLike | Rectangle, name: str) -> np.ndarray:
    """Float64 `[N, 5]`; a row with NaN or infinity becomes a rectangle without area."""
    rows = rectangle_rows(name, rectangles)
    return np.where(np.isfinite(rows).all(axis=1, keepdims=True), rows, 0.0)


def _shared_areas(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The area `[P]` that each of `[P, 5]` shares with its partner; see `overlap`."""
    corners, box = _corners_in_frame_of(a, b), a[:, None, None, 2:4]
    start = corners[:, :, None]
    step = np.roll(corners, -1, axis=1)[:, :, None] - start
    # An edge along a side crosses it nowhere, or everywhere: any t will do.
    slope = np.where(step == 0, 1.0, step)
    with np.errstate(over="ignore"):
        kinks = np.concatenate([(-box - start) / slope, (box - start) / slope], 2)
    kinks = np.sort(np.clip(kinks, 0.0, 1.0).reshape(-1, 4, 4))
    # Where an edge ends, the next one starts.
    t = np.concatenate([np.zeros_like(kinks[..., :1]), kinks], axis=-1)[..., None]
    points = np.clip(start + t * step, -box, box).reshape(-1, 20, 2)
    # Measured from a point of its own, the terms of a small outline do not cancel.
    x, y = np.moveaxis(points - points[:, :1], -1, 0)
    return np.sum(x * np.roll(y, -1, axis=1) - y * np.roll(x, -1, axis=1), axis=1) / 2


def _corners_in_frame_of(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The corners of b, `[P, 4, 2]` in order round it, in the frames of a."""
    cos, sin = np.cos(a[:, 4]), np.sin(a[:, 4])
    right, down = b[:, 0] - a[:, 0], b[:, 1] - a[:, 1]
    center = np.stack([right * cos + down * sin, down * cos - right * sin], axis=-1)
    cos, sin = np.cos(b[:, 4] - a[:, 4]), np.sin(b[:, 4] - a[:, 4])
    along = b[:, 2:3] * np.stack([cos, sin], axis=-1)
    across = b[:, 3:4] * np.stack([-sin, cos], axis=-1)
    corners = [-along - across, along - across, along + across, across - along]
    return np.stack([center + corner for corner in corners], axis=1)
