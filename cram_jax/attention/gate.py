"""The place where a spatial mask meets the features, and views through it.

Every layer with one mask for all channels gates through the module `Gate`, which has no
parameters. It is the place where `cram_jax.losses.outside` steps in: for the rest of
the network it shows each example several times, first through the mask, then through
its complement. These *views* lie in the batch axis, example by example: example b in
view v at `b * views + v`. So a batch dealt out over devices stays where it is.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.geometry.rendering import apply_mask, check_fill, check_floor, raise_floor

__all__ = ["Gate", "add_view", "first_view", "follow_views"]


class Gate(nn.Module):
    """Lets `floor + (1 - floor) * mask` of the features through.

    Examples that an array "open", `[B]`, at the gate's path in the collection "schedule"
    marks pass whole, as if their mask were 1: `mask_dropout_schedule` makes it.

    Attributes:
      floor: what is let through where the mask is 0, in [0, 1).
      fill: what takes the place of what is masked, "zero" or "mean" (`apply_mask`).
    """

    floor: float = 0.0
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
        """What the gate holds back: 1 minus what it multiplies by, filled likewise.

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
