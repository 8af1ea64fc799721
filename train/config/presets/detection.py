"""The presets of the task detection."""

from __future__ import annotations

import dataclasses

from train.config.attention import BudgetConfig
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import OutputConfig
from train.config.presets.photographs import photographs
from train.config.run import FitConfig
from train.config.task import TaskConfig


def digits_detect() -> FitConfig:
    """Many digits, 96 x 96: a small network finds each one, and how it is turned.

    One to eight whole digits among fragments of others; embedded, no download.

    Command: python -m train fit --preset digits-detect --workdir runs/many
    """
    return FitConfig(
        epochs=14.0,
        batch_size=32,
        data=DataConfig(name="many_digits"),
        task=TaskConfig(name="detection", max_objects=8, max_detections=30),
        model=ModelConfig(backbone="convnet", attention="none"),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=3e-3, weight_decay=0.01, warmup_fraction=0.05
        ),
        output=OutputConfig(log_every=100, evaluate_every=7.0),
    )


def uav_cars() -> FitConfig:
    """Cars and persons in 287 thermal aerial images, with rotated boxes.

    The folder is unpacked from uav_cars.zip; --data.name rotated:PATH names another.
    The encoder is EfficientNet-Lite0 with its ImageNet weights.

    Command: python -m train fit --preset uav-cars --workdir runs/uav
    """
    recipe = photographs()
    return dataclasses.replace(
        recipe,
        epochs=30.0,
        batch_size=8,
        data=DataConfig(
            name="rotated:data/uav_cars",
            validation=0.1,
            image_size=(256, 320),
            crop_area=(0.4, 1.0),
            flip=True,
            color_jitter=0.2,
        ),
        task=TaskConfig(
            name="detection", decoder="concat", decoder_width=32, detection_stage=3
        ),
        model=dataclasses.replace(
            recipe.model, attention="none", attention_fill="zero"
        ),
        optimizer=dataclasses.replace(
            recipe.optimizer,
            label_smoothing=0.0,
            freeze=r"^backbone/(stem|block[0-1]_)",
            scales=((r"^backbone/(block|last)", 0.1),),
        ),
        budget=BudgetConfig(),
        output=OutputConfig(log_every=20, evaluate_every=15.0),
    )
