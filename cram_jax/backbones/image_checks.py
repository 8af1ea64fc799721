"""What a backbone refuses before it computes anything."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.backbones.stages import Stage
from cram_jax.checks import check_made_for


def check_images(images: jax.Array) -> None:
    """Refuses what is not a floating-point array of shape `[..., H, W, C]`.

    Raises:
      ValueError: for fewer than three axes, empty images, and integer images.
    """
    if images.ndim < 3:
        raise ValueError(
            "A backbone takes images of shape [..., height, width, channels]; got shape"
            f" {images.shape}. Add the missing axes, e.g. images[..., None] for gray."
        )
    if 0 in images.shape[-3:]:
        raise ValueError(
            f"A backbone takes images with pixels and channels; got {images.shape}."
        )
    if not jnp.issubdtype(images.dtype, jnp.floating):
        raise ValueError(
            f"A backbone takes floating-point images; got {images.dtype}. Convert and"
            " normalise first, e.g. images.astype(jnp.float32) / 255."
        )


def check_sides(name: str, images: jax.Array, stages: Sequence[Stage]) -> None:
    """Refuses images of which nothing is left on the way through the network.

    Raises:
      ValueError: if a side has too few pixels for the stages that the network declares.
    """
    least = least_side(stages)
    if min(images.shape[-3:-1]) < least:
        raise ValueError(
            f"{name} needs images of at least {least} pixels a side, or its last map is"
            f" empty; got shape {images.shape}. Enlarge them first."
        )


def least_side(stages: Sequence[Stage]) -> int:
    """The smallest side of which the strided steps of all stages leave a pixel."""
    steps = [step for stage in stages for step in stage.steps]
    side = 1
    for step in reversed(steps):
        seen = 1 if step.padding == "same" else step.kernel - 2 * step.padding
        side = max(1, (side - 1) * step.stride + seen)
    return side


def check_channels(module: nn.Module, images: jax.Array, *path: str) -> None:
    """Refuses images of other channels than the convolution at `path` was made for.

    Raises:
      ValueError: if the parameters are there and take another number of channels.
    """
    check_made_for(
        module,
        path,
        images.shape[-1],
        "image channels",
        "repeat the channel of gray images, or initialise a network for these",
    )


def check_attention_stages(
    attention: Callable[..., nn.Module] | None, stages: Sequence[int], count: int
) -> None:
    """Refuses stages that the network does not have, and a layer without a slot.

    Raises:
      ValueError: for a stage outside 1..count, and for an attention factory with no
        stage to put it in.
    """
    wrong = [
        stage
        for stage in stages
        if not isinstance(stage, (int, np.integer)) or not 1 <= stage <= count
    ]
    if wrong:
        raise ValueError(
            f"attention_stages must lie in 1..{count} for this network; got {wrong}."
        )
    if attention is not None and not stages:
        raise ValueError(
            "An attention layer was given but attention_stages is empty; name the"
            f" stages to put it after, e.g. attention_stages=({count},)."
        )
