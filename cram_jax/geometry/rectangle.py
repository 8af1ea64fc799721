"""The rotated rectangle: five numbers, and what follows from them.

Coordinates, units and the sense of a positive angle are those of
`cram_jax.geometry.coordinates`. One region has several names: with centre c, half sizes
w and h and angle a, the parameters (c, w, h, a), (c, w, h, a + pi) and
(c, h, w, a + pi/2) describe the same rectangle; `canonical_rectangle` chooses one.

Everything is float32 or better, batched (all five fields share one shape, `[...]`),
and differentiable with finite gradients everywhere, a degenerate size included.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from cram_jax.geometry.batched import number_fields, one_shape, register
from cram_jax.numerics import precise

__all__ = [
    "Rectangle",
    "canonical_rectangle",
    "rectangle_area",
    "rectangle_corners",
    "rectangle_covariance",
    "rectangle_hull",
]

# A predictor starts from a rectangle this much larger than the map: it sees everything.
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
        array = check_five(jnp.asarray(array))
        return cls(*(array[..., i] for i in range(5)))


def check_five(array: jax.Array) -> jax.Array:
    if array.ndim == 0 or array.shape[-1] != 5:
        raise ValueError(
            "A rectangle has five parameters on its last axis, got shape "
            f"{array.shape}; order them center_x, center_y, half_width, half_height, "
            "angle."
        )
    return array


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
