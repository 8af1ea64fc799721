"""All attention layers by name, as the command line and the benchmarks know them.

Every layer maps `[..., H, W, C]` to the same shape and dtype, gathers its statistics in
at least float32, and sows what it multiplied by into "intermediates": "mask"
(`[..., H, W]`) where it tells positions apart, "channel_mask" (`[..., C]`) where it
tells channels apart. All raise ValueError for a wrong rank and for integer features.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

from flax import linen as nn

from cram_jax.attention.channel import (
    CoordinateAttention,
    EfficientChannelAttention,
    SqueezeExcite,
)
from cram_jax.attention.positionwise import (
    CBAM,
    PositionwiseAttention,
    SpatialChannelSqueezeExcite,
)
from cram_jax.attention.predictors import MomentPredictor, RegressionPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.checks import choose

__all__ = ["ATTENTIONS", "attention_factory", "shown_by"]

ATTENTIONS: dict[str, Callable[..., nn.Module] | None] = {
    "none": None,
    "rectangular": RectangularAttention,
    "rectangular-moment": functools.partial(
        RectangularAttention, predictor=MomentPredictor
    ),
    "rectangular-rotations": functools.partial(
        RectangularAttention, predictor=functools.partial(MomentPredictor, rotations=4)
    ),
    "rectangular-regression": functools.partial(
        RectangularAttention, predictor=RegressionPredictor
    ),
    "positionwise-pooled": functools.partial(PositionwiseAttention, form="pooled"),
    "positionwise-trunk": functools.partial(PositionwiseAttention, form="trunk"),
    "cbam": CBAM,
    "squeeze-excite": SqueezeExcite,
    "scse": SpatialChannelSqueezeExcite,
    "efficient-channel": EfficientChannelAttention,
    "coordinate": CoordinateAttention,
}


def attention_factory(name: str) -> Callable[..., nn.Module] | None:
    """What makes the named layer from `dtype`, `param_dtype` and `name`.

    Returns:
      A factory, e.g. for a backbone's `attention`; None for "none".

    Raises:
      ValueError: for an unknown name, with the names there are.
    """
    return ATTENTIONS[choose("attention", name, ATTENTIONS)]


def shown_by(factory: Callable[..., nn.Module] | None) -> tuple[str, ...]:
    """What the layers of a factory sow of "rectangle" and "mask".

    It is what their class declares as `shows`, known before anything is computed;
    nothing for a class that declares nothing.
    """
    while isinstance(factory, functools.partial):
        factory = factory.func
    return getattr(factory, "shows", ())
