"""How the images were prepared on which the published ImageNet weights were trained."""

from __future__ import annotations

import dataclasses
from typing import Literal

from cram_jax.backbones.weights import PACKAGED

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What to do with an image before it enters a pretrained network.

    Attributes:
      mean: of each channel, in units of full scale; subtracted.
      std: of each channel, in units of full scale; divided by.
      interpolation: of the resize ("bilinear" or "bicubic", antialiased as Pillow's).
      size: side of the square network input in pixels.
      crop: side of the central crop in evaluation, as a share of the shorter side.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    size: int = 224
    crop: float = 0.875


def _efficientnet(size: int, resized: int) -> Preprocessing:
    return Preprocessing(interpolation="bicubic", size=size, crop=size / resized)


def _lite(size: int) -> Preprocessing:
    mean, std = 127 / 255, 128 / 255
    channels = (mean, mean, mean), (std, std, std)
    return Preprocessing(*channels, "bicubic", size, size / (size + 32))


_SPECIAL = {
    # Torchvision's IMAGENET1K_V1 weights.
    "efficientnet-b0": _efficientnet(224, 256),
    "efficientnet-b1": _efficientnet(240, 256),
    "efficientnet-b2": _efficientnet(288, 288),
    "convnext-tiny": Preprocessing(crop=224 / 236),
    # TensorFlow's, from which those of the packages were converted.
    **dict(zip(PACKAGED, map(_lite, (224, 240, 260)), strict=True)),
}


def preprocessing(name: str) -> Preprocessing:
    """That of the published weights of a backbone.

    For EfficientNet-Lite it is TensorFlow's (its `efficientnet_lite_builder`), for all
    others that of torchvision's first ImageNet weights. Timm's weights have the same
    mean and standard deviation but mostly "bicubic".

    Args:
      name: of the backbone, e.g. "resnet50".
    """
    return _SPECIAL.get(name, Preprocessing())
