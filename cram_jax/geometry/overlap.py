"""How much two rectangles, or two masks, overlap.

The area that two rotated rectangles share is exact, not sampled. Usual polygon
clipping collects corners and crossings, decides which count, and sorts them: each
decision can go wrong by a rounding error when edges coincide. Here nothing is
decided. In the frame of the first rectangle, `[-w, w] x [-h, h]`, let P clamp a
point to that box, `P(x, y) = (clip(x, -w, w), clip(y, -h, h))`. The Jacobian of P is
1 inside the box and 0 outside, so the shared area is the area enclosed by the
*image of the second rectangle's outline under P* (Green's theorem). Every edge
crosses at most four lines where P has a kink, so that image is a polygon of
4 x 5 segments; where a kink is found inexactly, the area errs only by as much. (Ours.)
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.geometry.batched import align
from cram_jax.geometry.rectangle import Rectangle, rectangle_area
from cram_jax.numerics import precise

__all__ = [
    "mask_iou",
    "rectangle_intersection_area",
    "rotated_iou",
    "visible_fraction",
]


def rectangle_intersection_area(a: Rectangle, b: Rectangle) -> jax.Array:
    """The exact area shared by two rectangles.

    Batch axes broadcast. The gradient is finite everywhere; where the area has a
    kink (coinciding edges, touching corners) it is one of the one-sided ones or
    between them. It is exact to first order only: second derivatives are not.

    Args:
      a: rectangles `[...]`, half sizes not negative.
      b: rectangles `[...]`, half sizes not negative.

    Returns:
      Areas `[...]`; the square [-1, 1] x [-1, 1] has area 4.

    Raises:
      ValueError: if batch axes do not fit together.
    """
    a, b = align(a=(a, 0), b=(b, 0))
    a, b = precise(a, b)
    x, y = _corners_in_frame_of(a, b)
    box_x, box_y = a.half_width[..., None, None], a.half_height[..., None, None]
    t = _kinks(x, y, box_x, box_y)
    middle = (t[..., 1:] + t[..., :-1]) / 2

    def clamped(values: jax.Array, limit: jax.Array, t: jax.Array) -> jax.Array:
        start = values[..., None]
        step = jnp.roll(values, -1, axis=-1)[..., None] - start
        return jnp.clip(start + t * step, -limit, limit)

    def segments(values: jax.Array, limit: jax.Array) -> jax.Array:
        return jax.lax.stop_gradient(jnp.diff(clamped(values, limit, t), axis=-1))

    # The area is (1/2) \oint X dY - Y dX, and its differential is
    # \oint δX dY - δY dX with no factor (shape derivative). So: differentiate the
    # midpoints only, and take half of the value. Autodiff of the kinks' positions
    # would divide by the slope of an edge and fail at every quarter turn.
    mid_x = clamped(x, box_x, middle)
    mid_y = clamped(y, box_y, middle)
    # A closed outline may be measured from any point; from its own first one the
    # terms of a small rectangle far from the other's centre do not cancel.
    mid_x -= jax.lax.stop_gradient(mid_x[..., :1, :1])
    mid_y -= jax.lax.stop_gradient(mid_y[..., :1, :1])
    twice = mid_x * segments(y, box_y) - mid_y * segments(x, box_x)
    twice = jnp.sum(twice, axis=(-2, -1))
    return twice - jax.lax.stop_gradient(twice) / 2


def _corners_in_frame_of(a: Rectangle, b: Rectangle) -> tuple[jax.Array, jax.Array]:
    """The corners of b, `[..., 4]` each of x and y, in the frame of a."""
    cos_a, sin_a = jnp.cos(a.angle), jnp.sin(a.angle)
    right, down = b.center_x - a.center_x, b.center_y - a.center_y
    center_x = right * cos_a + down * sin_a
    center_y = down * cos_a - right * sin_a
    turn, rest = _exact_difference(b.angle, a.angle)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    cos, sin = cos - rest * sin, sin + rest * cos
    along = jnp.stack([cos * b.half_width, sin * b.half_width], -1)
    across = jnp.stack([-sin * b.half_height, cos * b.half_height], -1)
    center = jnp.stack([center_x, center_y], -1)
    corners = [-along - across, along - across, along + across, across - along]
    corners = jnp.stack([center + corner for corner in corners], axis=-2)
    return corners[..., 0], corners[..., 1]


def _exact_difference(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`a - b` rounded, and what the rounding took off (Knuth's two-sum).

    Half a unit in the last place of an angle of pi is 1e-7, which moves the end of a
    needle by more than its tolerance.
    """
    difference = a - b
    b_part = difference - a
    rest = (a - (difference - b_part)) - (b + b_part)
    return difference, jax.lax.stop_gradient(rest)


