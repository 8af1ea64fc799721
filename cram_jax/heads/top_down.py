"""The maps of several stages merged into one, from the deepest to a shallow one (ours).

Heads that give numbers at positions stand on the result. There are two ways to merge:

* "sum", in the manner of feature pyramids (Lin et al. 2017, section 3): each map goes
  through a 1x1 convolution (*lateral*), the deeper one is enlarged to its size and
  added, and a 3x3 convolution smooths the sum. All have the same number of channels.
* "concat", in the manner of a U-Net (Ronneberger et al. 2015, section 2): the deeper
  one is enlarged and put beside the map, and a 3x3 convolution joins them. Channels
  double with each deeper stage, so that every stage costs about the same.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.checks import choose
from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["MERGES", "AttentionFactory", "enlarge", "merge_top_down"]

AttentionFactory = Callable[..., nn.Module]
_JOIN: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "sum": jnp.add,
    "concat": lambda skip, deeper: jnp.concatenate([skip, deeper], axis=-1),
}
MERGES = tuple(_JOIN)
_GROUPS = 8
# Deeper stages have no more than this many times the channels of the result.
_LARGEST_GROWTH = 8


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
    merge: str = "sum",
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
      merge: "sum" or "concat"; "concat" has no lateral convolutions.
      down_to: the shallowest stage that takes part, counted from 1.
      attention: factory of a layer on what is taken of a stage, or None.
      attention_stages: stages that get it.
      train: passed on to it.
      dtype: the computation's dtype (default: that of maps and parameters).
      param_dtype: the parameters' dtype.

    Raises:
      ValueError: without a map, for a wrong width, merge or stage.
    """
    choose("merge", merge, MERGES)
    _check(maps, width, down_to, attention_stages if attention is not None else ())
    settings: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype}
    merged: Any = None
    for stage in range(len(maps), down_to - 1, -1):
        channels = _channels(width, merge, stage - down_to)
        conv = functools.partial(nn.Conv, channels, **settings)
        skip = maps[stage - 1]
        if merge == "sum":
            skip = conv((1, 1), name=f"lateral{stage}")(skip)
        if attention is not None and stage in attention_stages:
            skip = attention(name=f"attention{stage}", **settings)(skip, train=train)
        if merged is not None:
            skip = _JOIN[merge](skip, enlarge(merged, *skip.shape[-3:-1]))
        smooth = conv((3, 3), use_bias=False, name=f"smooth{stage}")(skip)
        merged = _normalised(smooth, f"norm{stage}", **settings)
    return merged


def _channels(width: int, merge: str, deeper: int) -> int:
    """Channels of a stage that is so many stages deeper than the last one."""
    return width * min(2**deeper, _LARGEST_GROWTH) if merge == "concat" else width


def _normalised(features: jax.Array, name: str, **settings: Any) -> jax.Array:
    # GroupNorm takes every axis but the first for the image's.
    batch = features.reshape(-1, *features.shape[-3:])
    norm = nn.GroupNorm(_GROUPS, name=name, **settings)
    return nn.relu(norm(batch)).reshape(features.shape)


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
