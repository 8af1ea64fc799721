"""Metrics as sums and counts, so that batches, devices and processes add up exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.rectangle import Rectangle

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


def layer_evidence(intermediates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each attention layer sowed, by module path.

    Returns:
      `{path: {"mask": [B, H, W], "rectangle": Rectangle of [B]}}`; a layer without
      spatial mask is left out, a position-wise one has no "rectangle".
    """
    found: dict[str, dict[str, Any]] = {}

    def visit(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                visit(value, (*path, name))
            elif name in ("mask", "rectangle"):
                found.setdefault("/".join(path), {})[name] = value[-1]

    visit(intermediates, ())
    return {path: layer for path, layer in found.items() if "mask" in layer}


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
    return {name: jnp.sum(weight * value) for name, value in values.items()}


def window_record(window: Sums) -> dict[str, float]:
    """The means of a fetched training window, by readable flat names."""
    weight, steps = max(window["weight"], 1e-9), max(window["steps"], 1e-9)
    record = {
        "loss": window["loss"] / weight,
        "cross_entropy": window["cross_entropy"] / weight,
        "accuracy": window["correct"] / weight,
        "gradient_norm": window["gradient_norm"] / steps,
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
    return {name: float(value) for name, value in record.items()}


def classification_sums(
    logits: jax.Array, labels: jax.Array, weight: jax.Array
) -> Sums:
    """Sums of cross-entropy, top-1, top-5 and calibration bins.

    Args:
      logits: `[B, classes]`.
      labels: int `[B]`.
      weight: `[B]`; 0 leaves a padding image out.
    """
    log_probabilities = jax.nn.log_softmax(logits.astype(jnp.float32))
    own = jnp.take_along_axis(log_probabilities, labels[:, None], axis=-1)
    above = jnp.sum(log_probabilities > own, axis=-1)
    correct = (above < 1).astype(jnp.float32)
    confidence = jnp.exp(jnp.max(log_probabilities, axis=-1))
    bins = jnp.clip(confidence * CALIBRATION_BINS, 0, CALIBRATION_BINS - 1)
    member = jax.nn.one_hot(bins.astype(jnp.int32), CALIBRATION_BINS) * weight[:, None]
    return {
        "weight": jnp.sum(weight),
        "cross_entropy": -jnp.sum(weight * own[:, 0]),
        "correct": jnp.sum(weight * correct),
        "correct_5": jnp.sum(weight * (above < 5)),
        "bin_weight": jnp.sum(member, axis=0),
        "bin_correct": jnp.sum(member * correct[:, None], axis=0),
        "bin_confidence": jnp.sum(member * confidence[:, None], axis=0),
    }


def classification_record(sums: Sums) -> dict[str, float]:
    """Accuracies and calibration error from fetched sums.

    The calibration error is the expected one of Guo et al. (2017), section 3: mean
    distance of confidence and accuracy over 15 equal bins, weighted by their counts.
    """
    weight = max(float(sums["weight"]), 1e-9)
    gap = np.abs(np.asarray(sums["bin_correct"]) - np.asarray(sums["bin_confidence"]))
    return {
        "images": float(sums["weight"]),
        "cross_entropy": float(sums["cross_entropy"]) / weight,
        "accuracy": float(sums["correct"]) / weight,
        "top_5": float(sums["correct_5"]) / weight,
        "calibration_error": float(gap.sum()) / weight,
    }
