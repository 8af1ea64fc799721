"""What a detector should say about an image whose objects are known.

In the manner of CenterNet (Zhou et al. 2019, arXiv 1904.07850), with rotated rectangles
(ours): a heat map for each category, 1 at the cell of each object's centre, that falls
off around it as a *rotated* Gaussian with the rectangle's own covariance, made smaller;
and for each object its cell and the code of its rectangle there
(`cram_jax.geometry.cells`). All shapes are static: objects are padded to M.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cram_jax.checks import check_count, check_number, known
from cram_jax.geometry.cells import (
    BASE,
    CellGrid,
    cell_grid,
    longer_side_first,
    rectangle_to_code,
)
from cram_jax.geometry.rectangle import Rectangle, check_five, rectangle_area
from cram_jax.numerics import at_least_float32

__all__ = ["SPREAD", "DetectionTargets", "detection_targets"]

# The Gaussian's standard deviation, in those of the rectangle's uniform density; 0.31
# is that of TTFNet (Liu et al. 2020, arXiv 1909.00700, alpha = 0.54).
SPREAD = 1 / 3


class DetectionTargets(NamedTuple):
    """The targets of images with M objects each.

    Attributes:
      heat: `[..., h, w, K]` in [0, 1], exactly 1 at objects' cells only.
      counted: bool `[..., h, w, K]`, False where nobody knows what is right.
      cell: int32 `[..., M]`, the cell that has each object's centre.
      positive: bool `[..., M]`, whether that cell is to tell the object's rectangle.
      boxes: `[..., M, 6]`, the rectangles' codes there.
      rectangle: `[..., M]`, with the longer side first; any finite one for padding.
    """

    heat: jax.Array
    counted: jax.Array
    cell: jax.Array
    positive: jax.Array
    boxes: jax.Array
    rectangle: Rectangle


def detection_targets(
    rectangles: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    ignored: jax.typing.ArrayLike | None,
    height: int,
    width: int,
    *,
    num_categories: int,
    extents: tuple[float, float] | None = None,
    base: float = BASE,
    spread: float = SPREAD,
) -> DetectionTargets:
    """The targets of a detector's map of `height` x `width` cells.

    Where Gaussians of a category meet, the larger counts. Where several objects meet in
    one cell, only the smallest has its box there (as in FCOS, Tian et al. 2019). An
    ignored object, and one whose centre is beyond the map, is no target, and within it
    nothing is said of its category.

    Args:
      rectangles: `[..., M, 5]` as `Rectangle.as_array`, in isotropic coordinates of the
        image; anything for padding.
      labels: int `[..., M]`, the categories from 0; -1 for padding.
      ignored: bool `[..., M]`: crowds, objects too hard to tell; None for none.
      height: rows of the map.
      width: columns of the map.
      num_categories: K.
      extents: see `cell_grid`.
      base: see `cell_grid`.
      spread: the Gaussian's standard deviations, in those of the rectangle's uniform
        density. A cell's own variance is added, so that needles can be seen.

    Raises:
      ValueError: for shapes that do not fit, labels that are no categories (where they
        are known), and see `cell_grid`.
    """
    check_count("num_categories", num_categories)
    check_number("spread", spread, lambda v: v > 0, "be positive")
    objects = _checked(rectangles, labels, ignored, num_categories)
    grid = cell_grid(height, width, extents=extents, base=base)

    of_image = functools.partial(
        _targets_of_image, grid=grid, num_categories=num_categories, spread=spread
    )
    results = "(h,w,k),(h,w,k),(m),(m),(m,c),(m,p)"
    vectorized = jnp.vectorize(of_image, signature=f"(m,p),(m),(m)->{results}")
    heat, counted, cell, owner, boxes, final = vectorized(*objects)
    rectangle = Rectangle.from_array(final)
    return DetectionTargets(heat, counted, cell, owner, boxes, rectangle)


def _targets_of_image(
    array: jax.Array,
    labels: jax.Array,
    hidden: jax.Array,
    *,
    grid: CellGrid,
    num_categories: int,
    spread: float,
) -> tuple[jax.Array, ...]:
    """The fields of `DetectionTargets`, of one image without batch axes."""
    there = (labels >= 0) & (labels < num_categories)
    neutral = jnp.array([0, 0, 0.5, 0.5, 0], array.dtype)
    rectangle = Rectangle.from_array(jnp.where(there[:, None], array, neutral))
    rectangle = longer_side_first(rectangle)
    cell, inside = grid.cell_of(rectangle)
    target = there & ~hidden & inside
    layers = num_categories, grid.height, grid.width
    gaussians = _gaussians(rectangle, cell, grid, spread)
    heat = _largest_of_category(gaussians, labels, target, layers)
    touched = _insides(rectangle, grid).astype(array.dtype)
    unsaid = _largest_of_category(touched, labels, there & ~target, layers)
    counted = (unsaid == 0) | (heat == 1)
    owner = _smallest_in_cell(rectangle, cell, target, grid.height * grid.width)
    boxes = rectangle_to_code(rectangle, cell, grid)
    return heat, counted, cell, owner, boxes, rectangle.as_array()


def _checked(
    rectangles: jax.typing.ArrayLike,
    labels: jax.typing.ArrayLike,
    ignored: jax.typing.ArrayLike | None,
    count: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Rectangles `[..., M, 5]`, labels and which are ignored `[..., M]`, as arrays."""
    array, labels = check_five(at_least_float32(rectangles)), jnp.asarray(labels)
    hidden = jnp.zeros(labels.shape, bool) if ignored is None else jnp.asarray(ignored)
    if not array.shape[:-1] == labels.shape == hidden.shape or labels.ndim == 0:
        raise ValueError(
            "Rectangles [..., M, 5] go with labels and ignored of [..., M]; got shapes"
            f" {array.shape}, {labels.shape} and {hidden.shape}."
        )
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise ValueError(
            f"labels must be integers, got {labels.dtype}; use -1 for padding."
        )
    numbers = known(labels)
    if numbers is not None and ((numbers < -1) | (numbers >= count)).any():
        raise ValueError(
            f"labels must be in 0 to {count - 1}, or -1 for padding; got"
            f" {numbers.min()} to {numbers.max()}."
        )
    return array, labels.astype(jnp.int32), hidden.astype(bool)


