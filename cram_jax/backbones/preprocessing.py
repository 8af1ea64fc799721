"""How images were prepared for the published ImageNet weights of a network."""

from __future__ import annotations

from cram_jax.backbones.published import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Preprocessing,
    Published,
)
from cram_jax.backbones.registry import PUBLISHED

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Preprocessing", "preprocessing"]


def preprocessing(name: str) -> Preprocessing:
    """How images were prepared for the published weights of a backbone.

    For EfficientNet-Lite that is TensorFlow's way, for all others that of torchvision's
    first ImageNet weights. Timm's weights have the same mean and standard deviation but
    mostly "bicubic". A network without published weights gets torchvision's usual way.

    Args:
      name: the backbone's name, e.g. "resnet50".
    """
    return PUBLISHED.get(name, Published()).preprocessing
