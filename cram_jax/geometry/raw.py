"""Five unconstrained numbers as a rectangle, and back (ours).

A network predicts any numbers; these maps make each of them a legal rectangle.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.geometry.rectangle import (
    MAX_HALF_SIZE,
    MIN_HALF_SIZE,
    NEUTRAL_HALF_SIZE,
    Rectangle,
    check_five,
)
from cram_jax.numerics import at_least_float32, precise

__all__ = ["rectangle_from_raw", "rectangle_to_raw"]


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
    raw = check_five(at_least_float32(raw))
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
