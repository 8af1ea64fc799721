"""From a config and a data set to everything a run is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cram_jax.attention.evidence import attended_rectangles, layer_evidence
from train.config.run import FitConfig
from train.data.augmentation.mixtures import check_mixtures
from train.data.facts import Facts
from train.data.preparation import channel_statistics
from train.errors import UserError
from train.learning.devices import Parallel
from train.learning.losses.budget import budget_terms, check_budget
from train.learning.losses.loss import sums_shape
from train.learning.losses.terms import Term, configured_terms
from train.learning.network import (
    build_network,
    initial_variables,
    intermediates_shape,
    load_pretrained,
    make_schedule,
)
from train.learning.optimizer import make_optimizer
from train.learning.processes import GENERATOR
from train.learning.state import TrainState, create_state
from train.tasks.registry import make_task
from train.tasks.task import Task


@dataclass(frozen=True)
class Experiment:
    """What stays fixed through a run; steps close over it.

    Attributes:
      config: the run's.
      inputs: facts of its data set.
      parallel: the way to run its steps.
      model: the network.
      optimizer: moves the network's parameters.
      plan_ends: steps of the whole training; of a run that was given more epochs when
        it was finished, the steps at which it was to end, in order.
      steps_per_epoch: batches in the training images, not rounded.
      schedule: from the step to the network's "schedule" collection.
      mean: mean of each channel, in units of full scale.
      std: standard deviation of each channel, in the same units.
      layers: attention layers with a spatial mask, as shapes by path.
      task: what the labels mean.
      terms: losses beside the task's.
    """

    config: FitConfig
    inputs: Facts
    parallel: Parallel
    model: nn.Module
    optimizer: optax.GradientTransformation
    plan_ends: tuple[int, ...]
    steps_per_epoch: float
    schedule: Callable[[jax.Array], dict[str, Any]]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    layers: dict[str, dict[str, Any]]
    task: Task
    terms: tuple[Term, ...] = ()

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.plan_ends[-1]

    @property
    def axis_name(self) -> str | None:
        """The axis of pmap, or None."""
        return self.parallel.axis_name

    def normalise(self, images: jax.Array) -> jax.Array:
        """Float32 `[..., C]` in [0, 1] to about unit variance."""
        return (images - jnp.asarray(self.mean)) / jnp.asarray(self.std)

    def sum_over_devices(self, tree: Any) -> Any:
        """The sum over pmap's axis; under jit sums are global already."""
        return tree if self.axis_name is None else jax.lax.psum(tree, self.axis_name)

    def gather_over_devices(self, tree: Any) -> Any:
        """Rows `[B, ...]` of all devices in each; under jit rows are global already."""
        if self.axis_name is None:
            return tree
        return jax.lax.all_gather(tree, self.axis_name, tiled=True)

    def variables_shape(self) -> dict[str, Any]:
        """Shapes of "params" and "batch_stats"; nothing is computed."""

        def initial(images):
            key = jax.random.key(0, impl=GENERATOR)
            found = self.model.init({"params": key, "dropout": key}, images)
            return {
                "params": found["params"],
                "batch_stats": found.get("batch_stats", {}),
            }

        images = jax.ShapeDtypeStruct((1, *self.inputs.image_shape), "float32")
        return jax.eval_shape(initial, images)

    def initial_state(self) -> TrainState:
        """The state before the first step, on the devices; a function of the seed.

        Pretrained weights are not in it, see `pretrained_state`.
        """
        key, variables = self._key_and_variables()
        return self._state_of(key, variables)

    def pretrained_state(self, message: Callable[[str], None]) -> TrainState:
        """The initial state with the pretrained weights that the config names.

        Args:
          message: told what was loaded, left over and missing.

        Raises:
          UserError: if the weights are missing or do not fit.
        """
        key, variables = self._key_and_variables()
        loaded = load_pretrained(self.config.model, variables, message)
        return self._state_of(key, loaded)

    def _key_and_variables(self) -> tuple[jax.Array, dict[str, Any]]:
        seed = jax.random.key(self.config.seed, impl=GENERATOR)
        key, model_key = jax.random.split(seed)
        return key, initial_variables(self.model, model_key, self.inputs.image_shape)

    def _state_of(self, key: jax.Array, variables: dict[str, Any]) -> TrainState:
        state = create_state(
            variables,
            self.optimizer,
            key,
            averaged=self.config.optimizer.ema_decay is not None,
            sums=sums_shape(self),
        )
        return self.parallel.place(jax.tree.map(np.asarray, state))


def _check_equivariance(config: FitConfig, has_rectangle: bool) -> None:
    if config.equivariance.weight > 0 and not has_rectangle:
        raise UserError(
            "equivariance.weight needs a layer with a rectangle, and"
            f" model.attention is {config.model.attention!r}; try rectangular."
        )


def planned_steps(config: FitConfig, inputs: Facts) -> tuple[int, ...]:
    """The steps after which a run was to end, in order; see `Experiment.plan_ends`."""
    ends: list[int] = []
    for epochs in (*config.earlier_epochs, config.epochs):
        steps = round(epochs * inputs.num_examples / config.batch_size)
        ends.append(max(steps, ends[-1] + 1 if ends else 1))
    return tuple(ends)


def make_experiment(
    config: FitConfig,
    inputs: Facts,
    parallel: Parallel,
    *,
    terms: Sequence[Term] = (),
) -> Experiment:
    """Builds the task, the network, the optimiser and their schedules.

    Args:
      config: the run's.
      inputs: facts of its data set.
      parallel: the way to run its steps.
      terms: losses beside those of the task and of the config.

    Raises:
      UserError: if config and data set do not fit.
    """
    task = make_task(config)
    per_epoch = inputs.num_examples / config.batch_size
    plan_ends = planned_steps(config, inputs)
    annealed = plan_ends[0]  # What is annealed stays as it is then.
    try:
        build = functools.partial(build_network, config, task, inputs)
        intermediates = intermediates_shape(build(), inputs.image_shape)
    except ValueError as error:
        raise UserError(str(error)) from error
    rectangles = attended_rectangles(intermediates)
    layers = layer_evidence(intermediates)
    _check_equivariance(config, bool(rectangles))
    check_budget(config, layers)
    check_mixtures(config.data, task, inputs.image_shape[:2])
    made = configured_terms(config, annealed) + budget_terms(config, task, annealed)
    mean, std = channel_statistics(config.model, inputs.image_shape[-1])
    return Experiment(
        config=config,
        inputs=inputs,
        parallel=parallel,
        model=build(axis_name=parallel.axis_name),
        optimizer=make_optimizer(config.optimizer, *plan_ends),
        plan_ends=plan_ends,
        steps_per_epoch=per_epoch,
        schedule=make_schedule(config, tuple(rectangles), annealed),
        mean=mean,
        std=std,
        layers=layers,
        task=task,
        terms=(*made, *terms),
    )
