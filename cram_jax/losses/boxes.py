"""How wrong predicted rectangles are: three losses, to be compared.

All are given pair by pair, `[...]`, with finite gradients everywhere; `positive_sums`
adds up those that count.

- `smooth_l1_box_loss`: between codes (`cram_jax.geometry.cells`). Each part has its own
  unit, and the angle of a needle counts no more than that of a nearly square rectangle.
- `gaussian_box_loss`: the Gaussian Wasserstein distance (Yang et al. 2021, arXiv
  2101.11952), blind to the names of a region, with a gradient also where rectangles are
  disjoint. It does not see how a square is turned.
- `iou_box_loss`: 1 minus what the score is made of. Its gradient is 0 where rectangles
  are disjoint, so it cannot pull them together: begin with another loss.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number, choose
from cram_jax.geometry.cells import other_name
from cram_jax.geometry.distances import gaussian_distance_squared, rectangle_distance
from cram_jax.geometry.overlap import rotated_iou
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import precise

__all__ = [
    "gaussian_box_loss",
    "iou_box_loss",
    "positive_sums",
    "smooth_l1_box_loss",
]

# Narrower rectangles are compared in units of those that are so much longer than wide.
_LONGEST = 100.0
# Smaller rectangles are compared in units of this, not of their own size.
_SMALLEST_UNIT = 1e-3


def smooth_l1_box_loss(
    code: jax.Array,
    true_code: jax.Array,
    *,
    beta: float = 0.1,
    square_ratio: float = 1.2,
) -> jax.Array:
    """The sum over six numbers of the smooth L1 loss (Girshick 2015, Fast R-CNN).

    True sides that differ by less than `square_ratio` may as well be named the other
    way round (ours): of both codes the nearer one counts. So the truth does not jump
    where the longer side changes.

    Args:
      code: predicted, `[..., 6]`.
      true_code: `[..., 6]`.
      beta: up to this error the loss is quadratic, then linear with slope 1.
      square_ratio: longer over shorter side of the truth, at least 1; 1 leaves the
        other name out.

    Returns:
      `[...]`, 0 where the codes are equal.

    Raises:
      ValueError: for a beta that is not positive, and a ratio below 1.
    """
    check_number("beta", beta, lambda v: v > 0, "be positive")
    check_number("square_ratio", square_ratio, lambda v: v >= 1, "be at least 1")
    code, true_code = precise(code, true_code)

    def distance(true_code: jax.Array) -> jax.Array:
        error = jnp.abs(code - true_code)
        quadratic = error**2 / (2 * beta)
        return jnp.sum(jnp.where(error < beta, quadratic, error - beta / 2), axis=-1)

    named, renamed = distance(true_code), distance(other_name(true_code))
    ratio = jnp.abs(true_code[..., 2] - true_code[..., 3])
    nearly_square = ratio < math.log(square_ratio)
    return jnp.where(nearly_square, jnp.minimum(named, renamed), named)


def gaussian_box_loss(
    rectangle: Rectangle,
    true: Rectangle,
    *,
    function: str = "log1p",
    tau: float = 1.0,
) -> jax.Array:
    """The loss `1 - 1 / (tau + f(d^2))` of Yang et al. 2021.

    The distance d is `rectangle_distance` in units of the true rectangle: the geometric
    mean of its half sizes (ours; mmrotate takes that of both rectangles, which rewards
    a prediction for being larger). So the loss is the same at any scale. The unit of a
    needle is that of one a hundred times longer than wide.

    Args:
      rectangle: predicted, `[...]`.
      true: rectangles that broadcast with them; the unit has no gradient.
      function: f, "log1p" or "sqrt"; the latter has a kink at d = 0, where its gradient
        is 0.
      tau: at least 1; larger values make the loss flatter.

    Returns:
      `[...]` in [1 - 1 / tau, 1); at its smallest for equal regions.

    Raises:
      ValueError: on an unknown function, for a tau below 1, and if batch axes do not
        fit together.
    """
    choose("function", function, ("log1p", "sqrt"))
    check_number("tau", tau, lambda v: v >= 1, "be at least 1")
    rectangle, true = precise(rectangle, true)
    unit = jax.lax.stop_gradient(_own_unit(true))
    if function == "sqrt":
        error = rectangle_distance(rectangle, true) / unit
    else:
        error = jnp.log1p(gaussian_distance_squared(rectangle, true) / unit**2)
    return 1 - 1 / (tau + error)


def _own_unit(rectangle: Rectangle) -> jax.Array:
    """The geometric mean of half sizes, of needles and points a larger one."""
    width, height = rectangle.half_width, rectangle.half_height
    least = jnp.maximum(width, height) / math.sqrt(_LONGEST)
    mean = jnp.sqrt(jnp.maximum(width * height, 0.0))
    return jnp.maximum(jnp.maximum(mean, least), _SMALLEST_UNIT)


def iou_box_loss(rectangle: Rectangle, true: Rectangle) -> jax.Array:
    """The loss `1 - rotated_iou`, `[...]` in [0, 1].

    Its gradient is 0 for disjoint rectangles, and where neither has an area.

    Raises:
      ValueError: if batch axes do not fit together.
    """
    return 1 - rotated_iou(rectangle, true)


def positive_sums(
    losses: jax.Array, positive: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sum of the losses that count in each image, and how many do.

    How many do differs from image to image, so a mean of means is wrong: add both up
    over images, batches and devices, then divide.

    Args:
      losses: `[..., M]`.
      positive: bool `[..., M]`.

    Returns:
      Two arrays `[...]`.
    """
    total = jnp.sum(jnp.where(positive, losses, 0.0), axis=-1)
    return total, jnp.sum(positive, axis=-1, dtype=losses.dtype)
