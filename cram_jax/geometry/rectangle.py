"""The rotated rectangle: five numbers, and what follows from them.

Coordinates, units and the sense of a positive angle are those of
`cram_jax.geometry.coordinates`. One region has several names: with centre c, half sizes w and
h and angle a, the parameters (c, w, h, a), (c, w, h, a + pi) and (c, h, w, a + pi/2)
describe the same rectangle; `canonical_rectangle` chooses one of them.

Everything is float32 or better, batched (all five fields share one shape, `[...]`),
and differentiable with finite gradients everywhere, a degenerate size included.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.geometry.batched import number_fields, one_shape, register
from cram_jax.numerics import at_least_float32, precise

__all__ = [
    "Rectangle",
    "canonical_rectangle",
    "rectangle_area",
    "rectangle_corners",
    "rectangle_covariance",
    "rectangle_from_raw",
    "rectangle_hull",
    "rectangle_to_raw",
]

# Raw zeros give a rectangle this much larger than the map: it sees everything.
NEUTRAL_HALF_SIZE = 1.25
MIN_HALF_SIZE = 0.05
MAX_HALF_SIZE = 2.0


@register
@dataclasses.dataclass(frozen=True, init=False)
class Rectangle:
    """A batch of rotated rectangles: five arrays of one shape `[...]`.

    The constructor takes numbers and arrays. Half floats become float32, and numbers
    take the shape of the arrays. It raises ValueError for what is no number, and for
    arrays of different shapes.

    Attributes:
      center_x: x of the centre, to the right.
      center_y: y of the centre, downwards.
      half_width: half the side along the rectangle's own first axis.
      half_height: half the side along its own second axis.
      angle: radians from +x to its first axis, positive towards +y (clockwise on
        screen).
    """

    center_x: jax.Array
    center_y: jax.Array
    half_width: jax.Array
    half_height: jax.Array
    angle: jax.Array

    def __init__(
        self,
        center_x: jax.typing.ArrayLike,
        center_y: jax.typing.ArrayLike,
        half_width: jax.typing.ArrayLike,
        half_height: jax.typing.ArrayLike,
        angle: jax.typing.ArrayLike,
    ):
        names = (field.name for field in dataclasses.fields(self))
        values = (center_x, center_y, half_width, half_height, angle)
        given = number_fields("Rectangle", dict(zip(names, values, strict=True)))
        shapes = {array.shape for array in given.values()} - {()}
        if len(shapes) > 1:
            shown = ", ".join(f"{name} {list(a.shape)}" for name, a in given.items())
            raise ValueError(
                f"The five fields of a Rectangle have one shape, got {shown};"
                " jnp.broadcast_arrays gives them one."
            )
        for name, array in one_shape(given).items():
            object.__setattr__(self, name, array)

    def as_array(self) -> jax.Array:
        """The five parameters, in the order of the fields, as `[..., 5]`."""
        return jnp.stack(jnp.broadcast_arrays(*jax.tree.leaves(precise(self))), -1)

    @classmethod
    def from_array(cls, array: jax.typing.ArrayLike) -> Rectangle:
        """The inverse of `as_array`.

        Raises:
          ValueError: if the last axis does not have length 5.
        """
        array = _check_five(jnp.asarray(array))
        return cls(*(array[..., i] for i in range(5)))


def _check_five(array: jax.Array) -> jax.Array:
    if array.ndim == 0 or array.shape[-1] != 5:
        raise ValueError(
            "A rectangle has five parameters on its last axis, got shape "
            f"{array.shape}; order them center_x, center_y, half_width, half_height, "
            "angle."
        )
    return array


def _check_half_sizes(min_half_size: float, max_half_size: float) -> None:
    message = (
        "Half sizes need 0 < min_half_size < max_half_size, got "
        f"min_half_size={min_half_size} and max_half_size={max_half_size}; the "
        f"defaults are {MIN_HALF_SIZE} and {MAX_HALF_SIZE}."
    )
    try:
        check_number("min_half_size", min_half_size, lambda v: v > 0, "be positive")
        check_number("max_half_size", max_half_size, lambda v: v > 0, "be positive")
    except ValueError as error:
        raise ValueError(message) from error
    if not min_half_size < max_half_size:
        raise ValueError(message)


def _check_bounds(
    extent_x: float, extent_y: float, min_half_size: float, max_half_size: float
) -> None:
    _check_half_sizes(min_half_size, max_half_size)
    for name, value in (("extent_x", extent_x), ("extent_y", extent_y)):
        check_number(
            name, value, lambda v: v > 0, "be positive", "map_extents gives it"
        )


def _neutral_logit(extent: float, smallest: float, largest: float) -> float:
    """The logit at which the half size is the neutral one, within the bounds."""
    fraction = (NEUTRAL_HALF_SIZE * extent - smallest) / (largest - smallest)
    # A very thin map, or narrow bounds, would put it outside: stay off the ends.
    fraction = min(max(fraction, 0.02), 0.98)
    return math.log(fraction / (1 - fraction))


def rectangle_from_raw(
    raw: jax.typing.ArrayLike,
    *,
    extent_x: float = 1.0,
    extent_y: float = 1.0,
    min_half_size: float = MIN_HALF_SIZE,
    max_half_size: float = MAX_HALF_SIZE,
) -> Rectangle:
    """Maps five unconstrained numbers to a rectangle (ours).

    The centre is `extent * tanh(raw)`, so it stays on the map. The half sizes are a
    logistic function between the bounds, in units of the longer side. The angle is
    the raw number itself: it wraps, so a bound would only add a place to saturate.
    Raw zeros give the neutral rectangle: centred, not turned, 1.25 times the map
    (kept within the bounds), whose mask is nearly 1 everywhere.

    Args:
      raw: `[..., 5]`, unconstrained.
      extent_x: largest |x| of the centre; `map_extents` gives it.
      extent_y: largest |y| of the centre.
      min_half_size: lower bound of both half sizes.
      max_half_size: upper bound of both half sizes.

    Returns:
      Rectangles `[...]`, float32 or better.

    Raises:
      ValueError: on a wrong last axis, unless 0 < min_half_size < max_half_size, and
        for an extent that is not positive.
    """
    _check_bounds(extent_x, extent_y, min_half_size, max_half_size)
    raw = _check_five(at_least_float32(raw))
    span = max_half_size - min_half_size

    def half_size(value: jax.Array, extent: float) -> jax.Array:
        offset = _neutral_logit(extent, min_half_size, max_half_size)
        return min_half_size + span * jax.nn.sigmoid(value + offset)

    return Rectangle(
        center_x=extent_x * jnp.tanh(raw[..., 0]),
        center_y=extent_y * jnp.tanh(raw[..., 1]),
        half_width=half_size(raw[..., 2], extent_x),
        half_height=half_size(raw[..., 3], extent_y),
        angle=raw[..., 4],
    )


def rectangle_to_raw(
    rectangle: Rectangle,
    *,
    extent_x: float = 1.0,
    extent_y: float = 1.0,
    min_half_size: float = MIN_HALF_SIZE,
    max_half_size: float = MAX_HALF_SIZE,
) -> jax.Array:
    """The inverse of `rectangle_from_raw`, for the same keyword arguments.

    Centres and sizes on or beyond their bounds have no finite raw value; they are
    moved inside by a relative 1e-6 first.

    Returns:
      `[..., 5]`, unconstrained.

    Raises:
      ValueError: unless 0 < min_half_size < max_half_size, and for an extent that is
        not positive.
    """
    _check_bounds(extent_x, extent_y, min_half_size, max_half_size)
    rectangle = precise(rectangle)
    inside = 1 - 1e-6
    span = max_half_size - min_half_size

    def raw_center(center: jax.Array, extent: float) -> jax.Array:
        return jnp.arctanh(jnp.clip(center / extent, -inside, inside))

    def raw_half_size(half_size: jax.Array, extent: float) -> jax.Array:
        fraction = (half_size - min_half_size) / span
        logit = jax.scipy.special.logit(jnp.clip(fraction, 1 - inside, inside))
        return logit - _neutral_logit(extent, min_half_size, max_half_size)

    return Rectangle(
        center_x=raw_center(rectangle.center_x, extent_x),
        center_y=raw_center(rectangle.center_y, extent_y),
        half_width=raw_half_size(rectangle.half_width, extent_x),
        half_height=raw_half_size(rectangle.half_height, extent_y),
        angle=rectangle.angle,
    ).as_array()


def rectangle_corners(rectangle: Rectangle) -> jax.Array:
    """The four corners `[..., 4, 2]` as (x, y), in order round the rectangle.

    In the rectangle's own frame: (-, -), (+, -), (+, +), (-, +). On screen that is
    clockwise, starting top left for a small angle.
    """
    r = precise(rectangle)
    cos, sin = jnp.cos(r.angle), jnp.sin(r.angle)
    own_x = jnp.stack([-r.half_width, r.half_width, r.half_width, -r.half_width], -1)
    own_y = jnp.stack(
        [-r.half_height, -r.half_height, r.half_height, r.half_height], -1
    )
    cos, sin = cos[..., None], sin[..., None]
    x = r.center_x[..., None] + cos * own_x - sin * own_y
    y = r.center_y[..., None] + sin * own_x + cos * own_y
    return jnp.stack([x, y], axis=-1)


def rectangle_area(rectangle: Rectangle) -> jax.Array:
    """The area `[...]`; the square [-1, 1] x [-1, 1] has area 4."""
    r = precise(rectangle)
    return 4 * r.half_width * r.half_height


def rectangle_hull(rectangle: Rectangle) -> jax.Array:
    """The tight axis-aligned box `[..., 4]` as (xmin, ymin, xmax, ymax)."""
    r = precise(rectangle)
    cos, sin = jnp.abs(jnp.cos(r.angle)), jnp.abs(jnp.sin(r.angle))
    reach_x = cos * r.half_width + sin * r.half_height
    reach_y = sin * r.half_width + cos * r.half_height
    edges = (r.center_x - reach_x, r.center_y - reach_y)
    return jnp.stack((*edges, r.center_x + reach_x, r.center_y + reach_y), axis=-1)


def rectangle_covariance(rectangle: Rectangle) -> jax.Array:
    """The covariance `[..., 2, 2]` of the uniform density on the rectangle.

    A side of half size w contributes w^2 / 3 along its axis.
    """
    r = precise(rectangle)
    cos, sin = jnp.cos(r.angle), jnp.sin(r.angle)
    along, across = r.half_width**2 / 3, r.half_height**2 / 3
    xx = cos**2 * along + sin**2 * across
    yy = sin**2 * along + cos**2 * across
    xy = cos * sin * (along - across)
    return jnp.stack([jnp.stack([xx, xy], -1), jnp.stack([xy, yy], -1)], -2)


def canonical_rectangle(rectangle: Rectangle) -> Rectangle:
    """One representative of all parameters that describe the same region.

    Its angle lies in [-pi/4, pi/4): the width is the side nearer to the horizontal.
    This needs no special case for a square.
    """
    rectangle = precise(rectangle)
    quarter_turns = jnp.floor(rectangle.angle / (jnp.pi / 2) + 0.5)
    swap = jnp.mod(quarter_turns, 2) == 1
    width, height = rectangle.half_width, rectangle.half_height
    return dataclasses.replace(
        rectangle,
        half_width=jnp.where(swap, height, width),
        half_height=jnp.where(swap, width, height),
        angle=rectangle.angle - quarter_turns * (jnp.pi / 2),
    )
