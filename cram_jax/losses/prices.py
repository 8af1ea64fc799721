"""What a mask's area costs in a step, from the areas measured in the steps before.

`target_price` is the slope of the hinge `relu(area - target)^2` at a measured area, for
which `moving_area` keeps an average. `ascended_price` (dual ascent) needs no weight: it
rises until the target is met. Prices live beside the parameters, carried from step to
step; `cram_jax.losses.budget.area_price_loss` charges them.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

__all__ = ["ascended_price", "moving_area", "target_price"]

Number = jax.typing.ArrayLike


def target_price(area: Number, target: Number) -> jax.Array:
    """The slope of `relu(area - target)^2` in the area: `2 relu(area - target)`.

    Args:
      area: measured mean area, any shape.
      target: area to come down to.

    Returns:
      The price, of the shape of both broadcast.
    """
    return 2 * jax.nn.relu(jnp.asarray(area) - target)


def ascended_price(
    price: Number,
    area: Number,
    target: Number,
    *,
    rate: Number,
    highest: Number = jnp.inf,
) -> jax.Array:
    """The price after a step of dual ascent on `mean area <= target`.

    The area swings round the target for a while, the longer the faster the price rises
    beside what it moves.

    Args:
      price: so far; start from 0.
      area: measured mean area.
      target: area to come down to.
      rate: by how much an excess of 1 raises the price; divide what should happen in
        the whole training by the number of steps.
      highest: limit of the price, for a target that cannot be met.

    Returns:
      `clip(price + rate * (area - target), 0, highest)`.
    """
    return jnp.clip(
        jnp.asarray(price) + rate * (jnp.asarray(area) - target), 0, highest
    )


def moving_area(
    average: Number, area_sum: Number, weight: Number, *, decay: Number = 0.9
) -> jax.Array:
    """The moving average of a batch-mean area after one more batch.

    Args:
      average: so far. Layers start open, so 1 is the average before the first step.
      area_sum: sum of the areas over the whole batch, all devices and parts.
      weight: sum of the examples' weights; 0 leaves the average as it is.
      decay: share of the old average that stays, in [0, 1).

    Returns:
      The new average, without gradient.
    """
    some = jnp.asarray(weight) > 0
    area = jnp.asarray(area_sum) / jnp.where(some, weight, 1.0)
    new = decay * jnp.asarray(average) + (1 - decay) * area
    return jax.lax.stop_gradient(jnp.where(some, new, average))
