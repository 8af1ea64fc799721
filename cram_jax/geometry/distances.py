"""How far apart two rectangles are, as regions: blind to their several names.

With centre c, half sizes w and h and angle a, the parameters (c, w, h, a),
(c, w, h, a + pi) and (c, h, w, a + pi/2) are the same rectangle; every distance here
is the same for all of them. All are batched and have finite gradients everywhere.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.geometry.batched import align
from cram_jax.geometry.rectangle import Rectangle, rectangle_corners
from cram_jax.numerics import largest, precise

__all__ = ["gaussian_distance_squared", "rectangle_distance"]


def _safe_sqrt(squared: jax.Array) -> jax.Array:
    """Square root of a non-negative number, with gradient 0 (not infinity) at 0."""
    positive = ~(squared <= 0)  # what is no number stays none
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def gaussian_distance_squared(a: Rectangle, b: Rectangle) -> jax.Array:
    """Squared 2-Wasserstein distance of the moment-matched Gaussians (ours).

    Each rectangle stands for the Gaussian with its centre and its covariance. For
    two by two covariances A, B the distance has the closed form
    `|ca - cb|^2 + tr A + tr B - 2 sqrt(tr(A B) + 2 sqrt(det A det B))`, which loses
    all digits for equal rectangles. With the trace t, the square root m of the
    determinant and the anisotropy vector d = (t^2 - 4 m^2)^(1/2) (cos 2a, sin 2a) of
    each covariance, it equals the sum of squares used here:
    `|ca - cb|^2 + (|da - db|^2 + 4 (ma - mb)^2) / (ta + tb + 2 sqrt(...))`.

    It is smooth, and equal for equal regions: it sees neither the half turn nor the
    quarter turn with swapped sizes, and a square's angle not at all.

    Args:
      a: rectangles `[...]`.
      b: rectangles that broadcast with `a`.

    Returns:
      `[...]`, in squared units of the longer side.

    Raises:
      ValueError: if batch axes do not fit together.
    """

    def moments(r: Rectangle) -> tuple[jax.Array, ...]:
        trace = (r.half_width**2 + r.half_height**2) / 3
        root_determinant = r.half_width * r.half_height / 3
        anisotropy = (r.half_width**2 - r.half_height**2) / 3
        cos, sin = jnp.cos(2 * r.angle), jnp.sin(2 * r.angle)
        return trace, root_determinant, anisotropy * cos, anisotropy * sin

    a, b = _together(a, b)
    trace_a, root_a, cos_a, sin_a = moments(a)
    trace_b, root_b, cos_b, sin_b = moments(b)
    centers = (a.center_x - b.center_x) ** 2 + (a.center_y - b.center_y) ** 2
    shapes = (cos_a - cos_b) ** 2 + (sin_a - sin_b) ** 2 + 4 * (root_a - root_b) ** 2
    trace_of_product = (trace_a * trace_b + cos_a * cos_b + sin_a * sin_b) / 2
    root = _safe_sqrt(jnp.maximum(trace_of_product, 0) + 2 * root_a * root_b)
    divisor = trace_a + trace_b + 2 * root
    # Below, the square of its inverse overflows in the gradient.
    positive = ~(divisor <= 1e-18)
    # Two rectangles of no size have no shape to compare.
    shapes = jnp.where(positive, shapes / jnp.where(positive, divisor, 1.0), 0.0)
    return centers + shapes


def _together(a: Rectangle, b: Rectangle) -> tuple[Rectangle, Rectangle]:
    """Both in one precision, float32 or better, with as many batch axes."""
    a, b = align(a=(a, 0), b=(b, 0))
    return precise(a, b)


def _parameter_distance(a: Rectangle, b: Rectangle) -> jax.Array:
    a, b = _together(a, b)
    center = (a.center_x - b.center_x) ** 2 + (a.center_y - b.center_y) ** 2

    def difference(width: jax.Array, height: jax.Array, angle: jax.Array) -> jax.Array:
        turn = a.angle - angle
        turn = turn - jnp.pi * jnp.round(turn / jnp.pi)
        sizes = (a.half_width - width) ** 2 + (a.half_height - height) ** 2
        return sizes + turn**2

    straight = difference(b.half_width, b.half_height, b.angle)
    swapped = difference(b.half_height, b.half_width, b.angle + jnp.pi / 2)
    return _safe_sqrt(center + jnp.minimum(straight, swapped))


def _corner_distance(a: Rectangle, b: Rectangle) -> jax.Array:
    a, b = _together(a, b)
    corners_a, corners_b = rectangle_corners(a), rectangle_corners(b)
    rolled = jnp.stack([jnp.roll(corners_b, shift, axis=-2) for shift in range(4)])
    squared = jnp.sum((corners_a[None] - rolled) ** 2, axis=-1)
    return _safe_sqrt(-largest(-jnp.mean(squared, axis=-1), 0))


def rectangle_distance(
    a: Rectangle, b: Rectangle, *, metric: str = "gaussian"
) -> jax.Array:
    """A distance between regions: 0 if and only if they are the same (ours).

    Args:
      a: rectangles `[...]`.
      b: rectangles that broadcast with `a`.
      metric: `"gaussian"`, the 2-Wasserstein distance of the moment-matched
        Gaussians (smooth; a square's angle is invisible to it); `"parameters"`, the
        Euclidean distance of the five parameters, the angle in radians, minimised
        over the names of `b`; `"corners"`, the root mean square distance of
        corresponding corners, minimised over the four ways to match them.

    Returns:
      `[...]`; where it is 0 its gradient is 0.

    Raises:
      ValueError: on an unknown metric, and if batch axes do not fit together.
    """
    if metric == "gaussian":
        return _safe_sqrt(gaussian_distance_squared(a, b))
    if metric == "parameters":
        return _parameter_distance(a, b)
    if metric == "corners":
        return _corner_distance(a, b)
    raise ValueError(
        f"Unknown metric {metric!r}; choose 'gaussian', 'parameters' or 'corners'."
    )
