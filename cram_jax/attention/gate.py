"""The place where a spatial mask meets the features, and views through it.

Every layer with one mask for all channels gates through the module `Gate`, which has no
parameters. It is the place where `cram_jax.losses.outside` steps in: for the rest of
the network it shows each example several times, first through the mask, then through
its complement. These *views* lie in the batch axis, example by example: example b in
view v at `b * views + v`. So a batch dealt out over devices stays where it is.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cram_jax.checks import check_number
from cram_jax.geometry.batched import align
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_mask
from cram_jax.numerics import at_least_float32, read_apart

__all__ = ["Gate", "add_view", "apply_mask", "first_view", "follow_views", "gate"]

FILLS = ("zero", "mean")


def check_floor(floor: jax.typing.ArrayLike) -> None:
    """Raises ValueError unless 0 <= floor < 1."""
    check_number(
        "The floor",
        floor,
        lambda value: (value >= 0) & (value < 1),
        "be at least 0 and less than 1",
        "0 lets the mask shut completely",
    )


def check_fill(fill: str) -> None:
    """Raises ValueError for an unknown filling."""
    if fill not in FILLS:
        raise ValueError(
            f"Unknown fill {fill!r}; what is masked becomes 'zero' or the 'mean' "
            "feature of the map."
        )


def check_features(features: jax.Array, minimum_rank: int = 3) -> None:
    """Raises ValueError unless `features` are floating [..., H, W, C], not empty."""
    if features.ndim < minimum_rank or 0 in features.shape[-3:]:
        raise ValueError(
            "Features need at least three axes, channels last, [..., H, W, C], none "
            f"of length 0; got shape {features.shape}."
        )
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(
            f"Features must be floating point, got {features.dtype}; scale an integer "
            "image first, for example image / 255."
        )


@jax.custom_jvp
def _multiply(features: jax.Array, mask: jax.Array) -> jax.Array:
    return features * mask.astype(features.dtype)[..., None]


@_multiply.defjvp
def _multiply_jvp(primals, tangents):
    features, mask = primals
    change, mask_change = tangents
    gated = _multiply(features, mask)
    # In the mask's dtype, so that its transpose, the sum over channels that makes the
    # mask's cotangent, is accumulated in it.
    apart, _ = read_apart((features, mask))
    turned = apart.astype(mask.dtype) * mask_change[..., None]
    turned = read_apart(turned.astype(features.dtype))
    return gated, _multiply(change, mask) + turned


def apply_mask(
    features: jax.Array, mask: jax.Array, *, fill: str = "zero"
) -> jax.Array:
    """Multiplies features by a mask, with a gradient that reads them once.

    The mask's cotangent is one reduction over the channels, accumulated in the
    mask's dtype. Forward and reverse mode, derivatives of any order, vmap, remat and
    a batch sharded over devices all work, as they do for `render_mask`.

    Args:
      features: `[..., H, W, C]`, floating point.
      mask: `[..., H, W]`; batch axes broadcast.
      fill: what takes the place of what is masked: "zero", or "mean", the mean
        feature of each map, `mask * features + (1 - mask) * mean` (ours). A network
        trained without masks has seen maps like the latter. The mean is that of the
        whole map, so it tells something of what is masked.

    Returns:
      `[..., H, W, C]` in the dtype of the features.

    Raises:
      ValueError: for an unknown fill, if the maps differ in size, or if batch axes do
        not fit together.
    """
    check_fill(fill)
    if mask.ndim < 2 or features.shape[-3:-1] != mask.shape[-2:]:
        raise ValueError(
            "A mask [..., H, W] has the sides of the features [..., H, W, C], got"
            f" {mask.shape} for {features.shape}."
        )
    features, mask = align(features=(features, 3), mask=(mask, 2))
    if fill == "zero":
        return _multiply(features, mask)
    mean = jnp.mean(at_least_float32(read_apart(features)), (-3, -2), keepdims=True)
    filling = jnp.broadcast_to(mean.astype(features.dtype), features.shape)
    return _multiply(features, mask) + _multiply(filling, 1 - mask)


def raise_floor(mask: jax.Array, floor: jax.Array | float | np.floating) -> jax.Array:
    """The mask, moved from [0, 1] into [floor, 1]."""
    # A Python number takes the mask's dtype, a NumPy one would not.
    least: Any = floor
    least = least.astype(mask.dtype) if isinstance(floor, jax.Array) else float(least)
    return least + (1 - least) * mask


def gate(
    features: jax.Array,
    rectangle: Rectangle,
    *,
    sharpness: jax.typing.ArrayLike,
    floor: float | np.floating = 0.0,
    fill: str = "zero",
) -> jax.Array:
    """`features * (floor + (1 - floor) * mask)`.

    Args:
      features: `[..., H, W, C]`, floating point.
      rectangle: rectangles `[...]`.
      sharpness: see `render_mask`.
      floor: what the gate lets through far outside, in [0, 1).
      fill: see `apply_mask`.

    Returns:
      `[..., H, W, C]` in the dtype of the features.

    Raises:
      ValueError: on a wrong rank, integer features, a sharpness that is not
        positive, a floor outside [0, 1), an unknown fill, or batch axes that do not
        fit together.
    """
    check_features(features)
    check_floor(floor)
    mask = render_mask(rectangle, *features.shape[-3:-1], sharpness=sharpness)
    return apply_mask(features, raise_floor(mask, floor), fill=fill)


class Gate(nn.Module):
    """Lets `floor + (1 - floor) * mask` of the features through.

    An array "open", `[B]`, at the gate's path in the collection "schedule" marks the
    examples that pass whole, as if their mask were 1: `mask_dropout_schedule` makes it.

    Attributes:
      floor: what is let through where the mask is 0, in [0, 1).
      fill: what takes the place of what is masked, "zero" or "mean" (`apply_mask`).
    """

    floor: float | np.floating = 0.0
    fill: str = "zero"

    def setup(self) -> None:
        """Checks the attributes."""
        check_floor(self.floor)
        check_fill(self.fill)

    def __call__(self, features: jax.Array, mask: jax.Array) -> jax.Array:
        """Gates `[..., H, W, C]` by `[..., H, W]`; shape and dtype stay."""
        if self.has_variable("schedule", "open"):
            opened = self.get_variable("schedule", "open")
            # The views of an example lie side by side.
            opened = jnp.repeat(opened, mask.shape[0] // opened.shape[0])
            opened = opened.reshape(-1, *(1,) * (mask.ndim - 1))
            mask = jnp.where(opened, jnp.ones((), mask.dtype), mask)
        return apply_mask(features, raise_floor(mask, self.floor), fill=self.fill)

    def complement(self, features: jax.Array, mask: jax.Array) -> jax.Array:
        """What the gate holds back: 1 minus what it multiplies by, filled as it fills.

        With the filling "zero" the two add up to the features.
        """
        held_back = 1 - raise_floor(mask, self.floor)
        return apply_mask(features, held_back, fill=self.fill)


def add_view(features: jax.Array, view: jax.Array) -> jax.Array:
    """`[B * V, ...]` and one view more, `[B, ...]`, as `[B * (V + 1), ...]`."""
    batch, rest = view.shape[0], view.shape[1:]
    views = features.reshape(batch, -1, *rest)
    views = jnp.concatenate([views, view[:, None]], axis=1)
    return views.reshape(-1, *rest)


def first_view(features: jax.Array, batch: int) -> jax.Array:
    """`[B * V, ...]` as it is through all masks, `[B, ...]`."""
    return features.reshape(batch, -1, *features.shape[1:])[:, 0]


def follow_views(features: jax.Array, gated: jax.Array) -> jax.Array:
    """The features, for a view that a gate on a branch beside them has added.

    A residual block with a layer in its branch returns
    `follow_views(features, branch) + branch`; without views that is the plain sum.
    """
    added = gated.shape[0] - features.shape[0]
    return features if added == 0 else add_view(features, first_view(features, added))
