"""The training window: sums over the steps since the last record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.geometry.rectangle import Rectangle
from train.tasks.sums import Sums, finite_record, weighted_sum

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
