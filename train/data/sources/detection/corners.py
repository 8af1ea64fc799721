"""Four corners of an object to a rectangle."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def smallest_rectangles(corners: ArrayLike) -> np.ndarray:
    """The rectangles of least area round four points each, float64 `[N, 5]`.

    A side of such a rectangle lies along an edge of the points' convex hull (Freeman
    and Shapira, 1975), so the directions of all six pairs of points are tried. The
    angle lies in [-pi/4, pi/4), and the width is the side nearer to the horizontal.

    Args:
        corners: `[N, 4, 2]` as (x, y), in any order.
    """
    points = np.asarray(corners, np.float64).reshape(-1, 4, 2)
    first, second = np.triu_indices(4, k=1)
    # Edges before diagonals: of equal areas the first one counts.
    order = np.argsort((second - first) == 2, kind="stable")
    across = points[:, second[order]] - points[:, first[order]]
    along = _nearly_horizontal(across)  # [N, 6, 2], of length 1
    u = np.einsum("nij,nkj->nik", along, points)
    v = np.einsum("nij,nkj->nik", _turned(along), points)
    spans = np.stack([np.ptp(u, axis=2), np.ptp(v, axis=2)], axis=2)
    best = np.argmin(spans.prod(axis=2), axis=1)
    rows = np.arange(len(points))
    middle_u, middle_v = (
        (each.max(axis=2) + each.min(axis=2))[rows, best, None] / 2 for each in (u, v)
    )
    axis = along[rows, best]
    center = middle_u * axis + middle_v * _turned(axis)
    angle = np.arctan2(axis[:, 1], axis[:, 0])
    return np.concatenate([center, spans[rows, best] / 2, angle[:, None]], axis=1)


def _turned(vectors: np.ndarray) -> np.ndarray:
    """The vectors `[..., 2]` a quarter turn on, clockwise on screen."""
    return np.stack([-vectors[..., 1], vectors[..., 0]], axis=-1)


def _nearly_horizontal(vectors: np.ndarray) -> np.ndarray:
    """Directions `[..., 2]` of length 1, turned by quarters to within 45 degrees of +x.

    The direction of a vector of length 0 is +x.
    """
    length = np.linalg.norm(vectors, axis=-1, keepdims=True)
    unit = np.where(length > 0, vectors / np.where(length > 0, length, 1), [1.0, 0.0])
    steep = np.abs(unit[..., 1]) > np.abs(unit[..., 0])
    unit = np.where(steep[..., None], _turned(unit), unit)
    unit = np.where(unit[..., :1] < 0, -unit, unit)
    # At exactly 45 degrees the one below the horizontal is chosen.
    diagonal = unit[..., 1] == unit[..., 0]
    unit = np.where(diagonal[..., None], -_turned(unit), unit)
    return unit + 0.0  # no -0, which would be the angle -0
