"""ConvNeXt (Liu et al. 2022, section 2), as torchvision and timm have it."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.backbones import blocks, image_checks
from cram_jax.backbones.published import (
    TORCH_LEAVES,
    Naming,
    Path,
    Preprocessing,
    Published,
    has_module,
)
from cram_jax.backbones.stages import Stage, Step
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
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
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
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
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

    @property
    def stages(self) -> tuple[Stage, ...]:
        """Strided steps, channels and modules of each map."""
        return tuple(
            Stage(
                steps=(Step(2, 2, 0) if stage > 1 else Step(4, 4, 0),),
                channels=width,
                modules=(f"stage{stage}", f"attention{stage}"),
            )
            for stage, width in enumerate(self.widths, start=1)
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
        image_checks.check_sides("ConvNeXt", images, self.stages)
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


class _Names(NamedTuple):
    """What a library calls the parts of a ConvNeXt."""

    head: Mapping[str, str]
    stem: str
    shrink: Callable[[int], str]
    stage: Callable[[int], str]
    block: Mapping[str, str]


_TORCHVISION = _Names(
    head={"norm": "classifier.0", "dense": "classifier.2"},
    stem="features.0",
    shrink=lambda stage: f"features.{2 * stage - 2}",
    stage=lambda stage: f"features.{2 * stage - 1}",
    block={
        "layer_scale": "layer_scale",
        "depthwise": "block.0",
        "norm": "block.2",
        "expand": "block.3",
        "project": "block.5",
    },
)
_TIMM = _Names(
    head={"norm": "head.norm", "dense": "head.fc"},
    stem="stem",
    shrink=lambda stage: f"stages.{stage - 1}.downsample",
    stage=lambda stage: f"stages.{stage - 1}.blocks",
    block={
        "layer_scale": "gamma",
        "depthwise": "conv_dw",
        "norm": "norm",
        "expand": "mlp.fc1",
        "project": "mlp.fc2",
    },
)


def _leaf_name(names: _Names, path: Path, modules: Collection[Path]) -> str:
    """A library's name of one of a ConvNeXt's leaves."""
    del modules
    *module, leaf = path
    if module[0] == "head":
        name = names.head[module[1]]
    elif module[0].startswith("stem"):
        name = f"{names.stem}.{0 if module[0] == 'stem_conv' else 1}"
    elif found := re.fullmatch(r"shrink(\d+)_(norm|conv)", module[0]):
        name = f"{names.shrink(int(found[1]))}.{0 if found[2] == 'norm' else 1}"
    else:
        stage, index = module[0].removeprefix("stage").split("_")
        block = f"{names.stage(int(stage))}.{index}"
        if leaf == "layer_scale":
            return f"{block}.{names.block[leaf]}"
        name = f"{block}.{names.block[module[1]]}"
    return f"{name}.{TORCH_LEAVES[leaf]}"


torchvision_name = functools.partial(_leaf_name, _TORCHVISION)
timm_name = functools.partial(_leaf_name, _TIMM)
NETWORKS = {"convnext-tiny": ConvNeXt}
PUBLISHED = {"convnext-tiny": Published(Preprocessing(crop=224 / 236))}
_IS_OURS = has_module("stem_conv")
NAMINGS = (
    Naming(_IS_OURS, "features.0.0.weight", torchvision_name, ("classifier.",)),
    Naming(_IS_OURS, "stem.0.weight", timm_name, ("head.",)),
)
