"""ConvNeXt (Liu et al. 2022, section 2), as torchvision and timm have it."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.backbones import blocks, image_checks
from cram_jax.geometry.batched import with_rank
from cram_jax.heads.classifier import Classifier
from cram_jax.numerics import Dtype

EPSILON = 1e-6
_KERNEL_INIT = nn.initializers.truncated_normal(0.02)


def _layer_norm(name: str, **dtypes: Any) -> nn.Module:
    # The two-pass variance is torch's; the fast one cancels where means are large.
    return nn.LayerNorm(EPSILON, use_fast_variance=False, name=name, **dtypes)


class ConvNeXtBlock(nn.Module):
    """`x + scale * project(gelu(expand(norm(depthwise7x7(x)))))`.

    Attributes:
      layer_scale: initial value of the learned scale of each channel.
      dtype: of the computation (default: that of input and parameters).
      param_dtype: of the parameters.
    """

    layer_scale: float = 1e-6
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns features of the shape of its input `[..., H, W, C]`."""
        channels = features.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        init = {"kernel_init": _KERNEL_INIT}
        branch = blocks.DepthwiseConv(
            7, use_bias=True, name="depthwise", **init, **dtypes
        )(features)
        branch = _layer_norm("norm", **dtypes)(branch)
        branch = nn.Dense(4 * channels, name="expand", **init, **dtypes)(branch)
        branch = nn.gelu(branch, approximate=False)
        branch = nn.Dense(channels, name="project", **init, **dtypes)(branch)
        start = nn.initializers.constant(self.layer_scale)
        scale = self.param("layer_scale", start, (channels,), self.param_dtype)
        scale = with_rank(scale.astype(branch.dtype), branch.ndim)
        return features + scale * branch


class ConvNeXt(nn.Module):
    """Four stages of ConvNeXt blocks at strides 4, 8, 16 and 32.

    Training has no stochastic depth. There is no BatchNorm, hence no "batch_stats".

    Attributes:
      num_classes: number of logits.
      attention: factory of the attention layer, or None for the bare network.
      attention_stages: stages, counted from 1, that the layer follows.
      depths: blocks in each stage.
      widths: channels of each stage.
      axis_name: unused; nothing is averaged over a batch.
      freeze_norm: unused; there are no statistics to freeze.
      dtype: of the computation (default: that of input and parameters).
      param_dtype: of the parameters.
    """

    num_classes: int
    attention: blocks.AttentionFactory | None = None
    attention_stages: tuple[int, ...] = ()
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    axis_name: str | None = None
    freeze_norm: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self):
        """Makes the head; the stages are made where they are used."""
        if len(self.widths) != len(self.depths):
            raise ValueError(
                "ConvNeXt needs one depth and one width for each stage; got depths"
                f" {self.depths} and widths {self.widths}."
            )
        image_checks.check_attention_stages(
            self.attention, self.attention_stages, len(self.depths)
        )
        self.head = Classifier(
            self.num_classes, norm_epsilon=EPSILON, param_dtype=self.param_dtype
        )

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classifies.

        Args:
          images: `[..., H, W, C]`, at least 32 pixels a side, floating point,
            normalised.
          train: passed on to the attention layers; nothing else depends on it.

        Returns:
          Float32 logits `[..., num_classes]`.

        Raises:
          ValueError: for images of wrong rank, size, channels or dtype, and
            for attention stages that the network does not have.
        """
        return self.head(self.features(images, train=train)[-1])

    @nn.compact
    def features(
        self, images: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """The map after each stage (and its attention), shallow to deep."""
        image_checks.check_images(images)
        steps = [(4, 4, 0)] + [(2, 2, 0)] * (len(self.depths) - 1)
        image_checks.check_sides("ConvNeXt", images, image_checks.least_side(steps))
        image_checks.check_channels(self, images, "stem_conv")
        settings = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = functools.partial(
            nn.Conv, padding="VALID", kernel_init=_KERNEL_INIT, **settings
        )
        features = conv(self.widths[0], (4, 4), 4, name="stem_conv")(images)
        features, maps = _layer_norm("stem_norm", **settings)(features), []
        for stage, (depth, width) in enumerate(
            zip(self.depths, self.widths, strict=True), start=1
        ):
            if stage > 1:
                features = _layer_norm(f"shrink{stage}_norm", **settings)(features)
                shrink = conv(width, (2, 2), 2, name=f"shrink{stage}_conv")
                features = shrink(features)
            for index in range(depth):
                block = ConvNeXtBlock(name=f"stage{stage}_{index}", **settings)
                features = block(features)
            if self.attention is not None and stage in self.attention_stages:
                layer = self.attention(name=f"attention{stage}", **settings)
                features = layer(features, train=train)
            maps.append(features)
        return tuple(maps)
