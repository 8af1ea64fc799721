"""The attention layers that the rectangular one is compared with, and one table of all.

Every layer maps `[..., H, W, C]` to the same shape and dtype, gathers its statistics in
at least float32, and sows what it multiplied by into "intermediates": "mask"
(`[..., H, W]`) where it tells positions apart, "channel_mask" (`[..., C]`) where it tells
channels apart. All raise ValueError for features of wrong rank or of an integer dtype.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.attention import RectangularAttention
from cram_jax.predictors import MomentPredictor, RegressionPredictor, Trunk
from cram_jax.rendering import apply_mask, check_features, check_floor

__all__ = [
    "ATTENTIONS",
    "CBAM",
    "CoordinateAttention",
    "EfficientChannelAttention",
    "PositionwiseAttention",
    "SqueezeExcite",
    "attention_factory",
]

Dtype = jax.typing.DTypeLike


def _precise(array: jax.Array) -> jax.Array:
    """The array in at least float32: means over many half floats lose digits."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


def _mean_and_max_over_channels(features: jax.Array) -> jax.Array:
    """`[..., H, W, C] -> [..., H, W, 2]`."""
    features = _precise(features)
    return jnp.stack([features.mean(-1), features.max(-1)], axis=-1)


def _gate_channels(features: jax.Array, mask: jax.Array) -> jax.Array:
    """Multiplies `[..., H, W, C]` by `[..., C]` in the features' dtype."""
    return features * mask.astype(features.dtype)[..., None, None, :]


