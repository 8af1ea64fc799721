"""Named experiments: complete configs with what they should give."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from train.config import (
    CheckpointConfig,
    FitConfig,
    ModelConfig,
    OptimizerConfig,
    OutputConfig,
)
from train.data_config import DataConfig
from train.errors import choose


def digits() -> FitConfig:
    """Cluttered digits, 48 x 48: a small network that learns where the digit is.

    Command: python -m train fit --preset digits --workdir runs/digits
    """
    return FitConfig(
        epochs=20.0,
        batch_size=64,
        data=DataConfig(name="digits"),
        model=ModelConfig(
            backbone="convnet", attention="rectangular", attention_stages=(1,)
        ),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3),
        checkpoint=CheckpointConfig(),
        output=OutputConfig(log_every=50, evaluate_every=2.0),
    )


def digits_small() -> FitConfig:
    """The digits preset in about 20 seconds, to see that everything works.

    Command: python -m train fit --preset digits-small --workdir runs/small
    """
    return FitConfig(
        epochs=2.0,
        batch_size=64,
        data=DataConfig(name="digits", train_examples=2000, eval_examples=500),
        model=ModelConfig(backbone="convnet", attention_stages=(1,)),
        optimizer=OptimizerConfig(name="adamw", learning_rate=3e-3),
        output=OutputConfig(log_every=20, evaluate_every=1.0),
    )


PRESETS: dict[str, Callable[[], FitConfig]] = {
    "digits": digits,
    "digits-small": digits_small,
}


def preset(name: str) -> FitConfig:
    """The named config.

    Raises:
      UserError: for an unknown name, with the nearest and all names.
    """
    return PRESETS[choose("preset", name, PRESETS)]()


def summary(name: str) -> str:
    """The first sentence about a preset."""
    return (inspect.getdoc(PRESETS[name]) or "").splitlines()[0]
