"""A vector of logits per pixel of the image, from the maps of all stages (ours).

A light top-down decoder (`cram_jax.heads.top_down`) down to the first, largest map, and
a 1x1 convolution to logits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.checks import check_count
from cram_jax.heads.top_down import AttentionFactory, enlarge, merge_top_down
from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["SegmentationDecoder", "Segmenter"]


class SegmentationDecoder(nn.Module):
    """Maps of all stages `[..., h, w, C]` to logits `[..., h, w, num_classes]`.

    The logits lie on the first, largest map; `Segmenter` enlarges them to the image.

    The logits are float32, whatever the dtype of the maps.

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
        check_count("num_classes", self.num_classes)
        merged = merge_top_down(
            maps,
            width=self.width,
            attention=self.attention,
            attention_stages=self.attention_stages,
            train=train,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        # A softmax over half floats loses the small probabilities.
        wide = at_least_float32(merged)
        settings = {"dtype": wide.dtype, "param_dtype": self.param_dtype}
        return nn.Conv(self.num_classes, (1, 1), name="logits", **settings)(wide)


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
