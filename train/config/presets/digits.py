"""The presets on the embedded cluttered digits."""

from __future__ import annotations

import dataclasses

from train.config.attention import BudgetConfig, EquivarianceConfig, SharpnessConfig
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import OutputConfig
from train.config.run import FitConfig
from train.config.task import TaskConfig


def digits() -> FitConfig:
    """Cluttered digits, 48 x 48: a small network that learns where the digit is.

    Class labels only, and a target for the masks' mean area. Each image is also shown
    rotated, scaled and shifted, with its class, and the rectangle is asked to move
    along. The predictor learns five times as fast as the rest; edges go from soft to
    sharp over the first 60% of the steps.

    Command: python -m train fit --preset digits --workdir runs/digits
    Results: results/digits_budget.md (python -m benchmarks.digits --studies budget)
    """
    return FitConfig(
        epochs=5.0,
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
        budget=BudgetConfig(area=0.12),
        output=OutputConfig(log_every=50, evaluate_every=1.0),
    )


def digits_small() -> FitConfig:
    """The digits preset in about 30 seconds, to see that everything works.

    With 3,000 images, each shown as it is only: in one run accuracy 0.64 where a guess
    has 0.1, and an IoU of 0.41 with the true rectangle.

    Command: python -m train fit --preset digits-small --workdir runs/small
    """
    return dataclasses.replace(
        digits(),
        batch_size=32,
        data=DataConfig(name="digits", train_examples=3000, eval_examples=500),
        equivariance=EquivarianceConfig(),
        budget=BudgetConfig(),
    )


def digits_segment() -> FitConfig:
    """Cluttered digits, 48 x 48: the digit's ink against everything else.

    Command: python -m train fit --preset digits-segment --workdir runs/digits-segment
    Results: results/segmentation.md (python -m benchmarks.segmentation)
    """
    recipe = digits()
    return dataclasses.replace(
        recipe,
        epochs=2.0,
        task=TaskConfig(name="segmentation"),
        model=dataclasses.replace(recipe.model, attention_stages=(3,)),
        equivariance=EquivarianceConfig(),
        budget=BudgetConfig(),
    )
