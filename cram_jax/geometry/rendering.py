"""From a rectangle to its mask, soft or hard, and from several masks to their union.

The soft mask is a product of four logistic edges. With (u, v) a pixel centre in the
rectangle's own frame, w and h its half sizes, E the logistic function and s the
sharpness::

    mask = E(s (w + u)) E(s (w - u)) E(s (h + v)) E(s (h - v))

(ours: the paper's text leaves its edge function open to us). It tends to the
indicator of the rectangle as s grows; an edge is about 1 / s wide, in units of half
the longer side of the map. The gradient reaches the rectangle only through its edges.

Derivatives are written down by hand (`jax.custom_jvp`, of which JAX makes the reverse
mode): the mask is evaluated once per position, never per channel, and its gradient is
one field per edge, summed along rows and columns. results/cost.md has what it costs.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.geometry.batched import align, with_rank
from cram_jax.geometry.coordinates import pixel_centers
from cram_jax.geometry.edges import edge_terms, product_of_edges
from cram_jax.geometry.rectangle import MIN_HALF_SIZE, Rectangle
from cram_jax.numerics import precise

__all__ = ["mask_union", "relative_sharpness", "render_hard_mask", "render_mask"]


def check_sharpness(sharpness: jax.typing.ArrayLike) -> None:
    """Raises ValueError for a sharpness known now that is not positive."""
    check_number(
        "The sharpness",
        sharpness,
        lambda value: value > 0,
        "be positive",
        "10 gives an edge a tenth of half the map wide",
    )


def _own_frame(
    rectangle: Rectangle, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Pixel centres `[..., height, width]` in the rectangles' own frames."""
    x, y = pixel_centers(height, width, dtype=rectangle.center_x.dtype)
    rank = rectangle.center_x.ndim
    x = with_rank(x, rank + 1) - rectangle.center_x[..., None]
    y = with_rank(y, rank + 1) - rectangle.center_y[..., None]
    cos = jnp.cos(rectangle.angle)[..., None]
    sin = jnp.sin(rectangle.angle)[..., None]
    # Products of a row and a column first: H + W multiplications, not 2 H W.
    along = (cos * x)[..., None, :] + (sin * y)[..., :, None]
    across = (cos * y)[..., :, None] - (sin * x)[..., None, :]
    return along, across


def _with_sharpness(
    rectangle: Rectangle, sharpness: jax.typing.ArrayLike
) -> tuple[Rectangle, jax.Array]:
    """Both in the rectangle's precision, with as many batch axes."""
    rectangle = precise(rectangle)
    edges = jnp.asarray(sharpness, rectangle.center_x.dtype)
    rectangle, edges = align(rectangle=(rectangle, 0), sharpness=(edges, 0))
    return rectangle, edges


def render_mask(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    sharpness: jax.typing.ArrayLike,
) -> jax.Array:
    """The soft mask of each rectangle (see the module's docstring).

    Args:
      rectangle: rectangles `[...]`.
      height: rows of the mask.
      width: columns of the mask.
      sharpness: positive; a number, or an array that broadcasts with `[...]`.

    Returns:
      `[..., height, width]`, in [0, 1], of the rectangle's dtype, at least float32.

    Raises:
      ValueError: if a side is less than 1, a sharpness known now is not positive, or
        batch axes do not fit together.
    """
    check_sharpness(sharpness)
    rectangle, sharpness = _with_sharpness(rectangle, sharpness)
    x, y = pixel_centers(height, width, dtype=rectangle.center_x.dtype)
    return product_of_edges(*edge_terms(rectangle, y, sharpness), x)


def relative_sharpness(
    rectangle: Rectangle, sharpness: jax.typing.ArrayLike
) -> jax.Array:
    """The sharpness that makes edges soft in proportion to the rectangle (ours).

    `sharpness / sqrt(half_width * half_height)`: an edge is 1 / sharpness of the mean
    half size wide. Edges of fixed width make a rectangle of no size a soft blob of
    that width, which training likes: with a sharpness of 5 every rectangle shrank to
    a point. Relative edges leave such a rectangle with no mask at all. They are wide
    while the rectangle is large, at the start, and scale with the image.

    Args:
      rectangle: rectangles `[...]`; a mean half size below 0.05 counts as 0.05.
      sharpness: positive; broadcasts with `[...]`.

    Returns:
      `[...]`, for `render_mask`.

    Raises:
      ValueError: if a sharpness known now is not positive, or batch axes do not fit
        together.
    """
    check_sharpness(sharpness)
    rectangle, sharpness = _with_sharpness(rectangle, sharpness)
    area = jnp.maximum(rectangle.half_width * rectangle.half_height, MIN_HALF_SIZE**2)
    return sharpness / jnp.sqrt(area)


def mask_union(masks: jax.Array) -> jax.Array:
    """What at least one of several masks lets through: `1 - prod(1 - mask)`.

    One mask leaves it as it is. The product is never formed: with u the union so far,
    the next is `u + mask * (1 - u)`, which keeps the digits of small values, stays in
    [0, 1], and whose gradient divides by nothing where a mask is 1.

    Args:
      masks: `[..., K, H, W]` in [0, 1], floating point, K at least 1.

    Returns:
      `[..., H, W]`, of the same dtype.

    Raises:
      ValueError: for masks of fewer than three axes, or none of them.
    """
    if masks.ndim < 3 or masks.shape[-3] == 0:
        raise ValueError(
            "A union is of masks [..., K, H, W], at least one; got shape"
            f" {masks.shape}."
        )
    first, *others = (masks[..., k, :, :] for k in range(masks.shape[-3]))
    return functools.reduce(
        lambda union, mask: union + mask * (1 - union), others, first
    )


def render_hard_mask(rectangle: Rectangle, height: int, width: int) -> jax.Array:
    """The indicator of each rectangle at the pixel centres, border included.

    Args:
      rectangle: rectangles `[...]`.
      height: rows of the mask.
      width: columns of the mask.

    Returns:
      bool `[..., height, width]`.

    Raises:
      ValueError: if a side is less than 1.
    """
    rectangle = precise(rectangle)
    along, across = _own_frame(rectangle, height, width)
    inside_width = jnp.abs(along) <= rectangle.half_width[..., None, None]
    inside_height = jnp.abs(across) <= rectangle.half_height[..., None, None]
    return inside_width & inside_height
