"""Residual networks (He et al. 2016) in their "v1.5" form, as torchvision has them."""

from __future__ import annotations

import functools
from collections.abc import Collection
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.attention.gate import follow_views
from cram_jax.backbones import blocks, image_checks
from cram_jax.backbones.published import (
    TORCH_LEAVES,
    Naming,
    Path,
    Published,
    has_module,
)
from cram_jax.backbones.stages import Stage, Step
from cram_jax.heads.classifier import Classifier
from cram_jax.numerics import Dtype

STEMS = ("imagenet", "small")


class ResidualBlock(nn.Module):
    """`relu(shortcut(x) + attention(branch(x)))`, basic or with a bottleneck.

    The branch is 3x3, 3x3 (basic) or 1x1, 3x3, 1x1 with four times the width at its end
    (bottleneck); the stride is that of the first 3x3, which is what "v1.5" means. The
    scale of the branch's last BatchNorm starts at zero, so that a block starts as its
    shortcut (Goyal et al. 2017, section 5.1).

    Attributes:
      width: channels of the 3x3 convolutions.
      bottleneck: which of the two branches.
      strides: step of the block.
      attention: factory of the layer at the branch's end, where CBAM and
        squeeze-and-excite sit, or None.
      axis_name: pmap axis over which to average BatchNorm's statistics, or None.
      freeze_norm: BatchNorm uses its running statistics in training too.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    width: int
    bottleneck: bool
    strides: int = 1
    attention: blocks.AttentionFactory | None = None
    axis_name: str | None = None
    freeze_norm: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the block's features, `[..., H, W, C] -> [..., H', W', C']`."""
        settings = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = functools.partial(
            blocks.ConvNorm,
            axis_name=self.axis_name,
            freeze_norm=self.freeze_norm,
            **settings,
        )
        last = functools.partial(
            conv, activation=None, scale_init=nn.initializers.zeros
        )
        if self.bottleneck:
            channels = 4 * self.width
            layers = [
                conv(self.width, 1, name="conv1"),
                conv(self.width, 3, self.strides, name="conv2"),
                last(channels, 1, name="conv3"),
            ]
        else:
            channels = self.width
            layers = [
                conv(self.width, 3, self.strides, name="conv1"),
                last(channels, 3, name="conv2"),
            ]
        branch = features
        for layer in layers:
            branch = layer(branch, train=train)
        if self.attention is not None:
            layer = self.attention(name="attention", **settings)
            branch = layer(branch, train=train)
        if self.strides != 1 or features.shape[-1] != channels:
            features = conv(
                channels, 1, self.strides, activation=None, name="downsample"
            )(features, train=train)
        return nn.relu(follow_views(features, branch) + branch)


