"""Distances of two rectangles in units of their own size (ours).

A distance between rectangles in units of the map rewards shrinking: of two small
rectangles the sizes differ by little. *Relative* distances are measured in units of
the pair itself: the root mean square u of their four half sizes. Sizes are divided by
u, so that a common factor of all sizes cancels. Offsets are divided by u taken as a
constant, because otherwise the loss would reward growing instead: the same offset
would count less. Either way the gradient towards a common factor of all sizes is 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.geometry.distances import gaussian_distance_squared, rectangle_distance
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_mask

__all__ = ["METRICS", "pair_distance"]

METRICS = ("gaussian", "parameters", "corners", "mask")
# Smaller pairs than this are compared in units of this, not of their own size.
SMALLEST_UNIT = 1e-3
# In these units a thinner side is as good as this one.
THINNEST = 1e-6
# The metric "mask" renders on a grid of so many pixels, with edges a twelfth of half
# its side wide; a relative pair is shown in a window of three units in each direction.
MASK_PIXELS = 32
MASK_SHARPNESS = 12.0
MASK_WINDOW = 3.0


def pair_distance(
    a: Rectangle, b: Rectangle, *, metric: str, relative: bool
) -> jax.Array:
    """The squared distance of two rectangles.

    Args:
      a: rectangles `[...]`.
      b: rectangles that broadcast with `a`.
      metric: see `cram_jax.losses.equivariance.equivariance_distance`.
      relative: measure in units of the pair's own size, else in units of the map.

    Returns:
      `[...]`, 0 where both are the same region.

    Raises:
      ValueError: on an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}; choose one of {METRICS}.")
    if relative:
        a, b = _in_own_units(a, b)
    if metric == "gaussian":
        return gaussian_distance_squared(a, b)
    if metric == "mask":
        return _mask_distance(a, b, MASK_WINDOW if relative else 1.0)
    return rectangle_distance(a, b, metric=metric) ** 2


def _in_own_units(a: Rectangle, b: Rectangle) -> tuple[Rectangle, Rectangle]:
    """The pair seen from the centre of `a`, in units of its root mean square size."""
    squares = a.half_width**2 + a.half_height**2 + b.half_width**2 + b.half_height**2
    unit = jnp.sqrt(jnp.maximum(squares / 4, SMALLEST_UNIT**2))
    offset_unit = jax.lax.stop_gradient(unit)

    def seen(rectangle: Rectangle) -> Rectangle:
        # In float32 the square of the square of a much thinner side underflows.
        return Rectangle(
            center_x=(rectangle.center_x - a.center_x) / offset_unit,
            center_y=(rectangle.center_y - a.center_y) / offset_unit,
            half_width=jnp.maximum(rectangle.half_width / unit, THINNEST),
            half_height=jnp.maximum(rectangle.half_height / unit, THINNEST),
            angle=rectangle.angle,
        )

    return seen(a), seen(b)


def _mask_distance(a: Rectangle, b: Rectangle, window: float) -> jax.Array:
    def mask(rectangle: Rectangle) -> jax.Array:
        shrunk = Rectangle(
            center_x=rectangle.center_x / window,
            center_y=rectangle.center_y / window,
            half_width=rectangle.half_width / window,
            half_height=rectangle.half_height / window,
            angle=rectangle.angle,
        )
        return render_mask(shrunk, MASK_PIXELS, MASK_PIXELS, sharpness=MASK_SHARPNESS)

    mask_a, mask_b = mask(a), mask(b)
    difference = jnp.sum((mask_a - mask_b) ** 2, axis=(-2, -1))
    total = jnp.sum(mask_a**2 + mask_b**2, axis=(-2, -1))
    # Two rectangles out of sight of the grid have nothing to compare. (A total that is
    # no number is not 0: what cannot be compared must not look equal.)
    some = ~(total <= 1e-12)
    return jnp.where(some, difference, 0.0) / jnp.where(some, total, 1.0)
