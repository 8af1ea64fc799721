"""MobileNetV3 (Howard et al. 2019, tables 1 and 2), as torchvision and timm have it."""

from __future__ import annotations

import functools

import flax.linen as nn

from cram_jax.backbones.blocks import round_channels
from cram_jax.backbones.inverted import BlockSpec, InvertedResidualNet
from cram_jax.backbones.inverted_names import (
    is_mobilenet,
    timm_name,
    torchvision_name,
)
from cram_jax.backbones.published import Naming, Published

# Rows: kernel, expanded, features, squeeze-and-excite, hard swish, strides.
_LARGE = (
    ((3, 16, 16, False, False, 1),),
    ((3, 64, 24, False, False, 2), (3, 72, 24, False, False, 1)),
    ((5, 72, 40, True, False, 2), *[(5, 120, 40, True, False, 1)] * 2),
    (
        (3, 240, 80, False, True, 2),
        (3, 200, 80, False, True, 1),
        *[(3, 184, 80, False, True, 1)] * 2,
    ),
    ((3, 480, 112, True, True, 1), (3, 672, 112, True, True, 1)),
    ((5, 672, 160, True, True, 2), *[(5, 960, 160, True, True, 1)] * 2),
)
_SMALL = (
    ((3, 16, 16, True, False, 2),),
    ((3, 72, 24, False, False, 2), (3, 88, 24, False, False, 1)),
    ((5, 96, 40, True, True, 2), *[(5, 240, 40, True, True, 1)] * 2),
    ((5, 120, 48, True, True, 1), (5, 144, 48, True, True, 1)),
    ((5, 288, 96, True, True, 2), *[(5, 576, 96, True, True, 1)] * 2),
)


def _spec(kernel, expanded, features, squeeze, hard_swish, strides) -> BlockSpec:
    return BlockSpec(
        kernel=kernel,
        strides=strides,
        expanded=expanded,
        features=features,
        squeezed=round_channels(expanded // 4) if squeeze else 0,
        activation=nn.hard_swish if hard_swish else nn.relu,
    )


def _network(table, *, last_width: int, hidden: int) -> functools.partial:
    return functools.partial(
        InvertedResidualNet,
        stem_width=16,
        groups=tuple(tuple(_spec(*row) for row in group) for group in table),
        last_width=last_width,
        hidden=hidden,
        activation=nn.hard_swish,
        squeeze_activation=nn.relu,
        squeeze_gate=nn.hard_sigmoid,
        momentum=0.99,
        epsilon=1e-3,
    )


NETWORKS = {
    "mobilenetv3-small": _network(_SMALL, last_width=576, hidden=1024),
    "mobilenetv3-large": _network(_LARGE, last_width=960, hidden=1280),
}
PUBLISHED = {name: Published() for name in NETWORKS}
NAMINGS = (
    Naming(is_mobilenet, "features.0.0.weight", torchvision_name, ("classifier.",)),
    Naming(is_mobilenet, "conv_stem.weight", timm_name, ("conv_head.", "classifier.")),
)
