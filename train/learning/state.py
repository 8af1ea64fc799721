"""Everything that training changes, as one pytree, and the random keys of a step.

Each purpose has its own stream of keys. The key of a run is never used itself: a step
folds its number in, then a purpose, then an image its place in the batch.
`jax.random.split` makes the same children of a key as `fold_in` with small numbers, so
a key that is used must not be folded any further.
"""

from __future__ import annotations

import enum
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from train.learning.window import empty_window
from train.tasks.sums import Sums


class TrainState(flax.struct.PyTreeNode):
    """The state between two steps; a checkpoint holds all of it.

    Attributes:
      step: int32, optimiser steps done.
      params: the network's parameters, float32.
      batch_stats: BatchNorm's running statistics.
      opt_state: the optimiser's.
      average: moving average of {"params", "batch_stats"}, or {} without one.
      key: uint32 data of the run's random key; never changes, steps fold their
        number into it.
      window: sums of the training metrics since the last record.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    average: Any
    key: jax.Array
    window: Sums

    def evaluated_variables(self) -> dict[str, Any]:
        """The variables to judge: the moving average where there is one."""
        if self.average:
            return dict(self.average)
        return {"params": self.params, "batch_stats": self.batch_stats}


def create_state(
    variables: dict[str, Any],
    optimizer: optax.GradientTransformation,
    key: jax.Array,
    *,
    averaged: bool,
    sums: Sums,
) -> TrainState:
    """The state before the first step.

    Args:
      variables: the network's initial {"params", "batch_stats"}.
      optimizer: whose state is made.
      key: the run's random key.
      averaged: whether a moving average of the variables is kept.
      sums: what a step adds to the window, as shapes; see `loss.sums_shape`.
    """
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=variables["params"],
        batch_stats=variables["batch_stats"],
        opt_state=optimizer.init(variables["params"]),
        average=jax.tree.map(jnp.array, variables) if averaged else {},
        key=jax.random.key_data(key),
        window=empty_window(sums),
    )


def update_average(average: Any, variables: Any, decay: float, step: jax.Array) -> Any:
    """The moving average after a step; early on it forgets faster (no zero bias).

    The decay at step t is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    `ExponentialMovingAverage`.
    """
    count = step.astype(jnp.float32)
    rate = 1.0 - jnp.minimum(decay, (1.0 + count) / (10.0 + count))
    return jax.tree.map(lambda a, v: a + rate * (v - a), average, variables)


class Purpose(enum.IntEnum):
    """What random numbers are drawn for."""

    MOVEMENT = 1
    DROPOUT = 2
    MASK_DROPOUT = 3


def image_keys(
    step_key: jax.Array, purpose: Purpose, count: int, axis_name: str | None
) -> jax.Array:
    """One key per image by its place in the global batch, however that is spread.

    Args:
      step_key: the step's, not used for anything else.
      purpose: what the keys are for.
      count: images of the batch, or with `axis_name` of this device's part of it.
      axis_name: pmap's axis, or None.

    Returns:
      Keys `[count]`.
    """
    stream = jax.random.fold_in(step_key, purpose)
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(stream, first + jnp.arange(count))
