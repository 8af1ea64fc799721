"""Convolutional networks with slots for an attention layer, and a table of them.

A backbone is called as `Backbone(num_classes, attention=factory, attention_stages=(2,),
dtype=None, param_dtype=jnp.float32)`; it maps images `[..., H, W, C]` to float32 logits
`[..., num_classes]`, and its method `features` returns the map of every stage.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import flax.linen as nn

from cram_jax.backbones.convnet import ConvNet
from cram_jax.backbones.convnext import ConvNeXt
from cram_jax.backbones.efficientnet import EFFICIENTNETS
from cram_jax.backbones.mobilenet import MOBILENETS
from cram_jax.backbones.resnet import ResNet
from cram_jax.checks import choose

_RESNETS = {
    "resnet18": functools.partial(ResNet, depths=(2, 2, 2, 2)),
    "resnet34": functools.partial(ResNet, depths=(3, 4, 6, 3)),
    "resnet50": functools.partial(ResNet, depths=(3, 4, 6, 3), bottleneck=True),
    "resnet101": functools.partial(ResNet, depths=(3, 4, 23, 3), bottleneck=True),
}

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    "convnet": ConvNet,
    **_RESNETS,
    # For images of 32 to 64 pixels: the stem neither strides nor pools.
    **{
        f"{name}-small": functools.partial(network, stem="small")
        for name, network in _RESNETS.items()
    },
    **MOBILENETS,
    **EFFICIENTNETS,
    "convnext-tiny": ConvNeXt,
}


def backbone(name: str) -> Callable[..., nn.Module]:
    """The constructor of the named backbone, e.g. `backbone("resnet18")(10)`.

    Raises:
      ValueError: for an unknown name, with the names there are.
    """
    return BACKBONES[choose("backbone", name, BACKBONES)]
