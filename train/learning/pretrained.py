"""Fine-tuning: weights from elsewhere, and images prepared as they were there."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cram_jax.backbones.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    preprocessing,
)
from cram_jax.backbones.weights import (
    PACKAGED,
    load_torch_weights,
    packaged_weights,
)
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.run import FitConfig
from train.errors import UserError

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


def check_freeze_norm(config: FitConfig) -> None:
    """Refuses to freeze BatchNorm's statistics where there are none to keep.

    Raises:
      UserError: for `freeze_norm` without pretrained weights.
    """
    if config.optimizer.freeze_norm and config.model.pretrained is None:
        raise UserError(
            "optimizer.freeze_norm keeps the statistics of pretrained weights, and"
            " model.pretrained names none: a network from scratch would be normalised"
            " by mean 0 and variance 1; leave it out."
        )


def load_pretrained(
    model: ModelConfig, variables: dict[str, Any], message: Callable[[str], None]
) -> dict[str, Any]:
    """The variables with the pretrained weights of the config in them.

    Attention layers keep their initial values, and so does a head of another number
    of classes than the file's.

    Args:
      model: names the weights.
      variables: initial "params" and "batch_stats".
      message: told what was loaded, left over and missing, like a diff.

    Raises:
      UserError: if the weights cannot be read or do not fit.
    """
    name = model.pretrained or ""
    try:
        path = packaged_weights(name) if name in PACKAGED else Path(name)
        loaded, report = load_torch_weights(path, variables, keep_head=None)
    except ValueError as error:
        raise UserError(f"model.pretrained: {error}") from error
    shown = [name for name in report.unused if not name.endswith("num_batches_tracked")]
    message(f"Weights {name}:\n{dataclasses.replace(report, unused=tuple(shown))}")
    return loaded
