"""Named experiments: complete configs with what they should give."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable

from train.config import (
    EquivarianceConfig,
    FitConfig,
    ModelConfig,
    OptimizerConfig,
    OutputConfig,
    SharpnessConfig,
)
from train.data_config import DataConfig
from train.errors import choose


def digits() -> FitConfig:
    """Cluttered digits, 48 x 48: a small network that learns where the digit is.

    Class labels only. Each image is also shown rotated, scaled and shifted, with its
    class, and the rectangle is asked to move along. The predictor learns five times as
    fast as the rest; edges go from soft to sharp over the first 60% of the steps.

    Command: python -m train fit --preset digits --workdir runs/digits
    Results: results/digits.md (python -m benchmarks.digits)
    """
    return FitConfig(
        epochs=6.0,
        batch_size=64,
        data=DataConfig(name="digits"),
        model=ModelConfig(
            backbone="convnet", attention="rectangular", attention_stages=(2,)
        ),
        optimizer=OptimizerConfig(
            name="adamw", learning_rate=3e-3, predictor_scale=5.0, weight_decay=0.01
        ),
        sharpness=SharpnessConfig(start=5.0, end=12.0, anneal_fraction=0.6),
        equivariance=EquivarianceConfig(
            weight=0.3, max_angle=0.4, max_shift=0.3, classify_moved=True
        ),
        output=OutputConfig(log_every=50, evaluate_every=1.0),
    )


def digits_small() -> FitConfig:
    """The digits preset in about 20 seconds, to see that everything works.

    Command: python -m train fit --preset digits-small --workdir runs/small
    """
    return dataclasses.replace(
        digits(),
        epochs=2.0,
        data=DataConfig(name="digits", train_examples=2000, eval_examples=500),
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
