"""Where several rectangles of one map start: in tiles that share it out (ours).

Rectangles that all start on the whole map would be one rectangle several times: the
gradient of their union is the same for all of them, and where all masks are near 1 it
is next to nothing. Tiles differ, and together they still see everything.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.raw import rectangle_to_raw
from cram_jax.geometry.rectangle import NEUTRAL_HALF_SIZE, Rectangle

__all__ = ["tile_boxes", "tile_raw", "tile_shares"]


def tile_boxes(count: int, height: int, width: int) -> np.ndarray:
    """Tiles of about one size, as square as may be, that fill a map without overlap.

    They lie in rows of equal height; where rows cannot have equally many tiles, the
    lower ones have one more.

    Args:
      count: number of tiles, at least 1.
      height: rows of the map.
      width: columns of the map.

    Returns:
      float64 `[count, 4]`, (left, top, right, bottom) as shares of the map's sides.
    """

    def most_elongated(rows: int) -> float:
        sides = (
            math.log(width / columns / (height / rows))
            for columns in (count // rows, -(-count // rows))
        )
        return max(map(abs, sides))

    rows = min(range(1, count + 1), key=most_elongated)
    boxes = []
    for row in range(rows):
        columns = (count + row) // rows
        for column in range(columns):
            left, right = column / columns, (column + 1) / columns
            boxes.append((left, row / rows, right, (row + 1) / rows))
    return np.array(boxes)


def tile_raw(
    count: int, height: int, width: int, *, min_half_size: float, max_half_size: float
) -> jax.Array:
    """The raw numbers of rectangles 1.25 times as large as their tiles.

    Args:
      count: number of tiles.
      height: rows of the map.
      width: columns of the map.
      min_half_size: see `rectangle_from_raw`.
      max_half_size: see `rectangle_from_raw`.

    Returns:
      `[count, 5]`, for `rectangle_from_raw` with the extents of the map. Half sizes
      stay off their bounds, where they could not be learned.
    """
    left, top, right, bottom = 2 * tile_boxes(count, height, width).T - 1
    extent_x, extent_y = map_extents(height, width)
    margin = 0.02 * (max_half_size - min_half_size)
    low, high = min_half_size + margin, max_half_size - margin

    def half_size(extent: float, first: np.ndarray, last: np.ndarray) -> np.ndarray:
        half = NEUTRAL_HALF_SIZE * extent * (last - first) / 2
        return np.clip(half, low, high)

    numbers = (
        extent_x * (left + right) / 2,
        extent_y * (top + bottom) / 2,
        half_size(extent_x, left, right),
        half_size(extent_y, top, bottom),
        np.zeros(count),
    )
    return rectangle_to_raw(
        Rectangle(*(jnp.asarray(each, jnp.float32) for each in numbers)),
        extent_x=extent_x,
        extent_y=extent_y,
        min_half_size=min_half_size,
        max_half_size=max_half_size,
    )


def tile_shares(
    count: int, height: int, width: int, grid: tuple[int, ...]
) -> np.ndarray:
    """Which share of each cell of a pooled map lies in each tile.

    Args:
      count: number of tiles.
      height: rows of the map.
      width: columns of the map.
      grid: rows and columns of the cells that `pool_to_grid` makes of it.

    Returns:
      float32 `[count, *grid]` in [0, 1]; the shares of one cell add up to 1.
    """
    cell = -(-max(height, width) // max(grid))
    boxes = tile_boxes(count, height, width)

    def along(first: int, side: int) -> np.ndarray:
        """Shares `[count, cells]` of the cells along one side."""
        edges = np.minimum(np.arange(0, side + cell, cell), side) / side
        low = np.maximum(edges[:-1], boxes[:, first, None])
        high = np.minimum(edges[1:], boxes[:, first + 2, None])
        return np.maximum(high - low, 0) / np.diff(edges)

    rows, columns = along(1, height), along(0, width)
    return (rows[:, :, None] * columns[:, None, :]).astype(np.float32)
