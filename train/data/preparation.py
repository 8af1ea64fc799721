"""How images are prepared for a network: as they were where its weights come from."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from cram_jax.backbones.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    preprocessing,
)
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.run import FitConfig

Statistics = tuple[tuple[float, ...], tuple[float, ...]]


def channel_statistics(model: ModelConfig, channels: int) -> Statistics:
    """Mean and standard deviation of each channel, in units of full scale.

    Those of the pretrained weights, else ImageNet's, for gray images their average.
    """
    if channels != 3:
        gray = sum(IMAGENET_MEAN) / 3, sum(IMAGENET_STD) / 3
        return (round(gray[0], 3),) * channels, (round(gray[1], 3),) * channels
    if model.pretrained is None:
        return IMAGENET_MEAN, IMAGENET_STD
    source = preprocessing(model.backbone)
    return source.mean, source.std


def with_source_interpolation(config: FitConfig) -> DataConfig:
    """The data config with the resize that the network expects, if none is chosen."""
    chosen = config.data.interpolation
    if chosen is None:
        pretrained = config.model.pretrained is not None
        source = preprocessing(config.model.backbone)
        chosen = source.interpolation if pretrained else "bilinear"
    return dataclasses.replace(config.data, interpolation=chosen)


def unit_range(images: jax.Array) -> jax.Array:
    """uint8 images to float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0