class ResNet(nn.Module):
    """ResNet "v1.5" with four stages; numerically torchvision's, given its weights.

    Attributes:
      num_classes: number of logits.
      attention: factory of the attention layer, or None for the bare network.
      attention_stages: stages, counted from 1, that get the layer.
      attention_in_blocks: whether the layer sits inside every residual block of those
        stages (after the branch's last BatchNorm, before the addition), rather than
        once, after the stage.
      depths: residual blocks in each stage.
      bottleneck: whether blocks are 1x1, 3x3, 1x1 rather than 3x3, 3x3.
      stem: "imagenet" (7x7 of stride 2, then max pooling of stride 2: stage 1 has
        stride 4) or "small" (3x3 of stride 1: stage 1 has the image's size).
      axis_name: pmap axis over which to average BatchNorm's statistics, or None.
      freeze_norm: BatchNorm uses its running statistics in training too (that of the
        attention layers does not): for weights trained elsewhere, and small batches.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    num_classes: int
    attention: blocks.AttentionFactory | None = None
    attention_stages: tuple[int, ...] = ()
    attention_in_blocks: bool = False
    depths: tuple[int, ...] = (2, 2, 2, 2)
    bottleneck: bool = False
    stem: Literal["imagenet", "small"] = "imagenet"
    axis_name: str | None = None
    freeze_norm: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self):
        """Makes the head; the stages are made where they are used."""
        if self.stem not in STEMS:
            raise ValueError(f"stem must be one of {STEMS}; got {self.stem!r}.")
        image_checks.check_attention_stages(
            self.attention, self.attention_stages, len(self.depths)
        )
        self.head = Classifier(self.num_classes, param_dtype=self.param_dtype)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Strided steps, channels and modules of each map."""
        stem = (Step(7, 2, 3), Step(3, 2, 1)) if self.stem == "imagenet" else ()
        widening = 4 if self.bottleneck else 1
        return tuple(
            Stage(
                steps=(Step(3, 2, 1),) if stage > 1 else stem,
                channels=64 * 2 ** (stage - 1) * widening,
                modules=(f"layer{stage}", f"attention{stage}"),
            )
            for stage in range(1, len(self.depths) + 1)
        )

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classifies.

        Args:
          images: `[..., H, W, C]`, floating point, normalised.
          train: whether BatchNorm uses (and updates) the batch's statistics.

        Returns:
          Float32 logits `[..., num_classes]`.

        Raises:
          ValueError: for images of wrong rank, channels or dtype, for an unknown
            stem, and for attention stages that the network does not have.
        """
        return self.head(self.features(images, train=train)[-1])

    @nn.compact
    def features(
        self, images: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """The map after each stage (and its attention), shallow to deep."""
        image_checks.check_images(images)
        image_checks.check_channels(self, images, "stem", "conv")
        settings = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        block = functools.partial(
            ResidualBlock,
            bottleneck=self.bottleneck,
            axis_name=self.axis_name,
            freeze_norm=self.freeze_norm,
            **settings,
        )
        features, maps = self._stem(images, train=train), []
        for stage, depth in enumerate(self.depths, start=1):
            attention = self.attention if stage in self.attention_stages else None
            inside = attention if self.attention_in_blocks else None
            after = None if self.attention_in_blocks else attention
            for index in range(depth):
                features = block(
                    64 * 2 ** (stage - 1),
                    strides=2 if stage > 1 and index == 0 else 1,
                    attention=inside,
                    name=f"layer{stage}_{index}",
                )(features, train=train)
            if after is not None:
                layer = after(name=f"attention{stage}", **settings)
                features = layer(features, train=train)
            maps.append(features)
        return tuple(maps)

    def _stem(self, images: jax.Array, *, train: bool) -> jax.Array:
        imagenet = self.stem == "imagenet"
        features = blocks.ConvNorm(
            64,
            kernel=7 if imagenet else 3,
            strides=2 if imagenet else 1,
            axis_name=self.axis_name,
            freeze_norm=self.freeze_norm,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="stem",
        )(images, train=train)
        if not imagenet:
            return features
        return blocks.max_pool(features, window=3, strides=2)


def torch_name(path: Path, modules: Collection[Path]) -> str:
    """Torchvision's and timm's names of a ResNet's leaves."""
    del modules
    *module, leaf = path
    if module[0] == "head":
        name = "fc"
    elif module[0] == "stem":
        name = "conv1" if module[1] == "conv" else "bn1"
    else:
        block = module[0].replace("_", ".")
        conv, part = module[1], module[2]
        if conv == "downsample":
            name = f"{block}.downsample.{0 if part == 'conv' else 1}"
        else:
            name = f"{block}.{conv if part == 'conv' else conv.replace('conv', 'bn')}"
    return f"{name}.{TORCH_LEAVES[leaf]}"


_LARGE = {
    "resnet18": functools.partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": functools.partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet50": functools.partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True),
    "resnet101": functools.partial(ResNet, depths=(3, 4, 23, 3), bottleneck=True),
}
# For images of 32 to 64 pixels: the stem neither strides nor pools.
_SMALL = {
    f"{name}-small": functools.partial(network, stem="small")
    for name, network in _LARGE.items()
}
NETWORKS = _LARGE | _SMALL
PUBLISHED = {name: Published() for name in _LARGE}
NAMINGS = (Naming(has_module("layer1_0"), "conv1.weight", torch_name, ("fc.",)),)