def _largest_of_category(
    maps: jax.Array, labels: jax.Array, counts: jax.Array, layers: tuple[int, int, int]
) -> jax.Array:
    """The maximum over those objects of each category that count, `[h, w, K]`."""
    # A category that there is not is dropped.
    category = jnp.where(counts, labels, layers[0])
    largest = jnp.zeros(layers, maps.dtype).at[category].max(maps, mode="drop")
    return jnp.moveaxis(largest, 0, -1)


def _in_frame_of(
    rectangle: Rectangle, right: jax.Array, down: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Offsets `[M, h, w]` along the width and along the height of each rectangle."""
    cos = jnp.cos(rectangle.angle)[:, None, None]
    sin = jnp.sin(rectangle.angle)[:, None, None]
    return cos * right + sin * down, cos * down - sin * right


def _gaussians(
    rectangle: Rectangle, cell: jax.Array, grid: CellGrid, spread: float
) -> jax.Array:
    """A Gaussian round the centre of each object's cell, 1 there, `[M, h, w]`."""
    x, y = grid.centers(rectangle.center_x.dtype)
    own_x, own_y = grid.centers_of(cell, x.dtype)
    along, across = _in_frame_of(
        rectangle,
        x - own_x[:, None, None],
        y[:, None] - own_y[:, None, None],
    )

    def scaled(offset: jax.Array, half_size: jax.Array) -> jax.Array:
        # The variance of a uniform density is a third of the half size squared.
        variance = (spread * half_size) ** 2 / 3 + grid.side**2 / 12
        return offset**2 / variance[:, None, None]

    along = scaled(along, rectangle.half_width)
    return jnp.exp(-(along + scaled(across, rectangle.half_height)) / 2)


def _insides(rectangle: Rectangle, grid: CellGrid) -> jax.Array:
    """Which cells each rectangle touches (to half a cell), bool `[M, h, w]`."""
    x, y = grid.centers(rectangle.center_x.dtype)
    along, across = _in_frame_of(
        rectangle,
        x - rectangle.center_x[:, None, None],
        y[:, None] - rectangle.center_y[:, None, None],
    )
    width = rectangle.half_width[:, None, None] + grid.side / 2
    height = rectangle.half_height[:, None, None] + grid.side / 2
    return (jnp.abs(along) <= width) & (jnp.abs(across) <= height)


def _smallest_in_cell(
    rectangle: Rectangle, cell: jax.Array, target: jax.Array, cells: int
) -> jax.Array:
    """Which targets are the smallest of their cell; of equal ones the first."""
    count = cell.shape[0]
    order = jnp.argsort(jnp.where(target, rectangle_area(rectangle), jnp.inf))
    numbers = jnp.arange(count, dtype=jnp.int32)
    rank = jnp.zeros(count, jnp.int32).at[order].set(numbers)
    first = jnp.full(cells, count, jnp.int32)
    first = first.at[cell].min(jnp.where(target, rank, count))
    return target & (first[cell] == rank)
