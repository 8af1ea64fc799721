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

    Where Gaussians of a category meet, the larger counts. Of several objects in one
    cell the smallest gets the box (as Tian et al. 2019, FCOS, choose), since a mean of
    them is wrong for all; each has its heat. An ignored object, and one whose centre
    is not on the map, is no target, and within it nothing is said of its category.

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
        density; those of a cell are added (squared), so that needles can be seen.

    Raises:
      ValueError: for shapes that do not fit, labels that are no categories (where they
        are known), and see `cell_grid`.
    """
    check_number("spread", spread, lambda v: v > 0, "be positive")
    array = check_five(at_least_float32(rectangles))
    labels = jnp.asarray(labels)
    hidden = jnp.zeros(labels.shape, bool) if ignored is None else jnp.asarray(ignored)
    _check(array, labels, hidden, num_categories)
    labels = labels.astype(jnp.int32)
    grid = cell_grid(height, width, extents=extents, base=base)
    settings = {"num_categories": num_categories, "grid": grid, "spread": spread}
    of_image = functools.partial(_of_image, **settings)
    results = "(h,w,k),(h,w,k),(m),(m),(m,c),(m,p)"
    vectorized = jnp.vectorize(of_image, signature=f"(m,p),(m),(m)->{results}")
    heat, counted, cell, owner, boxes, final = vectorized(array, labels, hidden)
    rectangle = Rectangle.from_array(final)
    return DetectionTargets(heat, counted, cell, owner, boxes, rectangle)


def _of_image(
    array: jax.Array,
    labels: jax.Array,
    hidden: jax.Array,
    *,
    num_categories: int,
    grid: CellGrid,
    spread: float,
) -> tuple[jax.Array, ...]:
    """The targets of one image, whose objects are `[M, 5]` and `[M]`."""
    there = (labels >= 0) & (labels < num_categories)
    neutral = jnp.array([0, 0, 0.5, 0.5, 0], array.dtype)
    rectangle = Rectangle.from_array(jnp.where(there[:, None], array, neutral))
    rectangle = longer_side_first(rectangle)
    cell, inside = grid.cell_of(rectangle)
    target = there & ~hidden.astype(bool) & inside
    unsaid = there & ~target
    layers = num_categories, grid.height, grid.width
    gaussians = _gaussians(rectangle, cell, grid, spread)
    heat = _largest_of_category(gaussians, labels, target, layers)
    insides = _insides(rectangle, grid).astype(array.dtype)
    covered = _largest_of_category(insides, labels, unsaid, layers)
    counted = (covered == 0) | (heat == 1)
    owner = _smallest_in_cell(rectangle, cell, target, grid.height * grid.width)
    boxes = rectangle_to_code(rectangle, cell, grid)
    return heat, counted, cell, owner, boxes, rectangle.as_array()


def _check(array: jax.Array, labels: jax.Array, hidden: jax.Array, count: int) -> None:
    check_count("num_categories", count)
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
    if (
        numbers is not None
        and numbers.size
        and not -1 <= numbers.min() <= numbers.max() < count
    ):
        raise ValueError(
            f"labels must be in 0 to {count - 1}, or -1 for padding; got"
            f" {numbers.min()} to {numbers.max()}."
        )


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
