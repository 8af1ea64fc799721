"""A vector of logits per pixel of the image, from the maps of all stages (ours).

A light top-down decoder in the manner of feature pyramids (Lin et al. 2017, section 3):
each map goes through a 1x1 convolution (*lateral*), the deeper one is enlarged to its
size and added, and a 3x3 convolution smooths the sum.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.checks import check_count
from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["SegmentationDecoder", "Segmenter", "enlarge"]

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


class SegmentationDecoder(nn.Module):
    """Maps of all stages `[..., h, w, C]` to logits `[..., h, w, num_classes]`.

    The logits lie on the first, largest map; `Segmenter` enlarges them to the image.

    The normalisation is GroupNorm (Wu and He 2018): it sees one image at a time, so
    that neither the batch nor the number of devices matters. The logits are float32,
    whatever the dtype of the maps.

    Attributes:
      num_classes: number of logits of each pixel.
      width: channels of the decoder; a multiple of 8.
      attention: factory of a layer on the skips (behind the lateral convolution of a
        stage, before the deeper map is added), or None.
      attention_stages: stages, counted from 1, that get the layer; "attentionN".
      dtype: the computation's dtype (default: that of maps and parameters).
      param_dtype: the parameters' dtype.
    """

    num_classes: int
    width: int = 32
    attention: AttentionFactory | None = None
    attention_stages: tuple[int, ...] = ()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], *, train: bool = False) -> jax.Array:
        """Decodes.

        Args:
          maps: one for each stage, shallow to deep.
          train: passed on to the attention layers.

        Raises:
          ValueError: without a map, for a width that is no multiple of 8, and for
            attention stages that there are not.
        """
        self._check(maps)
        settings: dict[str, Any] = {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
        }
        conv = functools.partial(nn.Conv, self.width, **settings)
        merged: Any = None
        for stage in range(len(maps), 0, -1):
            skip = conv((1, 1), name=f"lateral{stage}")(maps[stage - 1])
            if self.attention is not None and stage in self.attention_stages:
                layer = self.attention(name=f"attention{stage}", **settings)
                skip = layer(skip, train=train)
            if merged is not None:
                skip = skip + enlarge(merged, *skip.shape[-3:-1])
            smooth = conv((3, 3), use_bias=False, name=f"smooth{stage}")(skip)
            norm = nn.GroupNorm(_GROUPS, name=f"norm{stage}", **settings)
            # GroupNorm takes every axis but the first for the image's.
            batch = smooth.reshape(-1, *smooth.shape[-3:])
            merged = nn.relu(norm(batch)).reshape(smooth.shape)
        # A softmax over half floats loses the small probabilities.
        wide = at_least_float32(merged)
        settings["dtype"] = wide.dtype
        return nn.Conv(self.num_classes, (1, 1), name="logits", **settings)(wide)

    def _check(self, maps: Sequence[jax.Array]) -> None:
        check_count("num_classes", self.num_classes)
        if not maps:
            raise ValueError("A decoder needs the map of one stage at least, got none.")
        if self.width < _GROUPS or self.width % _GROUPS:
            raise ValueError(
                f"width must be a multiple of {_GROUPS}, the groups of GroupNorm;"
                f" got {self.width}."
            )
        unknown = [n for n in self.attention_stages if not 1 <= n <= len(maps)]
        if self.attention is not None and unknown:
            raise ValueError(
                f"attention_stages must be in 1 to {len(maps)}, the maps there are;"
                f" got {self.attention_stages}."
            )


class Segmenter(nn.Module):
    """A backbone and the decoder of its maps: images to logits of each pixel.

    Torch's weights are loaded into the backbone, and the evidence of its attention
    layers is put on the image, as without the decoder.

    Attributes:
      backbone: a network with `features(images, train=)`; see `cram_jax.backbones`.
      decoder: what stands on its maps.
    """

    backbone: nn.Module
    decoder: SegmentationDecoder

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Segments images `[..., H, W, C]`: float32 logits `[..., H, W, classes]`."""
        features: Callable[..., Sequence[jax.Array]] = self.backbone.features
        maps = features(images, train=train)
        return enlarge(self.decoder(maps, train=train), *images.shape[-3:-1])