def _kinks(x: jax.Array, y: jax.Array, box_x: jax.Array, box_y: jax.Array) -> jax.Array:
    """Where along its edges the clamped outline may bend: `[..., 4, 6]` in [0, 1]."""
    x, y, box_x, box_y = map(jax.lax.stop_gradient, (x, y, box_x, box_y))

    def crossings(values: jax.Array, limit: jax.Array) -> jax.Array:
        start = values[..., None]
        step = jnp.roll(values, -1, axis=-1)[..., None] - start
        # An edge along the line crosses it nowhere, or everywhere: any t will do.
        step = jnp.where(step == 0, 1.0, step)
        return jnp.concatenate([(-limit - start) / step, (limit - start) / step], -1)

    inner = jnp.concatenate([crossings(x, box_x), crossings(y, box_y)], axis=-1)
    inner = jnp.sort(jnp.clip(inner, 0.0, 1.0), axis=-1)
    ends = jnp.zeros_like(inner[..., :1])
    return jnp.concatenate([ends, inner, ends + 1], axis=-1)


def rotated_iou(a: Rectangle, b: Rectangle) -> jax.Array:
    """Intersection over union of two rectangles, exact at every angle.

    Batch axes broadcast; see `rectangle_intersection_area` for the gradient. Where
    neither rectangle has an area to speak of (below 1e-15) the value is 0, and so is
    the gradient. The gradient of disjoint rectangles is 0 as well: to pull them
    together use `rectangle_distance`.

    Args:
      a: rectangles `[...]`, half sizes not negative.
      b: rectangles `[...]`, half sizes not negative.

    Returns:
      Values `[...]` in [0, 1].

    Raises:
      ValueError: if batch axes do not fit together.
    """
    a, b = align(a=(a, 0), b=(b, 0))
    a, b = precise(a, b)
    shared = rectangle_intersection_area(a, b)
    union = rectangle_area(a) + rectangle_area(b) - shared
    # The safe denominator comes before the division: its gradient is -1 / union^2.
    some = union > 1e-15
    ratio = jnp.where(some, shared, 0.0) / jnp.where(some, union, 1.0)
    return _into_unit_interval(ratio)


def _into_unit_interval(ratio: jax.Array) -> jax.Array:
    """Takes off what rounding added, and keeps the gradient."""
    return ratio + jax.lax.stop_gradient(jnp.clip(ratio, 0.0, 1.0) - ratio)


def mask_iou(a: jax.typing.ArrayLike, b: jax.typing.ArrayLike) -> jax.Array:
    """Intersection over union of two masks, soft or hard.

    The sum of the smaller over the sum of the larger value at each pixel (Ruzicka's
    similarity), which for masks of 0 and 1 is the usual count. Two empty masks: 0.

    Args:
      a: `[..., H, W]`, not negative, floating or boolean; batch axes broadcast.
      b: the same.

    Returns:
      Values `[...]` in [0, 1], float32 or better.

    Raises:
      ValueError: if a mask has fewer than two axes, their maps differ in size, or batch
        axes do not fit together.
    """
    a, b = jnp.asarray(a), jnp.asarray(b)
    if min(a.ndim, b.ndim) < 2 or a.shape[-2:] != b.shape[-2:]:
        raise ValueError(
            "Masks need the same two last axes [..., H, W], got shapes "
            f"{a.shape} and {b.shape}; resize one, or drop its channel axis."
        )
    a, b = align(a=(a, 2), b=(b, 2))
    a, b = precise(a, b)
    shared = jnp.sum(jnp.minimum(a, b), axis=(-2, -1))
    union = jnp.sum(jnp.maximum(a, b), axis=(-2, -1))
    some = union > 0
    return jnp.where(some, shared, 0.0) / jnp.where(some, union, 1.0)


def visible_fraction(
    rectangle: Rectangle, extent_x: float, extent_y: float
) -> jax.Array:
    """Area shared with the frame, over the smaller of both areas.

    Args:
      rectangle: rectangles `[...]`.
      extent_x: half the width of the frame, see `map_extents`.
      extent_y: half its height.

    Returns:
      `[...]` in [0, 1].
    """
    zero = jnp.zeros_like(rectangle.center_x)
    frame = Rectangle(zero, zero, zero + extent_x, zero + extent_y, zero)
    shared = rectangle_intersection_area(frame, rectangle)
    smaller = jnp.minimum(rectangle_area(rectangle), 4 * extent_x * extent_y)
    return shared / jnp.maximum(smaller, 1e-12)
