"""Similarities of the plane: mirror, turn, scale, shift.

A similarity maps a point p to `scale * R(angle) * diag(flip, 1) * p + shift`, with
flip +1 or -1 (-1 mirrors left and right, before anything else), R(angle) the turn
by a positive angle (clockwise on screen), and p and the shift in the isotropic
coordinates of `cram_jax.geometry.coordinates`. In those a turn is a turn also on a map
that is not square. Similarities form a group, and map rectangles to rectangles exactly;
what they do to images is in `cram_jax.geometry.warping`.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.geometry.batched import align, number_fields, one_shape, register
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32, precise

__all__ = [
    "Similarity",
    "sample_similarity",
    "transform_points",
    "transform_rectangle",
]


@register
@dataclasses.dataclass(frozen=True, init=False)
class Similarity:
    """A batch of similarities: five arrays of one shape `[...]`, float32 or better.

    The constructor broadcasts its arguments, numbers or arrays, to that shape. It
    raises ValueError for what is no number, and where shapes do not fit together.

    Attributes:
      angle: radians, positive from +x towards +y (clockwise on screen).
      scale: positive factor of all lengths.
      shift_x: to the right; 2 is the longer side of the map.
      shift_y: downwards, in the same unit.
      flip: -1 where x is mirrored first, else +1.
    """

    angle: jax.Array
    scale: jax.Array
    shift_x: jax.Array
    shift_y: jax.Array
    flip: jax.Array

    def __init__(
        self,
        angle: jax.typing.ArrayLike,
        scale: jax.typing.ArrayLike = 1.0,
        shift_x: jax.typing.ArrayLike = 0.0,
        shift_y: jax.typing.ArrayLike = 0.0,
        flip: jax.typing.ArrayLike = 1.0,
    ):
        names = (field.name for field in dataclasses.fields(self))
        values = (angle, scale, shift_x, shift_y, flip)
        given = number_fields("Similarity", dict(zip(names, values, strict=True)))
        for name, array in one_shape(given).items():
            object.__setattr__(self, name, array)

    @classmethod
    def identity(cls, shape: tuple[int, ...] = ()) -> Similarity:
        """The similarity that moves nothing, `[*shape]`."""
        return cls(jnp.zeros(shape))

    def compose(self, other: Similarity) -> Similarity:
        """First `other`, then `self`: the order of a product of matrices."""
        last, first = align(self=(self, 0), other=(other, 0))
        last, first = precise(last, first)
        shift_x, shift_y = transform_coordinates(last, first.shift_x, first.shift_y)
        return Similarity(
            angle=last.angle + last.flip * first.angle,
            scale=last.scale * first.scale,
            shift_x=shift_x,
            shift_y=shift_y,
            flip=last.flip * first.flip,
        )

    def inverse(self) -> Similarity:
        """The similarity that undoes this one."""
        own = precise(self)
        linear = Similarity(-own.flip * own.angle, 1 / own.scale, flip=own.flip)
        shift_x, shift_y = transform_coordinates(linear, -own.shift_x, -own.shift_y)
        return dataclasses.replace(linear, shift_x=shift_x, shift_y=shift_y)


def transform_coordinates(
    similarity: Similarity, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Moves points given as x and y, of shapes that broadcast with `[...]`."""
    cos = similarity.scale * jnp.cos(similarity.angle)
    sin = similarity.scale * jnp.sin(similarity.angle)
    x = similarity.flip * x
    return (
        cos * x - sin * y + similarity.shift_x,
        sin * x + cos * y + similarity.shift_y,
    )


def _check_ranges(max_angle: float, max_scale: float, max_shift: float) -> None:
    try:
        check_number("max_scale", max_scale, lambda v: v >= 1, "be at least 1")
        check_number("max_angle", max_angle, lambda v: v >= 0, "be at least 0")
        check_number("max_shift", max_shift, lambda v: v >= 0, "be at least 0")
    except ValueError as error:
        raise ValueError(
            "Ranges need max_scale >= 1, max_angle >= 0 and max_shift >= 0, got "
            f"max_scale={max_scale}, max_angle={max_angle}, max_shift={max_shift}; "
            "max_scale=1.25 draws scales from 0.8 to 1.25."
        ) from error


def sample_similarity(
    key: jax.Array,
    shape: tuple[int, ...] = (),
    *,
    max_angle: float,
    max_scale: float,
    max_shift: float,
    flip: bool = False,
) -> Similarity:
    """Draws independent random similarities.

    Args:
      key: a PRNG key.
      shape: the batch's axes.
      max_angle: angles are uniform in [-max_angle, max_angle], radians.
      max_scale: at least 1; the logarithm of the scale is uniform between those of
        1 / max_scale and max_scale.
      max_shift: each coordinate of the shift is uniform in [-max_shift, max_shift];
        0.5 is a quarter of the longer side.
      flip: mirror every second one, at random.

    Returns:
      Similarities `[*shape]`, float32.

    Raises:
      ValueError: if max_scale < 1, or max_angle or max_shift is negative.
    """
    _check_ranges(max_angle, max_scale, max_shift)
    keys = jax.random.split(key, 5)
    limits = (max_angle, math.log(max_scale), max_shift, max_shift)
    angle, log_scale, shift_x, shift_y = (
        limit * jax.random.uniform(k, shape, jnp.float32, -1, 1)
        for k, limit in zip(keys[:4], limits, strict=True)
    )
    mirrored = jax.random.bernoulli(keys[4], 0.5 if flip else 0.0, shape)
    sign = jnp.where(mirrored, -1.0, 1.0)
    return Similarity(angle, jnp.exp(log_scale), shift_x, shift_y, sign)


def transform_points(similarity: Similarity, points: jax.typing.ArrayLike) -> jax.Array:
    """Moves points.

    Args:
      similarity: similarities `[...]`.
      points: `[..., 2]` as (x, y); the leading axes broadcast with `[...]`.

    Returns:
      `[..., 2]`.

    Raises:
      ValueError: if the last axis of `points` does not have length 2, or batch axes do
        not fit together: one similarity for each row of `[B, N, 2]` is `[B, 1]`.
    """
    given = at_least_float32(points)
    if given.ndim == 0 or given.shape[-1] != 2:
        raise ValueError(
            f"Points have (x, y) on their last axis, got shape {given.shape}."
        )
    similarity, given = align(similarity=(similarity, 0), points=(given, 1))
    similarity, given = precise(similarity, given)
    moved = transform_coordinates(similarity, given[..., 0], given[..., 1])
    return jnp.stack(moved, axis=-1)


def transform_rectangle(similarity: Similarity, rectangle: Rectangle) -> Rectangle:
    """Moves rectangles, in closed form: the image of a rectangle is a rectangle.

    A mirrored rectangle has the angle pi - a, which is the region of -a.

    Args:
      similarity: similarities `[...]`.
      rectangle: rectangles that broadcast with them.

    Returns:
      Rectangles `[...]`.

    Raises:
      ValueError: if batch axes do not fit together.
    """
    similarity, rectangle = align(similarity=(similarity, 0), rectangle=(rectangle, 0))
    similarity, rectangle = precise(similarity, rectangle)
    center_x, center_y = transform_coordinates(
        similarity, rectangle.center_x, rectangle.center_y
    )
    return Rectangle(
        center_x=center_x,
        center_y=center_y,
        half_width=similarity.scale * rectangle.half_width,
        half_height=similarity.scale * rectangle.half_height,
        angle=similarity.angle + similarity.flip * rectangle.angle,
    )
