"""Scores of label maps: a confusion matrix of all pixels, and outlines.

Pixels of the value `IGNORED` are in no score. Counts of pixels are integers, so that
scores made of them are the same whatever the batches and devices.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from train.data.sources.base import IGNORED
from train.tasks.sums import Sums, finite_record, weighted_sum

# How far outlines may lie apart, as a share of the image's diagonal, and in pixels.
OUTLINE_TOLERANCE, LEAST_TOLERANCE = 0.0075, 1.0


def predicted_regions(logits: jax.Array) -> jax.Array:
    """The likeliest of `[..., K]` regions, `[...]`; K where logits are not finite."""
    # The largest of some values is not finite if one of them is NaN.
    usable = jnp.isfinite(jnp.max(logits, axis=-1))
    return jnp.where(usable, jnp.argmax(logits, axis=-1), logits.shape[-1])


def confusion(
    predicted: jax.Array, truth: jax.Array, weight: jax.Array, count: int
) -> jax.Array:
    """How many pixels of each region (rows) were taken for each (columns).

    Args:
      predicted: int `[B, H, W]`; `count` where the network has no answer.
      truth: int `[B, H, W]`, or `IGNORED`.
      weight: `[B]`; 0 leaves an image out.
      count: the number of regions, K.

    Returns:
      int32 `[K, K + 1]`; the last column is of pixels without an answer.
    """
    counted = (truth < count) & (weight > 0)[:, None, None]
    place = truth.astype(jnp.int32) * (count + 1) + predicted
    length = count * (count + 1)
    place = jnp.where(counted, place, length).reshape(len(weight), -1)
    # Image by image, so that a batch spread over devices stays there.
    of_images = jax.vmap(lambda each: jnp.bincount(each, length=length + 1))(place)
    total = jnp.sum(of_images.astype(jnp.int32), axis=0)
    return total[:length].reshape(count, count + 1)


def outline_scores(
    predicted: jax.Array, truth: jax.Array, count: int
) -> tuple[jax.Array, jax.Array]:
    """The F-scores of outlines (Csurka et al. 2013, section 3), for each region.

    A pixel is on the outline of its region if one of its four neighbours is of another;
    ignored pixels are no neighbours and on no outline. Precision is the share of the
    predicted outline within a tolerance of the true one, recall the reverse: 0.0075 of
    the image's diagonal, one pixel at least.

    Args:
      predicted: int `[B, H, W]`.
      truth: int `[B, H, W]`, or `IGNORED`.
      count: the number of regions, K.

    Returns:
      `[B, K]` in [0, 1], and bool `[B, K]`, whether the region has a true outline.
    """
    known = truth != IGNORED
    radius = max(LEAST_TOLERANCE, OUTLINE_TOLERANCE * math.hypot(*truth.shape[1:]))

    def of_region(region: jax.Array) -> tuple[jax.Array, jax.Array]:
        true = _outline(truth == region, known)
        found = _outline((predicted == region) & known, known)
        lengths = _pixels(true), _pixels(found)
        recall = _pixels(true & _widened(found, radius)) / jnp.maximum(lengths[0], 1)
        precise = _pixels(found & _widened(true, radius)) / jnp.maximum(lengths[1], 1)
        both = recall + precise
        score = 2 * recall * precise / jnp.where(both > 0, both, 1.0)
        return score, lengths[0] > 0

    scores, present = jax.lax.map(of_region, jnp.arange(count))
    return scores.T, present.T


def _pixels(mask: jax.Array) -> jax.Array:
    return jnp.sum(mask, axis=(1, 2)).astype(jnp.float32)


def _outline(region: jax.Array, known: jax.Array) -> jax.Array:
    other = known & ~region
    return region & (_widened(other, 1.0))


def _widened(mask: jax.Array, radius: float) -> jax.Array:
    """Which pixels `[B, H, W]` lie within a distance of one that is set."""
    height, width = mask.shape[1:]
    reach = int(radius)
    padded = jnp.pad(mask, ((0, 0), (reach, reach), (reach, reach)))
    wide = jnp.zeros_like(mask)
    for down in range(-reach, reach + 1):
        for right in range(-reach, reach + 1):
            if down**2 + right**2 <= radius**2:
                top, left = reach + down, reach + right
                wide |= padded[:, top : top + height, left : left + width]
    return wide


def segmentation_sums(logits: jax.Array, truth: jax.Array, weight: jax.Array) -> Sums:
    """Sums over a batch for `segmentation_record`.

    Args:
      logits: `[B, H, W, K]`.
      truth: int `[B, H, W]`, or `IGNORED`.
      weight: `[B]`; 0 leaves a padding image out, whatever it holds.
    """
    count = logits.shape[-1]
    predicted = predicted_regions(logits)
    scores, present = outline_scores(predicted, truth, count)
    counted = weight[:, None] * present
    return {
        "images": jnp.sum(weight),
        "confusion": confusion(predicted, truth, weight, count),
        "outline_scores": jnp.stack(
            [weighted_sum(counted[:, k], scores[:, k]) for k in range(count)]
        ),
        "outlines": jnp.sum(counted, axis=0),
    }


def segmentation_record(sums: Sums, names: Sequence[str]) -> dict[str, float]:
    """Scores from fetched sums, over all pixels whose region is known.

    "iou_NAME" is the intersection over union of a region, "mean_iou" and "mean_dice"
    the means over the regions that are in truth or prediction somewhere; "boundary_f"
    is the mean over regions of the mean over images (see `outline_scores`) where the
    region has a true outline, and "outlines" says how many those were. A trimap's
    border hides outlines: where "outlines" is small, "boundary_f" says little.
    Pixels whose logits are not finite count as wrong; "pixels_not_finite" says how
    many.
    """
    table = np.asarray(sums["confusion"], np.float64)
    record = {"images": sums["images"], "pixels": table.sum()}
    if table.sum() == 0:
        return finite_record({"images": sums["images"]})
    hits, true, found = np.diagonal(table), table.sum(1), table.sum(0)[:-1]
    present = true + found > 0
    iou = hits[present] / (true + found - hits)[present]
    dice = 2 * hits[present] / (true + found)[present]
    record |= {
        "mean_iou": iou.mean(),
        "mean_dice": dice.mean(),
        "pixel_accuracy": hits.sum() / table.sum(),
    }
    named = [name for name, there in zip(names, present, strict=True) if there]
    record |= {f"iou_{name}": value for name, value in zip(named, iou, strict=True)}
    outlines = np.asarray(sums["outlines"], np.float64)
    if outlines.any():
        drawn = outlines > 0
        of_regions = np.asarray(sums["outline_scores"], np.float64)[drawn]
        record["boundary_f"] = (of_regions / outlines[drawn]).mean()
        record["outlines"] = outlines.sum()
    if table[:, -1].any():
        record["pixels_not_finite"] = table[:, -1].sum()
    return finite_record(record)
