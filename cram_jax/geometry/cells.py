"""The cells of a map, and a rectangle as six numbers seen from a cell (ours).

A detector gives six numbers at each cell of its map. This *code* of a rectangle is

    offset_x, offset_y     from the cell's centre to the rectangle's, in cells
    log_width, log_height  logarithms of the half sizes, in units of `base` cells
    cos_2a, sin_2a         of twice the angle; decoding takes them at any length

Six zeros are a rectangle in the middle of the cell, `base` cells from its centre to
each side, not turned. Sizes are in cells, not in parts of the image, because a
convolutional network sees pixels: in a larger image the same object has the same code.

**Names of one region.** Twice the angle is blind to the half turn. Of the two names
(w, h, a) and (h, w, a + pi/2) the code takes the one whose width is the longer side, so
that it moves without a jump when a rectangle turns. It does jump where a rectangle
passes through a square: there the two names, which differ in the sign of the last two
numbers, are equally good. `other_name` gives the other code, and a loss that compares
a nearly square rectangle with both never sees the jump (`cram_jax.losses.boxes`).

Cells are numbered row by row. A map covers the image evenly (`pixel_centers`); the
`extents` are the image's, where those of the map differ by rounding.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.geometry.coordinates import map_extents, pixel_centers
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32, precise

__all__ = [
    "BASE",
    "CellGrid",
    "at_cells",
    "cell_grid",
    "longer_side_first",
    "other_name",
    "rectangle_from_code",
    "rectangle_to_code",
]

# Half the side, in cells, of what a head without knowledge shows.
BASE = 4.0
# Beyond, sizes of codes are cut: e^10 base cells are larger than any image.
_LARGEST_LOG = 10.0
# Squared length below which the gradient of an angle grows no further.
_SHORT_SQUARED = 1 / 16


@dataclasses.dataclass(frozen=True)
class CellGrid:
    """Where the cells of a map lie; `cell_grid` makes one.

    Attributes:
      height: rows.
      width: columns.
      extent_x: half the width of what the map shows, in isotropic coordinates.
      extent_y: half its height.
      base: unit of half sizes, in cells.
    """

    height: int
    width: int
    extent_x: float
    extent_y: float
    base: float = BASE

    @property
    def steps(self) -> tuple[float, float]:
        """Width and height of a cell, in isotropic coordinates."""
        return 2 * self.extent_x / self.width, 2 * self.extent_y / self.height

    @property
    def side(self) -> float:
        """The side of the square that is as large as a cell."""
        return math.sqrt(math.prod(self.steps))

    def centers(self, dtype: jax.typing.DTypeLike) -> tuple[jax.Array, jax.Array]:
        """The coordinates of the cells' centres, `(x [width], y [height])`."""
        x, y = pixel_centers(self.height, self.width, dtype=dtype)
        own_x, own_y = map_extents(self.height, self.width)
        return x * (self.extent_x / own_x), y * (self.extent_y / own_y)

    def centers_of(
        self, cell: jax.Array, dtype: jax.typing.DTypeLike
    ) -> tuple[jax.Array, jax.Array]:
        """The centres of some cells, `[...]` each of x and y."""
        x, y = self.centers(dtype)
        return x[cell % self.width], y[cell // self.width]

    def cell_of(self, rectangle: Rectangle) -> tuple[jax.Array, jax.Array]:
        """The cell of each centre, int32 `[...]`, and whether it is on the map at all.

        Centres beyond the map get the nearest cell.
        """

        def place(center: jax.Array, extent: float, count: int) -> jax.Array:
            number = jnp.floor((center / extent + 1) / 2 * count)
            return jnp.clip(number, 0, count - 1).astype(jnp.int32)

        column = place(rectangle.center_x, self.extent_x, self.width)
        row = place(rectangle.center_y, self.extent_y, self.height)
        inside_x = jnp.abs(rectangle.center_x) <= self.extent_x
        inside_y = jnp.abs(rectangle.center_y) <= self.extent_y
        return row * self.width + column, inside_x & inside_y


def cell_grid(
    height: int,
    width: int,
    *,
    extents: tuple[float, float] | None = None,
    base: float = BASE,
) -> CellGrid:
    """The cells of a map.

    Args:
      height: rows of the map.
      width: columns of the map.
      extents: `map_extents` of the image that the map covers; None where the map's
        own are the same. (A map of 16 x 19 cells may cover an image of 61 x 75.)
      base: unit of half sizes, in cells.

    Raises:
      ValueError: for sides below 1, extents or a base that are not positive.
    """
    own = map_extents(height, width)
    extent_x, extent_y = own if extents is None else extents
    for name, value in (("extents", (extent_x, extent_y)), ("base", base)):
        check_number(name, value, lambda v: v > 0, "be positive")
    return CellGrid(height, width, extent_x, extent_y, base)


def at_cells(maps: jax.Array, cell: jax.Array) -> jax.Array:
    """What a map holds at some of its cells.

    Args:
      maps: `[..., h, w, C]`.
      cell: numbers of cells, `[..., M]`, of the same batch axes.

    Returns:
      `[..., M, C]`.
    """
    rows = maps.reshape(*maps.shape[:-3], -1, maps.shape[-1])
    return jnp.take_along_axis(rows, cell[..., None], axis=-2)


def longer_side_first(rectangle: Rectangle) -> Rectangle:
    """The same regions, each with its longer side as its width; a square stays."""
    r = precise(rectangle)
    swap = r.half_height > r.half_width
    return dataclasses.replace(
        r,
        half_width=jnp.where(swap, r.half_height, r.half_width),
        half_height=jnp.where(swap, r.half_width, r.half_height),
        angle=r.angle + jnp.where(swap, jnp.pi / 2, 0.0),
    )


def rectangle_to_code(
    rectangle: Rectangle, cell: jax.Array, grid: CellGrid
) -> jax.Array:
    """The codes of rectangles seen from given cells; see the module's docstring.

    Args:
      rectangle: `[...]`. A half size of 0 becomes e^-10 base cells.
      cell: `[...]`, as `CellGrid.cell_of` gives them.
      grid: the cells.

    Returns:
      `[..., 6]`, float32 or better.
    """
    r = longer_side_first(rectangle)
    x, y = grid.centers_of(cell, r.center_x.dtype)
    unit = grid.base * grid.side

    def log_size(half_size: jax.Array) -> jax.Array:
        return jnp.log(jnp.maximum(half_size / unit, math.exp(-_LARGEST_LOG)))

    step_x, step_y = grid.steps
    numbers = (
        (r.center_x - x) / step_x,
        (r.center_y - y) / step_y,
        log_size(r.half_width),
        log_size(r.half_height),
        jnp.cos(2 * r.angle),
        jnp.sin(2 * r.angle),
    )
    return jnp.stack(numbers, axis=-1)


def rectangle_from_code(code: jax.Array, cell: jax.Array, grid: CellGrid) -> Rectangle:
    """The inverse of `rectangle_to_code`, up to the name of the region.

    It takes any six numbers, and its gradient is finite: where cosine and sine are
    shorter than 1/4, that of the angle does not grow further, and it is 0 at (0, 0).

    Args:
      code: `[..., 6]`.
      cell: `[...]`.
      grid: the cells.

    Returns:
      Rectangles `[...]`; the angle is in [-pi/2, pi/2].
    """
    code = at_least_float32(code)
    x, y = grid.centers_of(cell, code.dtype)
    unit, (step_x, step_y) = grid.base * grid.side, grid.steps
    sizes = unit * jnp.exp(jnp.clip(code[..., 2:4], -_LARGEST_LOG, _LARGEST_LOG))
    return Rectangle(
        center_x=x + step_x * code[..., 0],
        center_y=y + step_y * code[..., 1],
        half_width=sizes[..., 0],
        half_height=sizes[..., 1],
        angle=_half_angle(code[..., 4], code[..., 5]),
    )


def other_name(code: jax.Array) -> jax.Array:
    """The code `[..., 6]` of the same region with width and height swapped."""
    sizes = code[..., 3:1:-1]
    return jnp.concatenate([code[..., :2], sizes, -code[..., 4:]], axis=-1)


@jax.custom_jvp
def _half_angle(cos: jax.Array, sin: jax.Array) -> jax.Array:
    return jnp.arctan2(sin, cos) / 2


@_half_angle.defjvp
def _half_angle_jvp(primals, tangents):
    (cos, sin), (cos_moved, sin_moved) = primals, tangents
    squared = jnp.maximum(cos**2 + sin**2, _SHORT_SQUARED)
    moved = (cos * sin_moved - sin * cos_moved) / squared / 2
    return _half_angle(cos, sin), moved
