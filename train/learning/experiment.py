"""From a config and a data set to everything a run is made of."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from cram_jax.attention.evidence import attended_rectangles
from train.config.run import FitConfig
from train.errors import UserError
from train.learning.devices import Parallel
from train.learning.metrics import layer_evidence
from train.learning.network import (
    build_model,
    initial_variables,
    intermediates_shape,
    make_schedule,
)
from train.learning.numerics import GENERATOR
from train.learning.optimizer import make_optimizer
from train.learning.pretrained import channel_statistics, load_pretrained
from train.learning.state import TrainState, create_state
from train.learning.task import Task


@dataclass(frozen=True)
class Inputs:
    """What the network must know of its data set.

    Attributes:
      image_shape: (height, width, channels) of the network's input.
      class_names: one per class.
      num_examples: training images.
      truth: rotated, box, mask, or none.
    """

    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    num_examples: int
    truth: str


@dataclass(frozen=True)
class Experiment:
    """A run before its first step.

    Attributes:
      config: of the run.
      inputs: of its data set.
      task: that the steps close over.
      parallel: the way to run them.
      steps_per_epoch: batches in the training images, not rounded.
      layers: attention layers with a spatial mask, as shapes by path.
    """

    config: FitConfig
    inputs: Inputs
    task: Task
    parallel: Parallel
    steps_per_epoch: float
    layers: dict[str, dict[str, Any]]

    @property
    def total_steps(self) -> int:
        """Steps of the whole training."""
        return self.task.total_steps

    def variables_shape(self) -> dict[str, Any]:
        """Shapes of "params" and "batch_stats"; nothing is computed."""

        def initial(images):
            key = jax.random.key(0, impl=GENERATOR)
            found = self.task.model.init({"params": key, "dropout": key}, images)
            return {
                "params": found["params"],
                "batch_stats": found.get("batch_stats", {}),
            }

        images = jax.ShapeDtypeStruct((1, *self.inputs.image_shape), "float32")
        return jax.eval_shape(initial, images)

    def initial_state(self, message: Callable[[str], None] | None = None) -> TrainState:
        """The state before the first step, on the devices; a function of the seed.

        Args:
          message: told what of the pretrained weights was loaded. None: they are not
            read, which serves where a checkpoint is to replace the state anyway.

        Raises:
          UserError: if the pretrained weights are missing or do not fit.
        """
        seed = jax.random.key(self.config.seed, impl=GENERATOR)
        key, model_key = jax.random.split(seed)
        variables = initial_variables(
            self.task.model, model_key, self.inputs.image_shape
        )
        if message is not None and self.config.model.pretrained is not None:
            variables = load_pretrained(self.config.model, variables, message)
        state = create_state(
            variables,
            self.task.optimizer,
            key,
            averaged=self.config.optimizer.ema_decay is not None,
            layers=self.layers,
        )
        return self.parallel.place(jax.tree.map(np.asarray, state))


def make_experiment(
    config: FitConfig, inputs: Inputs, parallel: Parallel
) -> Experiment:
    """Builds the network, the optimiser and their schedules.

    Raises:
      UserError: if config and data set do not fit.
    """
    per_epoch = inputs.num_examples / config.batch_size
    total_steps = max(round(config.epochs * per_epoch), 1)
    try:
        build = functools.partial(
            build_model,
            config.model,
            len(inputs.class_names),
            precision=config.precision,
            freeze_norm=config.optimizer.freeze_norm,
        )
        intermediates = intermediates_shape(build(), inputs.image_shape)
    except ValueError as error:
        raise UserError(str(error)) from error
    rectangles = attended_rectangles(intermediates)
    if config.equivariance.weight > 0 and not rectangles:
        raise UserError(
            "equivariance.weight needs a layer with a rectangle, and"
            f" model.attention is {config.model.attention!r}; try rectangular."
        )
    mean, std = channel_statistics(config.model, inputs.image_shape[-1])
    task = Task(
        model=build(axis_name=parallel.axis_name),
        optimizer=make_optimizer(config.optimizer, total_steps),
        config=config,
        total_steps=total_steps,
        schedule=make_schedule(config, tuple(rectangles), total_steps),
        mean=mean,
        std=std,
        truth=inputs.truth,
        axis_name=parallel.axis_name,
    )
    return Experiment(
        config=config,
        inputs=inputs,
        task=task,
        parallel=parallel,
        steps_per_epoch=per_epoch,
        layers=layer_evidence(intermediates),
    )
