"""Scores as sums and counts, so that batches, devices and processes add up exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

Sums = dict[str, Any]


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


def weighted_sum_each(weight: jax.Array, values: jax.Array) -> jax.Array:
    """Sums `[K]` of `weight * values`, `[B]` and `[B, K]`; see `weighted_sum`.

    Raises:
      ValueError: for values that are not K for each weight.
    """
    if values.ndim != 2 or values.shape[:1] != weight.shape:
        raise ValueError(
            "There must be K values per image, [B, K]; got weights of shape"
            f" {weight.shape} and values of shape {values.shape}."
        )
    return jax.vmap(weighted_sum, in_axes=(None, 1))(weight, values)


def finite_record(values: Mapping[str, Any]) -> dict[str, float]:
    """The values as floats, without those that are no finite numbers.

    A score that could not be measured is left out, for any number would be wrong.
    """
    floats = {name: float(value) for name, value in values.items()}
    return {name: value for name, value in floats.items() if math.isfinite(value)}
