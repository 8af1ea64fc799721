"""From the config to the network, its first variables, and its schedule."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.attention.evidence import sharpness_schedule
from cram_jax.attention.registry import attention_factory
from cram_jax.backbones import backbone
from cram_jax.backbones.weights import (
    PACKAGED,
    load_torch_weights,
    packaged_weights,
)
from train.config.attention import SharpnessConfig
from train.config.model import ModelConfig
from train.config.run import FitConfig
from train.data.facts import Facts
from train.errors import UserError
from train.learning.optimizer import path_of
from train.learning.state import Purpose
from train.tasks.task import Task


def build_network(
    config: FitConfig, task: Task, facts: Facts, *, axis_name: str | None = None
) -> nn.Module:
    """The network of a run.

    Args:
      config: names backbone and attention, where the attention goes, and whether the
        backbone's BatchNorm keeps its statistics in training (that of new layers, and
        dropout, train as ever).
      task: says what stands on the backbone.
      facts: what is known of the data set.
      axis_name: pmap axis over which BatchNorm averages, or None.

    Raises:
      ValueError: if the network has no such choice of widths, or no slot in blocks.
    """
    make = functools.partial(
        _configured_backbone(config.model, axis_name),
        axis_name=axis_name,
        freeze_norm=config.optimizer.freeze_norm,
        dtype=jnp.bfloat16 if config.precision == "bf16" else None,
        param_dtype=jnp.float32,
    )
    return task.network(make, facts)


def _configured_backbone(
    config: ModelConfig, axis_name: str | None
) -> Callable[..., nn.Module]:
    """Makes the backbone with its attention; see `build_network`."""
    factory = attention_factory(config.attention)
    make = backbone(config.backbone)
    if factory is not None and "axis_name" in _parameters(factory):
        # Backbones hand it to their own BatchNorm only.
        factory = functools.partial(factory, axis_name=axis_name)
    if factory is not None:
        factory = _with_choices(config, factory)
    if config.attention_in_blocks:
        if "attention_in_blocks" not in inspect.signature(make).parameters:
            raise ValueError(
                f"model.attention_in_blocks needs a ResNet; {config.backbone} has no"
                " residual blocks with a slot."
            )
        make = functools.partial(make, attention_in_blocks=True)
    if config.widths is not None:
        if "widths" not in inspect.signature(make).parameters:
            raise ValueError(
                f"model.widths cannot be chosen for {config.backbone}; leave it out."
            )
        make = functools.partial(make, widths=config.widths)
    stages = config.attention_stages if factory is not None else ()
    return functools.partial(make, attention=factory, attention_stages=stages)


def takes(factory: Callable[..., nn.Module], field: str) -> bool:
    """Whether the layers of a factory have a field that may be chosen, e.g. "fill"."""
    return field in _parameters(factory)


def _with_choices(
    config: ModelConfig, factory: Callable[..., nn.Module]
) -> Callable[..., nn.Module]:
    """The factory of a layer with the filling and the count that the config names.

    Raises:
      ValueError: for a layer that has no such choice.
    """
    for field, chosen, usual, needed in (
        ("fill", config.attention_fill, "zero", "a rectangular or positionwise layer"),
        ("count", config.attention_count, 1, "a rectangular layer"),
    ):
        if chosen == usual:
            continue
        if not takes(factory, field):
            raise ValueError(
                f"model.attention_{field} {chosen!r} needs {needed};"
                f" model.attention is {config.attention!r}."
            )
        factory = functools.partial(factory, **{field: chosen})
    return factory


def _parameters(factory: Callable[..., nn.Module]) -> Collection[str]:
    """Names of what a layer can be made with, whatever a partial has set already."""
    while isinstance(factory, functools.partial):
        factory = factory.func
    return inspect.signature(factory).parameters


def initial_variables(
    model: nn.Module, key: jax.Array, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """Parameters and batch statistics, made in one compiled function."""
    images = jnp.zeros((1, *image_shape), jnp.float32)
    # It runs once: on CPU, optimising it takes five times longer than not to.
    options = (
        {"xla_backend_optimization_level": 0}
        if jax.default_backend() == "cpu"
        else None
    )
    init = jax.jit(model.init, compiler_options=options)
    dropout_key = jax.random.fold_in(key, Purpose.DROPOUT)
    variables = init({"params": key, "dropout": dropout_key}, images)
    return {
        "params": variables["params"],
        "batch_stats": variables.get("batch_stats", {}),
    }


def parameter_paths(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[str, ...]:
    """The path of every parameter, as the patterns of the optimiser see it."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
    return tuple(path_of(path) for path, _ in jax.tree.leaves_with_path(params))


def intermediates_shape(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, Any]:
    """What the layers sow for a batch of one image, as shapes (nothing is computed)."""

    def forward(images):
        variables = model.init(jax.random.key(0), images)
        return model.apply(variables, images, mutable=["intermediates"])[1]

    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    return jax.eval_shape(forward, images).get("intermediates", {})


def sharpness_at(
    config: SharpnessConfig, step: jax.Array | int, total_steps: int
) -> jax.Array:
    """Sharpness at a step: geometric from start to end, since it is a scale."""
    anneal_steps = max(config.anneal_fraction * total_steps, 1e-6)
    progress = jnp.clip(jnp.asarray(step, jnp.float32) / anneal_steps, 0.0, 1.0)
    progress = progress if config.anneal_fraction > 0 else jnp.ones(())
    return config.start * jnp.power(config.end / config.start, progress)


def make_schedule(
    config: FitConfig, paths: tuple[str, ...], total_steps: int
) -> Callable[[jax.Array], dict[str, Any]]:
    """A function of the step that gives the network's "schedule" collection."""

    def schedule(step):
        if not paths:
            return {}
        value = sharpness_at(config.sharpness, step, total_steps)
        return sharpness_schedule(paths, value)

    return schedule


def check_freeze_norm(config: FitConfig) -> None:
    """Refuses to freeze BatchNorm's statistics where there are none to keep.

    Raises:
      UserError: for `freeze_norm` without pretrained weights.
    """
    if config.optimizer.freeze_norm and config.model.pretrained is None:
        raise UserError(
            "optimizer.freeze_norm keeps the statistics of pretrained weights, and"
            " model.pretrained names none: a network from scratch would be normalised"
            " by mean 0 and variance 1; leave it out."
        )


def load_pretrained(
    model: ModelConfig, variables: dict[str, Any], message: Callable[[str], None]
) -> dict[str, Any]:
    """The variables with the pretrained weights of the config in them.

    Attention layers keep their initial values; so does a head whose number of classes
    is not the file's.

    Args:
      model: names the weights.
      variables: initial "params" and "batch_stats".
      message: told what was loaded, left over and missing, like a diff.

    Raises:
      UserError: if the weights cannot be read or do not fit.
    """
    name = model.pretrained or ""
    try:
        path = packaged_weights(name) if name in PACKAGED else Path(name)
        loaded, report = load_torch_weights(path, variables, keep_head=None)
    except ValueError as error:
        raise UserError(f"model.pretrained: {error}") from error
    shown = [name for name in report.unused if not name.endswith("num_batches_tracked")]
    message(f"Weights {name}:\n{dataclasses.replace(report, unused=tuple(shown))}")
    return loaded
