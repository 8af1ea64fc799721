"""Loss terms beside the task's own: what layers show, and what else is asked of it.

A *term* measures one look of the network at a part of a batch. It returns a loss of
each image `[B]`; or, for a mean over some of them, a sum and its weight, both of any
one shape: the loss is the mean, over that shape, of the sums over the weights of the
*whole* batch, whoever adds them up (see `loss.py`). Its share in the loss follows a
schedule of the step.

A new term is a function `Look -> Loss` in a `Term`, handed to
`make_experiment(..., terms=[...])` or made from the config by `configured_terms`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.similarity import Similarity, sample_similarity
from cram_jax.geometry.warping import warp_image
from cram_jax.losses.equivariance import equivariance_terms
from train.config.attention import EquivarianceConfig
from train.config.run import FitConfig
from train.tasks.task import Batch, Loss, Outputs

Evidence = Mapping[str, Mapping[str, Any]]


class Look(NamedTuple):
    """What the network made of a part of a batch, in training.

    Attributes:
      outputs: the network's, `[B, ...]`.
      evidence: what the layers showed, on their own maps; see
        `cram_jax.attention.evidence.layer_evidence`.
      moved_outputs: the same for the moved images; None where none were moved.
      moved_evidence: the same for the moved images, or None.
      similarities: what moved the images, `[B]`.
      outside: the outputs from outside each layer's mask by path; empty unless a term
        asks for them; see `cram_jax.losses.outside`.
      batch: the images with their truth; see `train.tasks.task`.
      step: optimiser steps done.
    """

    outputs: Outputs
    evidence: Evidence
    moved_outputs: Outputs | None
    moved_evidence: Evidence | None
    similarities: Similarity
    outside: Mapping[str, Outputs]
    batch: Batch
    step: jax.Array


@dataclass(frozen=True)
class Term:
    """A loss beside the task's.

    Attributes:
      name: the name of its mean in the training records.
      measure: what it costs in one look.
      weight: its share in the loss by step.
      needs_outside: whether `Look.outside` must be there. It is zeros, and so should
        the weight be, at steps where the weight is 0. From outside the mask alone
        learns; see `cram_jax.losses.second_pass`.
      of_mean: what becomes of the means of the whole batch before the mean over their
        shape is taken, each by itself; None: nothing. See `tangent_share`.
    """

    name: str
    measure: Callable[[Look], Loss]
    weight: Callable[[jax.Array], jax.Array]
    needs_outside: bool = False
    of_mean: Callable[[jax.Array], jax.Array] | None = None


def tangent_share(
    of_mean: Callable[[jax.Array], jax.Array],
    part: tuple[jax.Array, jax.Array],
    whole: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """The share of a part in a function of the whole batch's means.

    The function is replaced by its tangent at those means, which is a sum over the
    parts: shares add up to its value, and their gradients to its gradient.

    Args:
      of_mean: from means to losses of the same shape, differentiable.
      part: sums and weights of the part, of one shape.
      whole: sums and weights of the whole batch.

    Returns:
      The share in the mean over the shape, a scalar.
    """
    sums, weights = jax.lax.stop_gradient(whole)
    weights = jnp.where(weights > 0, weights, 1.0)
    means = sums / weights
    loss, slope = jax.jvp(of_mean, (means,), (jnp.ones_like(means),))
    value, weight = part
    return jnp.mean((slope * value + (loss - slope * means) * weight) / weights)


def configured_terms(config: FitConfig, total_steps: int) -> tuple[Term, ...]:
    """The terms that a config asks for."""
    moving = config.equivariance
    if moving.weight == 0:
        return ()

    def measure(look: Look) -> Loss:
        return movement_terms(moving, look)

    def weight(step: jax.Array) -> jax.Array:
        return weight_at(moving, step, total_steps)

    return (Term("equivariance_loss", measure, weight),)


def move_images(
    config: EquivarianceConfig, keys: jax.Array, images: jax.Array
) -> tuple[jax.Array, Similarity]:
    """Images `[B, H, W, C]` in [0, 1], each moved by its own random similarity."""

    def sample(key):
        return sample_similarity(
            key,
            max_angle=config.max_angle,
            max_scale=config.max_scale,
            max_shift=config.max_shift,
        )

    similarities = jax.vmap(sample)(keys)
    return warp_image(similarities, images, fill=config.fill), similarities


def movement_terms(config: EquivarianceConfig, look: Look) -> Loss:
    """Distances of moved rectangles to those found in the moved images.

    Returns:
      Sums over the pairs in sight and their weights, both `[layers]`; see
      `cram_jax.losses.equivariance.equivariance_terms`.
    """
    extent_x, extent_y = map_extents(*look.batch["image"].shape[1:3])
    return equivariance_terms(
        rectangles_of(look.evidence),
        rectangles_of(look.moved_evidence or {}),
        look.similarities,
        metric=config.metric,
        relative=config.relative,
        stop_gradient=config.stop_gradient,
        extent_x=extent_x,
        extent_y=extent_y,
        weights=look.batch["weight"],
    )


def rectangles_of(evidence: Evidence) -> dict[str, Any]:
    """The rectangles of those layers that have one, by path."""
    return {
        path: layer["rectangle"]
        for path, layer in evidence.items()
        if "rectangle" in layer
    }


def weight_at(
    config: EquivarianceConfig, step: jax.Array, total_steps: int
) -> jax.Array:
    """Weight of the equivariance term at a step: a linear rise, then constant."""
    warmup = config.warmup_fraction * total_steps
    if warmup < 1:
        return jnp.asarray(config.weight, jnp.float32)
    return config.weight * jnp.minimum(step.astype(jnp.float32) / warmup, 1.0)
