"""Convolutional networks with slots for an attention layer, and a table of them.

A backbone is called as `Backbone(num_classes, attention=factory, attention_stages=(2,),
dtype=None, param_dtype=jnp.float32)`; it maps images `[..., H, W, C]` to float32 logits
`[..., num_classes]`, its method `features` returns the map of every stage, and its
property `stages` says what lies where (`cram_jax.backbones.stages`).

Files, each built on those before it: stages, published, depthwise, image_checks,
blocks, convnet, resnet, inverted, inverted_names, mobilenet, efficientnet, convnext,
registry, preprocessing, alignment, torch_file, weight_files, leaf_names,
weight_fitting, weights.
"""

from cram_jax.backbones.convnet import ConvNet
from cram_jax.backbones.convnext import ConvNeXt
from cram_jax.backbones.efficientnet import NETWORKS as EFFICIENTNETS
from cram_jax.backbones.mobilenet import NETWORKS as MOBILENETS
from cram_jax.backbones.registry import BACKBONES, backbone
from cram_jax.backbones.resnet import ResNet
from cram_jax.backbones.stages import Stage, Step
from cram_jax.backbones.weights import load_torch_weights

__all__ = [
    "BACKBONES",
    "EFFICIENTNETS",
    "MOBILENETS",
    "ConvNeXt",
    "ConvNet",
    "ResNet",
    "Stage",
    "Step",
    "backbone",
    "load_torch_weights",
]
