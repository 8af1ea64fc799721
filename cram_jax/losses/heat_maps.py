"""The focal loss of heat maps, in which what lies near an object costs less.

It is that of CornerNet (Law and Deng 2018, arXiv 1808.01244, equation 1), which
CenterNet took over: the focal loss (Lin et al. 2017, arXiv 1708.02002) where the target
is 0 or 1, and between them that of 0, times `(1 - target)^4`.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.numerics import precise

__all__ = ["heat_map_loss", "heat_map_sums"]


def heat_map_loss(
    logits: jax.Array,
    heat: jax.Array,
    *,
    focus: float = 2.0,
    lenience: float = 4.0,
) -> jax.Array:
    """The loss of each cell and category.

    With p the probability: `-(1 - p)^focus log(p)` where the target is 1, elsewhere
    `-(1 - target)^lenience p^focus log(1 - p)`.

    Args:
      logits: `[..., h, w, K]`.
      heat: targets in [0, 1], of the same shape.
      focus: the more, the less cells count that are right already; not negative.
      lenience: the more, the less cells near an object cost; not negative.

    Returns:
      `[..., h, w, K]`, at least float32.

    Raises:
      ValueError: for shapes that differ and exponents that are negative.
    """
    check_number("focus", focus, lambda v: v >= 0, "be at least 0")
    check_number("lenience", lenience, lambda v: v >= 0, "be at least 0")
    if logits.shape != heat.shape:
        raise ValueError(
            "Logits and targets of heat maps have one shape, got"
            f" {logits.shape} and {heat.shape}."
        )
    logits, heat = precise(logits, heat)
    # Powers of probabilities as exponentials: those have a finite slope at 0.
    log_true, log_false = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    of_objects = -jnp.exp(focus * log_false) * log_true
    of_others = -jnp.exp(focus * log_true) * log_false
    return jnp.where(heat >= 1, of_objects, (1 - heat) ** lenience * of_others)


def heat_map_sums(
    losses: jax.Array, heat: jax.Array, counted: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The sum of each image's losses, and its objects, by which to divide.

    Add both up over images, batches and devices, then divide (see `positive_sums`). An
    image without an object weighs as much as one with one, so that a batch of such
    images has a mean too (ours).

    Args:
      losses: `[..., h, w, K]`.
      heat: targets of the same shape; an object is where they are 1.
      counted: bool, of the same shape: False leaves a cell out.

    Returns:
      Two arrays `[...]`.
    """
    axes = (-3, -2, -1)
    total = jnp.sum(jnp.where(counted, losses, 0.0), axis=axes)
    objects = jnp.sum((heat >= 1) & counted, axis=axes, dtype=losses.dtype)
    return total, jnp.maximum(objects, 1.0)
