"""From logits of what the network saw to a map of regions on the original."""

from __future__ import annotations

import numpy as np

from train.data.sources.base import IGNORED
from train.data.views import View

_BLOCK = 64  # rows of the original that are labelled at once


def regions_of_original(
    logits: np.ndarray, view: View, size: tuple[int, int]
) -> np.ndarray:
    """The likeliest region of each pixel of the original, uint8 `[height, width]`.

    Logits are interpolated bilinearly; beyond the outermost centres they go on as they
    are there. A pixel whose centre was out of view is `IGNORED`.

    Args:
      logits: `[h, w, K]`.
      view: what the network saw of the original.
      size: (height, width) of the original.
    """
    logits = np.asarray(logits, np.float32)
    row, above, below = _places(size[0], view.scale_y, view.shift_y, len(logits))
    column, left, right = _places(size[1], view.scale_x, view.shift_x, logits.shape[1])
    regions = np.full(size, IGNORED, np.uint8)
    for top in range(0, size[0], _BLOCK):
        rows = slice(top, top + _BLOCK)
        share = row[rows, None, None]
        lines = (1 - share) * logits[above[rows]] + share * logits[below[rows]]
        share = column[None, :, None]
        values = (1 - share) * lines[:, left] + share * lines[:, right]
        regions[rows] = np.argmax(values, axis=-1)
    rows = _in_view(size[0], view.top, view.bottom)
    columns = _in_view(size[1], view.left, view.right)
    regions[~(rows[:, None] & columns[None])] = IGNORED
    return regions


def _places(
    count: int, scale: float, shift: float, known: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each pixel along a side the share of its second neighbour, and both."""
    position = (np.arange(count) + 0.5) * scale + shift - 0.5
    position = np.clip(position, 0, known - 1)
    first = np.minimum(np.floor(position).astype(int), max(known - 2, 0))
    share = (position - first).astype(np.float32)
    return share, first, np.minimum(first + 1, known - 1)


def _in_view(count: int, first: float, last: float) -> np.ndarray:
    centers = np.arange(count) + 0.5
    return (centers >= first) & (centers <= last)
