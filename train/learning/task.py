"""What stays fixed through a run, as the steps need it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from train.config.run import FitConfig


@dataclass(frozen=True)
class Task:
    """What stays fixed through a run; steps close over it.

    Attributes:
      model: the network.
      optimizer: of its parameters.
      config: of the run.
      total_steps: of the whole training.
      schedule: from the step to the network's "schedule" collection.
      mean: of each channel, in units of full scale.
      std: likewise.
      truth: what the data set knows of the object: rotated, box, mask, or none.
      axis_name: of pmap, or None.
    """

    model: nn.Module
    optimizer: optax.GradientTransformation
    config: FitConfig
    total_steps: int
    schedule: Callable[[jax.Array], dict[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    truth: str = "none"
    axis_name: str | None = None

    def normalise(self, images: jax.Array) -> jax.Array:
        """Float32 `[..., C]` in [0, 1] to about unit variance."""
        return (images - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def sum_over_devices(self, tree: Any) -> Any:
        """The sum over pmap's axis; under jit sums are global already."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)
