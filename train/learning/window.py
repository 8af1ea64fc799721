"""The training window: sums over the steps since the last record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.attention.evidence import shows_several
from cram_jax.geometry.rectangle import Rectangle
from train.tasks.sums import Sums, finite_record, weighted_sum, weighted_sum_each

NEVER = -1
# What is in a window besides sums over images.
_OTHERS = (
    "weight",
    "layers",
    "gradient_norm",
    "steps",
    "bad_loss_step",
    "bad_gradient_step",
)
_RECTANGLE_NAMES = ("center_x", "center_y", "half_width", "half_height")


def empty_window(sums: Sums) -> Sums:
    """The window before the first step.

    Args:
      sums: those of one step, as shapes; the window has their names.
    """
    window = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), sums)
    window |= {name: jnp.zeros((), jnp.float32) for name in ("gradient_norm", "steps")}
    for name in ("bad_loss_step", "bad_gradient_step"):
        window[name] = jnp.full((), NEVER, jnp.int32)
    return window


def layer_sums(layer: Mapping[str, Any], weight: jax.Array) -> Sums:
    """Sums over a batch of one layer's mask area and rectangle; `[K]` of several."""
    area = jnp.mean(layer["mask"].astype(jnp.float32), axis=(-2, -1))
    sums: Sums = {"mask_area": weighted_sum(weight, area)}
    if "rectangle" not in layer:
        return sums
    rectangle: Rectangle = layer["rectangle"]
    values = {name: getattr(rectangle, name) for name in _RECTANGLE_NAMES}
    # Second moment of the centre: a layer stuck in one place shows as no spread.
    values["center_square"] = rectangle.center_x**2 + rectangle.center_y**2
    add = weighted_sum_each if shows_several(layer) else weighted_sum
    return sums | {name: add(weight, value) for name, value in values.items()}


def window_record(window: Sums) -> dict[str, float]:
    """The means of a fetched training window, by readable flat names.

    Means over images are left out if there was none. A layer of several rectangles has
    the means over them; the spread of a centre is about its own mean in any case, so
    rectangles that each stay in one place have none.
    """
    weight, steps = float(window["weight"]), float(window["steps"])
    record = {"gradient_norm": window["gradient_norm"] / steps} if steps else {}
    if weight == 0:
        return finite_record(record)
    record |= {
        name: value / weight for name, value in window.items() if name not in _OTHERS
    }
    for path, sums in window["layers"].items():
        means = {name: value / weight for name, value in sums.items()}
        if "center_square" in means:
            fixed = means["center_x"] ** 2 + means["center_y"] ** 2
            spread = np.maximum(means.pop("center_square") - fixed, 0.0)
            means["center_spread"] = np.mean(spread) ** 0.5
        record |= {f"{path}/{name}": np.mean(value) for name, value in means.items()}
    return finite_record(record)