def enlarge_from_grid(grid: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear `[..., h, w] -> [..., height, width]`, undoing `pool_to_grid`'s cells."""
    cell = -(-max(height, width) // max(grid.shape[-2:]))
    if cell == 1:
        return grid
    shape = (*grid.shape[:-2], *(cell * side for side in grid.shape[-2:]))
    # Cells cut off at the border stick out of the map; what sticks out goes.
    return jax.image.resize(grid, shape, "bilinear")[..., :height, :width]


class PositionwiseAttention(nn.Module):
    """A free mask: one number in (0, 1) for every position.

    Form "pooled" is CBAM's spatial attention: mean and maximum over channels, then a
    convolution (Woo et al. 2018, section 3). Form "trunk" (ours) ends the very trunk of
    `MomentPredictor` in its map of logits, enlarged bilinearly, so that nothing but the
    mask's shape differs from the rectangular layer. Both start nearly open, as that
    layer does (ours; as published the start is 0.5).

    Attributes:
      form: "pooled" or "trunk".
      floor: least value of the mask, in [0, 1).
      initial_mask: what the mask starts around, in (0, 1), the floor aside.
      kernel: side of the convolution of the form "pooled".
      dtype: computation dtype of the predictor; None takes its input's.
      param_dtype: dtype of the parameters.
    """

    form: Literal["pooled", "trunk"] = "pooled"
    floor: float = 0.0
    initial_mask: float = 0.95
    kernel: int = 7
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features.

        Raises:
          ValueError: also for an unknown form, and a floor or initial mask out of range.
        """
        del train
        check_features(features)
        check_floor(self.floor)
        if not 0 < self.initial_mask < 1:
            raise ValueError(
                "initial_mask must lie between 0 and 1, both excluded; got"
                f" {self.initial_mask}. 0.5 is the start as published."
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.form == "pooled":
            pooled = _mean_and_max_over_channels(features)
            kernel = (self.kernel, self.kernel)
            logits = nn.Conv(1, kernel, name="predictor", **dtypes)(pooled)[..., 0]
        elif self.form == "trunk":
            init = MomentPredictor.heat_init
            trunk = Trunk(last_kernel_init=init, name="predictor", **dtypes)
            grid = _precise(trunk(features)[..., 0])
            logits = enlarge_from_grid(grid, *features.shape[-3:-1])
        else:
            raise ValueError(f"form must be 'pooled' or 'trunk'; got {self.form!r}.")
        opening = math.log(self.initial_mask / (1 - self.initial_mask))
        mask = jax.nn.sigmoid(_precise(logits) + opening)
        mask = self.floor + (1 - self.floor) * mask
        self.sow("intermediates", "mask", mask)
        return apply_mask(features, mask)


class _Bottleneck(nn.Module):
    """The perceptron of squeeze-and-excite: C to C / reduction to C, relu between."""

    reduction: int
    dtype: Dtype | None
    param_dtype: Dtype

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        channels = pooled.shape[-1]
        dense = functools.partial(
            nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype
        )
        hidden = dense(max(1, channels // self.reduction), name="reduce")(pooled)
        return _precise(dense(channels, name="expand")(nn.relu(hidden)))


class SqueezeExcite(nn.Module):
    """Channel attention from the mean over positions (Hu et al. 2018, section 3).

    Attributes:
      reduction: channels divided by this are the hidden units, at least one.
      dtype: computation dtype of the perceptron; None takes float32.
      param_dtype: dtype of the parameters.
    """

    reduction: int = 16
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features."""
        del train
        check_features(features)
        pooled = _precise(features).mean((-3, -2))
        perceptron = _Bottleneck(
            self.reduction, self.dtype, self.param_dtype, name="mlp"
        )
        mask = jax.nn.sigmoid(perceptron(pooled))
        self.sow("intermediates", "channel_mask", mask)
        return _gate_channels(features, mask)


class CBAM(nn.Module):
    """Channel, then spatial attention (Woo et al. 2018, section 3, its equations).

    The authors' code puts a BatchNorm behind the spatial convolution, their paper does
    not; nor does this.

    Attributes:
      reduction: channels divided by this are the hidden units, at least one.
      kernel: side of the spatial convolution.
      dtype: computation dtype of perceptron and convolution; None takes float32.
      param_dtype: dtype of the parameters.
    """

    reduction: int = 16
    kernel: int = 7
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features."""
        del train
        check_features(features)
        precise = _precise(features)
        mlp = _Bottleneck(self.reduction, self.dtype, self.param_dtype, name="channel")
        mean, largest = precise.mean((-3, -2)), precise.max((-3, -2))
        channel_mask = jax.nn.sigmoid(mlp(mean) + mlp(largest))
        self.sow("intermediates", "channel_mask", channel_mask)
        features = _gate_channels(features, channel_mask)
        logits = nn.Conv(
            1,
            (self.kernel, self.kernel),
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="spatial",
        )(_mean_and_max_over_channels(features))
        mask = jax.nn.sigmoid(_precise(logits[..., 0]))
        self.sow("intermediates", "mask", mask)
        return apply_mask(features, mask)


class EfficientChannelAttention(nn.Module):
    """A short convolution along the channels' means (ECA; Wang et al. 2020, section 3).

    Attributes:
      gamma: the kernel is the odd number next to `(log2(C) + offset) / gamma`,
        rounded as in the authors' code.
      offset: see `gamma`.
      dtype: computation dtype of the convolution; None takes float32.
      param_dtype: dtype of the parameters.
    """

    gamma: float = 2.0
    offset: float = 1.0
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features."""
        del train
        check_features(features)
        size = int(abs((math.log2(features.shape[-1]) + self.offset) / self.gamma))
        logits = nn.Conv(
            1,
            (size if size % 2 else size + 1,),
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="along_channels",
        )(_precise(features).mean((-3, -2))[..., None])
        mask = jax.nn.sigmoid(_precise(logits[..., 0]))
        self.sow("intermediates", "channel_mask", mask)
        return _gate_channels(features, mask)


class CoordinateAttention(nn.Module):
    """For each channel a mask over rows times one over columns (Hou et al. 2021).

    The sown "mask" is the mean over channels. Statistics of the BatchNorm inside (as in
    section 3.2 and the authors' code) are in "batch_stats".

    Attributes:
      reduction: channels divided by this are the hidden channels.
      min_hidden: but at least so many.
      axis_name: pmap axis over which to average BatchNorm's statistics, or None.
      dtype: computation dtype of the convolutions; None takes float32.
      param_dtype: dtype of the parameters.
    """

    reduction: int = 32
    min_hidden: int = 8
    axis_name: str | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features; `train` uses (and updates) the batch's statistics."""
        check_features(features)
        height, channels = features.shape[-3], features.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        precise = _precise(features)
        # A 1x1 convolution over a row of positions is a dense layer.
        profiles = jnp.concatenate([precise.mean(-2), precise.mean(-3)], axis=-2)
        hidden = max(self.min_hidden, channels // self.reduction)
        profiles = nn.Dense(hidden, name="reduce", **dtypes)(profiles)
        profiles = nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            axis_name=self.axis_name,
            name="norm",
            **dtypes,
        )(profiles)
        profiles = nn.hard_swish(profiles)
        rows, columns = profiles[..., :height, :], profiles[..., height:, :]
        rows = jax.nn.sigmoid(_precise(nn.Dense(channels, name="rows", **dtypes)(rows)))
        columns = nn.Dense(channels, name="columns", **dtypes)(columns)
        columns = jax.nn.sigmoid(_precise(columns))
        mask = jnp.einsum("...hc,...wc->...hw", rows, columns) / channels
        self.sow("intermediates", "mask", mask)
        features = features * rows.astype(features.dtype)[..., :, None, :]
        return features * columns.astype(features.dtype)[..., None, :, :]


ATTENTIONS: dict[str, Callable[..., nn.Module] | None] = {
    "none": None,
    "rectangular": RectangularAttention,
    "rectangular-moment": functools.partial(
        RectangularAttention, predictor=MomentPredictor
    ),
    "rectangular-regression": functools.partial(
        RectangularAttention, predictor=RegressionPredictor
    ),
    "positionwise-pooled": functools.partial(PositionwiseAttention, form="pooled"),
    "positionwise-trunk": functools.partial(PositionwiseAttention, form="trunk"),
    "cbam": CBAM,
    "squeeze-excite": SqueezeExcite,
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
    if name in ATTENTIONS:
        return ATTENTIONS[name]
    close = difflib.get_close_matches(name, ATTENTIONS, n=1)
    hint = f" Did you mean {close[0]!r}?" if close else ""
    raise ValueError(
        f"Unknown attention {name!r}.{hint} There are: {', '.join(ATTENTIONS)}."
    )
