"""Metrics as sums and counts, so that batches, devices and processes add up exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.attention.evidence import layer_evidence as layer_evidence
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32

Sums = dict[str, Any]

CALIBRATION_BINS = 15
NEVER = -1
_WINDOW_NAMES = (
    "loss",
    "cross_entropy",
    "equivariance",
    "correct",
    "weight",
    "gradient_norm",
    "steps",
)
_RECTANGLE_NAMES = ("center_x", "center_y", "half_width", "half_height")


def weighted_sum(weight: jax.Array, values: jax.Array) -> jax.Array:
    """Sum of `weight * values`, both `[B]`; what has no weight may hold anything.

    Raises:
      ValueError: if there is not one value per weight: `[B] * [B, K]` would broadcast.
    """
    if weight.shape != values.shape:
        raise ValueError(
            "There must be one value per image; got weights of shape"
            f" {weight.shape} and values of shape {values.shape}."
        )
    values = values.astype(weight.dtype) if values.dtype == bool else values
    return jnp.sum(jnp.where(weight > 0, weight * values, 0.0))


def finite_record(values: Mapping[str, Any]) -> dict[str, float]:
    """The values as floats, without those that are no finite numbers.

    A score that could not be measured is left out, for any number would be wrong.
    """
    floats = {name: float(value) for name, value in values.items()}
    return {name: value for name, value in floats.items() if math.isfinite(value)}


def _layer_names(layer: Mapping[str, Any]) -> tuple[str, ...]:
    if "rectangle" not in layer:
        return ("mask_area",)
    return ("mask_area", *_RECTANGLE_NAMES, "center_square")


def empty_window(layers: Mapping[str, Mapping[str, Any]]) -> Sums:
    """The training sums before the first step; `layers` as from `layer_evidence`."""

    def zeros(names):
        return {name: jnp.zeros((), jnp.float32) for name in names}

    sums: Sums = zeros(_WINDOW_NAMES)
    sums["layers"] = {
        path: zeros(_layer_names(layer)) for path, layer in layers.items()
    }
    for name in ("bad_loss_step", "bad_gradient_step"):
        sums[name] = jnp.full((), NEVER, jnp.int32)
    return sums


def layer_sums(layer: Mapping[str, Any], weight: jax.Array) -> Sums:
    """Sums over a batch of one layer's mask area and rectangle."""
    values = {"mask_area": jnp.mean(layer["mask"].astype(jnp.float32), axis=(-2, -1))}
    if "rectangle" in layer:
        rectangle: Rectangle = layer["rectangle"]
        values |= {name: getattr(rectangle, name) for name in _RECTANGLE_NAMES}
        # Second moment of the centre: a layer stuck in one place shows as no spread.
        values["center_square"] = rectangle.center_x**2 + rectangle.center_y**2
    return {name: weighted_sum(weight, value) for name, value in values.items()}


def window_record(window: Sums) -> dict[str, float]:
    """The means of a fetched training window, by readable flat names.

    Means over images are left out if there was none.
    """
    weight, steps = float(window["weight"]), float(window["steps"])
    record = {"gradient_norm": window["gradient_norm"] / steps} if steps else {}
    if weight == 0:
        return finite_record(record)
    record |= {
        "loss": window["loss"] / weight,
        "cross_entropy": window["cross_entropy"] / weight,
        "accuracy": window["correct"] / weight,
    }
    if window["equivariance"] != 0:
        record["equivariance_loss"] = window["equivariance"] / weight
    for path, sums in window["layers"].items():
        means = {name: value / weight for name, value in sums.items()}
        if "center_square" in means:
            fixed = means["center_x"] ** 2 + means["center_y"] ** 2
            spread = max(means.pop("center_square") - fixed, 0.0) ** 0.5
            means["center_spread"] = spread
        record |= {f"{path}/{name}": value for name, value in means.items()}
    return finite_record(record)


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
