"""Scores of classification: which class is likeliest, and how well that is known."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.numerics import at_least_float32
from train.tasks.sums import Sums, finite_record, weighted_sum

CALIBRATION_BINS = 15


def label_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes a network puts before the label; of equal ones the first leads.

    Args:
      logits: `[B, classes]`.
      labels: int `[B]`.

    Returns:
      int `[B]`; 0 where `argmax` is the label. All classes come before a label that is
      none, and where logits are no finite numbers.
    """
    classes = logits.shape[-1]
    known = (labels >= 0) & (labels < classes)
    place = jnp.where(known, labels, 0)[:, None]
    own = jnp.take_along_axis(logits, place, axis=-1)
    ahead = (logits > own) | ((logits == own) & (jnp.arange(classes)[None] < place))
    # The largest of some values is not finite if one of them is NaN.
    known &= jnp.isfinite(jnp.max(logits, axis=-1))
    return jnp.where(known, jnp.sum(ahead, axis=-1), classes)


def classification_sums(
    logits: jax.Array, labels: jax.Array, weight: jax.Array
) -> Sums:
    """Sums of cross-entropy, top-1, top-5 and calibration bins.

    Args:
      logits: `[B, classes]`.
      labels: int `[B]`.
      weight: `[B]`; 0 leaves a padding image out, whatever its logits and label.

    Returns:
      Sums by name. "not_finite" is the weight of images whose cross-entropy is no
      finite number; they are neither in it nor in the bins. "correct_5" is there only
      for more than 5 classes, because with fewer it is always right.
    """
    logits = at_least_float32(logits)
    classes = logits.shape[-1]
    log_probabilities = jax.nn.log_softmax(logits)
    rank = label_rank(logits, labels)
    known = (labels >= 0) & (labels < classes)
    place = jnp.where(known, labels, 0)[:, None]
    own = jnp.take_along_axis(log_probabilities, place, axis=-1)[:, 0]
    finite = known & jnp.isfinite(own)
    measured = jnp.where(finite, weight, 0.0)
    correct = (rank < 1).astype(jnp.float32)
    confidence = jnp.exp(jnp.max(log_probabilities, axis=-1))
    confidence = jnp.where(finite, confidence, 0.0)
    bins = jnp.clip(confidence * CALIBRATION_BINS, 0, CALIBRATION_BINS - 1)
    member = jax.nn.one_hot(bins.astype(jnp.int32), CALIBRATION_BINS)
    member *= measured[:, None]
    sums = {
        "weight": jnp.sum(weight),
        "not_finite": weighted_sum(weight, ~finite),
        "cross_entropy": -weighted_sum(measured, own),
        "correct": weighted_sum(weight, correct),
        "bin_weight": jnp.sum(member, axis=0),
        "bin_correct": jnp.sum(member * correct[:, None], axis=0),
        "bin_confidence": jnp.sum(member * confidence[:, None], axis=0),
    }
    if classes > 5:
        sums["correct_5"] = weighted_sum(weight, rank < 5)
    return sums


def classification_record(sums: Sums) -> dict[str, float]:
    """Accuracies and calibration error from fetched sums.

    The calibration error is the expected one of Guo et al. (2017), section 3: mean
    distance of confidence and accuracy over 15 equal bins, weighted by their counts.
    Without images there is no score. Where the network gave some images logits that
    are no finite numbers (or their label is no class), "images_not_finite" says how
    many; they count as wrong, and cross-entropy and calibration are left out.
    """
    weight, not_finite = float(sums["weight"]), float(sums["not_finite"])
    if weight == 0:
        return {"images": 0.0}
    gaps = np.asarray(sums["bin_correct"]) - np.asarray(sums["bin_confidence"])
    means = {
        "cross_entropy": sums["cross_entropy"] / weight,
        "accuracy": sums["correct"] / weight,
        "calibration_error": np.abs(gaps).sum() / weight,
    }
    if "correct_5" in sums:
        means["top_5"] = sums["correct_5"] / weight
    if not_finite:
        del means["cross_entropy"], means["calibration_error"]
        means["images_not_finite"] = not_finite
    return finite_record({"images": weight} | means)
