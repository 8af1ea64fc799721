"""The maps of several stages merged into one, from the deepest to a shallow one (ours).

In the manner of feature pyramids (Lin et al. 2017, section 3): each map goes through a
1x1 convolution (*lateral*), the deeper one is enlarged to its size and added, and a 3x3
convolution smooths the sum. Heads that give numbers at positions stand on the result.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["AttentionFactory", "enlarge", "merge_top_down"]

AttentionFactory = Callable[..., nn.Module]
_GROUPS = 8


def enlarge(features: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear `[..., h, w, C] -> [..., height, width, C]`."""
    shape = (*features.shape[:-3], height, width, features.shape[-1])
    return features if shape == features.shape else _resized(features, shape)


def _resized(features: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # A half float's weights would lose the place between two pixels.
    wide = jax.image.resize(at_least_float32(features), shape, "bilinear")
    return wide.astype(features.dtype)


def merge_top_down(
    maps: Sequence[jax.Array],
    *,
    width: int,
    down_to: int = 1,
    attention: AttentionFactory | None = None,
    attention_stages: tuple[int, ...] = (),
    train: bool = False,
    dtype: Dtype | None = None,
    param_dtype: Dtype,
) -> jax.Array:
    """Merges maps `[..., h, w, C]`, shallow to deep, on that of the stage `down_to`.

    The layers "lateralN", "smoothN", "normN" and "attentionN" of each stage N belong to
    the compact module that calls this. GroupNorm (Wu and He 2018) sees one image at a
    time, so that neither the batch nor the number of devices matters.

    Args:
      maps: one for each stage.
      width: channels of the result; a multiple of 8.
      down_to: the shallowest stage that takes part, counted from 1.
      attention: factory of a layer behind the lateral convolution of a stage, before
        the deeper map is added, or None.
      attention_stages: stages that get the layer.
      train: passed on to the attention layers.
      dtype: the computation's dtype (default: that of maps and parameters).
      param_dtype: the parameters' dtype.

    Returns:
      `[..., h, w, width]` on the map of the stage `down_to`.

    Raises:
      ValueError: without a map, for a wrong width, and stages that there are not.
    """
    _check(maps, width, down_to, attention_stages if attention is not None else ())
    settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
    conv = functools.partial(nn.Conv, width, **settings)
    merged: Any = None
    for stage in range(len(maps), down_to - 1, -1):
        skip = conv((1, 1), name=f"lateral{stage}")(maps[stage - 1])
        if attention is not None and stage in attention_stages:
            skip = attention(name=f"attention{stage}", **settings)(skip, train=train)
        if merged is not None:
            skip = skip + enlarge(merged, *skip.shape[-3:-1])
        smooth = conv((3, 3), use_bias=False, name=f"smooth{stage}")(skip)
        norm = nn.GroupNorm(_GROUPS, name=f"norm{stage}", **settings)
        # GroupNorm takes every axis but the first for the image's.
        batch = smooth.reshape(-1, *smooth.shape[-3:])
        merged = nn.relu(norm(batch)).reshape(smooth.shape)
    return merged


def _check(
    maps: Sequence[jax.Array], width: int, down_to: int, stages: tuple[int, ...]
) -> None:
    if not maps:
        raise ValueError("A decoder needs the map of one stage at least, got none.")
    if width < _GROUPS or width % _GROUPS:
        raise ValueError(
            f"width must be a multiple of {_GROUPS}, the groups of GroupNorm; got"
            f" {width}."
        )
    if not 1 <= down_to <= len(maps):
        raise ValueError(
            f"stage must be in 1 to {len(maps)}, the maps there are; got {down_to}."
        )
    if any(not down_to <= n <= len(maps) for n in stages):
        raise ValueError(
            f"attention_stages must be in {down_to} to {len(maps)}, the maps there are;"
            f" got {stages}."
        )
