"""The equivariance term of the training loss: rectangles must move with the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.similarity import Similarity, sample_similarity
from cram_jax.warping import warp_image
from train.config import EquivarianceConfig


def example_keys(key: jax.Array, count: int, axis_name: str | None) -> jax.Array:
    """One key per image by its place in the global batch, however that is spread."""
    first = 0 if axis_name is None else jax.lax.axis_index(axis_name) * count
    return jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(count))


def move_images(
    config: EquivarianceConfig, keys: jax.Array, images: jax.Array
) -> tuple[jax.Array, Similarity]:
    """Normalised images `[B, H, W, C]`, each moved by its own random similarity."""

    def sample(key):
        return sample_similarity(
            key,
            max_angle=config.max_angle,
            max_scale=config.max_scale,
            max_shift=config.max_shift,
        )

    similarities = jax.vmap(sample)(keys)
    return warp_image(similarities, images), similarities


def movement_loss(
    config: EquivarianceConfig,
    evidence: Mapping[str, Mapping[str, Any]],
    similarities: Similarity,
) -> jax.Array:
    """Mean over layers and images of the distance between moved and found rectangle.

    Args:
      config: names the metric.
      evidence: of one forward pass over the originals, then the moved images.
      similarities: `[B]`, from originals to moved images.
    """
    from cram_jax.equivariance import equivariance_loss

    losses = []
    for layer in evidence.values():
        if "rectangle" not in layer:
            continue
        originals, moved = (
            jax.tree.map(lambda leaf, half=half: jnp.split(leaf, 2)[half], rectangle)
            for half in (0, 1)
            for rectangle in (layer["rectangle"],)
        )
        losses.append(
            equivariance_loss(originals, moved, similarities, metric=config.metric)
        )
    return jnp.mean(jnp.stack(losses))


def weight_at(
    config: EquivarianceConfig, step: jax.Array, total_steps: int
) -> jax.Array:
    """Weight of the term at a step: a linear rise, then constant."""
    warmup = config.warmup_fraction * total_steps
    if warmup < 1:
        return jnp.asarray(config.weight, jnp.float32)
    return config.weight * jnp.minimum(step.astype(jnp.float32) / warmup, 1.0)
