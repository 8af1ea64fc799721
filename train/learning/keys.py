"""Random keys of a training step: each purpose has its own stream.

The key of a run is never used itself: a step folds its number in, then a purpose, then
an image its place in the batch. `jax.random.split` makes the same children of a key as
`fold_in` with small numbers, so a key that is used must not be folded any further.
"""

from __future__ import annotations

import enum

import jax
import jax.numpy as jnp


class Purpose(enum.IntEnum):
    """What random numbers are drawn for."""

    MOVEMENT = 1
    DROPOUT = 2


def image_keys(
    step_key: jax.Array, purpose: Purpose, count: int, axis_name: str | None
) -> jax.Array:
    """One key per image by its place in the global batch, however that is spread.

    Args:
      step_key: of the step, not used for anything else.
      purpose: what the keys are for.
      count: images of the batch, or with `axis_name` of this device's part of it.
      axis_name: of pmap, or None.

    Returns:
      Keys `[count]`.
    """
    stream = jax.random.fold_in(step_key, purpose)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(stream, first + jnp.arange(count))
