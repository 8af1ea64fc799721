"""The equivariance term of the training loss: rectangles must move with the image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.similarity import Similarity, sample_similarity
from cram_jax.geometry.warping import warp_image
from cram_jax.losses.equivariance import equivariance_terms
from train.config.attention import EquivarianceConfig


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


def movement_terms(
    config: EquivarianceConfig,
    evidence: Mapping[str, Mapping[str, Any]],
    similarities: Similarity,
    image_size: tuple[int, int],
    weight: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Distances of moved rectangles to those found in the moved images.

    Args:
      config: names the metric.
      evidence: of one forward pass over the originals, then the moved images.
      similarities: `[B]`, from originals to moved images.
      image_size: (height, width).
      weight: `[B]`, 0 for padding images.

    Returns:
      Sums over the pairs in sight and their weights, both `[layers]`; see
      `cram_jax.losses.equivariance.equivariance_terms`.
    """
    rectangles = {
        path: layer["rectangle"]
        for path, layer in evidence.items()
        if "rectangle" in layer
    }
    count = weight.shape[0]
    extent_x, extent_y = map_extents(*image_size)
    return equivariance_terms(
        jax.tree.map(lambda leaf: leaf[:count], rectangles),
        jax.tree.map(lambda leaf: leaf[count:], rectangles),
        similarities,
        metric=config.metric,
        relative=config.relative,
        stop_gradient=config.stop_gradient,
        extent_x=extent_x,
        extent_y=extent_y,
        weights=weight,
    )


def weight_at(
    config: EquivarianceConfig, step: jax.Array, total_steps: int
) -> jax.Array:
    """Weight of the term at a step: a linear rise, then constant."""
    warmup = config.warmup_fraction * total_steps
    if warmup < 1:
        return jnp.asarray(config.weight, jnp.float32)
    return config.weight * jnp.minimum(step.astype(jnp.float32) / warmup, 1.0)
