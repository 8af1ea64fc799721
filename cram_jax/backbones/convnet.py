"""A small network for images of 32 to 64 pixels, cheap enough for a CPU (ours)."""

from __future__ import annotations

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.backbones import blocks, image_checks
from cram_jax.backbones.published import Naming, Published, has_module, own_name
from cram_jax.backbones.stages import Stage, Step
from cram_jax.checks import check_count
from cram_jax.heads.classifier import Classifier
from cram_jax.numerics import Dtype


class ConvNet(nn.Module):
    """Stages of small convolutions with BatchNorm, then one dense layer.

    Each stage starts with a strided convolution. With the defaults the three stages of
    a 48x48 image have 24, 12 and 6 pixels a side, see 8, 22 and 50 pixels of it, and
    the forward pass of a gray image costs 13.0 MFLOP (a multiplication and an addition
    are two).

    Attributes:
      num_classes: number of logits.
      attention: factory of the attention layer, or None for the bare network.
      attention_stages: stages, counted from 1, that the layer follows.
      widths: channels of each stage.
      strides: step of each stage's first convolution.
      convolutions: number of convolutions in each stage.
      axis_name: pmap axis over which to average BatchNorm's statistics, or None.
      freeze_norm: BatchNorm uses its running statistics in training too (that of the
        attention layers does not): for weights trained elsewhere, and small batches.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    num_classes: int
    attention: blocks.AttentionFactory | None = None
    attention_stages: tuple[int, ...] = ()
    widths: tuple[int, ...] = (16, 32, 64)
    strides: tuple[int, ...] = (2, 2, 2)
    convolutions: tuple[int, ...] = (2, 2, 2)
    axis_name: str | None = None
    freeze_norm: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self):
        """Makes the head; the stages are made where they are used."""
        if not len(self.widths) == len(self.strides) == len(self.convolutions):
            raise ValueError(
                "ConvNet needs one width, one stride and one number of convolutions"
                f" for each stage; got widths {self.widths}, strides {self.strides}"
                f" and convolutions {self.convolutions}."
            )
        for name in ("widths", "strides", "convolutions"):
            for count in getattr(self, name):
                check_count(f"each of {name}", count)
        image_checks.check_attention_stages(
            self.attention, self.attention_stages, len(self.widths)
        )
        self.head = Classifier(self.num_classes, param_dtype=self.param_dtype)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Strided steps, channels and modules of each map."""
        sizes = zip(self.strides, self.widths, strict=True)
        return tuple(
            Stage(
                steps=(Step(stride + 2, stride, (stride + 1) // 2),),
                channels=width,
                modules=(f"stage{stage}", f"attention{stage}"),
            )
            for stage, (stride, width) in enumerate(sizes, start=1)
        )

    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Classifies.

        Args:
          images: `[..., H, W, C]`, floating point, normalised.
          train: whether BatchNorm uses (and updates) the batch's statistics.

        Returns:
          Float32 logits `[..., num_classes]`.

        Raises:
          ValueError: for images of wrong rank, size, channels or dtype, and for
            attention stages that the network does not have.
        """
        return self.head(self.features(images, train=train)[-1])

    @nn.compact
    def features(
        self, images: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, ...]:
        """The map after each stage (and its attention), shallow to deep."""
        image_checks.check_images(images)
        image_checks.check_sides("ConvNet", images, self.stages)
        image_checks.check_channels(self, images, "stage1_conv1", "conv")
        settings = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        conv = functools.partial(
            blocks.ConvNorm,
            axis_name=self.axis_name,
            freeze_norm=self.freeze_norm,
            **settings,
        )
        features, maps = images, []
        stages = zip(self.widths, self.strides, self.convolutions, strict=True)
        for stage, (width, stride, convolutions) in enumerate(stages, start=1):
            for index in range(convolutions):
                step = stride if index == 0 else 1
                # With 3 taps a strided convolution looks half a step to the left of
                # and above its pixel's centre, and the next stage again: a rectangle
                # seen in the features would sit beside its object. With step + 2
                # taps and one pixel of padding, centres stay centres.
                features = conv(
                    width,
                    kernel=step + 2,
                    strides=step,
                    name=f"stage{stage}_conv{index + 1}",
                )(features, train=train)
            if self.attention is not None and stage in self.attention_stages:
                layer = self.attention(name=f"attention{stage}", **settings)
                features = layer(features, train=train)
            maps.append(features)
        return tuple(maps)


NETWORKS = {"convnet": ConvNet}
# Nobody else has this network: its files keep our names and our layout.
PUBLISHED: dict[str, Published] = {}
NAMINGS = (
    Naming(
        has_module("stage1_conv1"),
        "stage1_conv1.conv.kernel",
        own_name,
        head=("head.",),
        ours=True,
    ),
)
