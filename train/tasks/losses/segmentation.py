"""The losses of label maps, each as a sum and its weight: they add up over devices."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import optax

from cram_jax.numerics import at_least_float32
from train.data.sources.base import IGNORED
from train.tasks.sums import weighted_sum

Pair = tuple[jax.Array, jax.Array]


def region_losses(
    logits: jax.Array, truth: jax.Array, weight: jax.Array, *, smoothing: float = 0.0
) -> tuple[Pair, Pair]:
    """Cross-entropy and Dice loss, each as a sum and its weight.

    The cross-entropy is the mean over all known pixels of all images; NaN for a number
    that is no region. The Dice loss (Milletari et al. 2016, section 3, with the sums
    not squared) is the mean over images, those without a known pixel aside, of 1 minus
    the mean overlap of the regions that are in the image; one pixel is added to both
    sides of the fraction.

    Args:
      logits: `[B, H, W, K]`.
      truth: int `[B, H, W]`, or `IGNORED`.
      weight: `[B]`; 0 leaves an image out.
      smoothing: the probability that targets spread over all regions.
    """
    logits, count = at_least_float32(logits), logits.shape[-1]
    known = truth != IGNORED
    target = jax.nn.one_hot(truth, count, dtype=logits.dtype)
    smooth = optax.smooth_labels(target, smoothing) if smoothing else target
    losses = optax.softmax_cross_entropy(logits, smooth)
    # Without it such a pixel would cost nothing and be learnt as nothing.
    losses = jnp.where(truth < count, losses, jnp.nan)
    of_images = jnp.sum(jnp.where(known, losses, 0.0), axis=(1, 2))
    pixels = jnp.sum(known, axis=(1, 2)).astype(logits.dtype)
    cross_entropy = weighted_sum(weight, of_images), weighted_sum(weight, pixels)

    found = jnp.where(known[..., None], jax.nn.softmax(logits), 0.0)
    both = jnp.sum(found * target, axis=(1, 2))
    true, all_found = jnp.sum(target, axis=(1, 2)), jnp.sum(found, axis=(1, 2))
    overlap = (2 * both + 1) / (true + all_found + 1)
    present = true > 0
    regions = jnp.sum(present, axis=-1)
    mean = jnp.sum(jnp.where(present, overlap, 0.0), -1) / jnp.maximum(regions, 1)
    counted = jnp.where(regions > 0, weight, 0.0)
    return cross_entropy, (weighted_sum(counted, 1 - mean), jnp.sum(counted))
