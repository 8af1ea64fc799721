"""Attention layers that tell channels apart, or rows and columns of each channel.

They gather statistics in at least float32 and sow what they multiply by into
"intermediates": "channel_mask" (`[..., C]`), or "mask" (`[..., H, W]`).
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cram_jax.attention.gate import check_features
from cram_jax.checks import check_count, check_number
from cram_jax.numerics import Dtype, at_least_float32, read_apart

__all__ = ["CoordinateAttention", "EfficientChannelAttention", "SqueezeExcite"]


def gate_channels(features: jax.Array, mask: jax.Array) -> jax.Array:
    """Multiplies `[..., H, W, C]` by `[..., C]` in the features' dtype."""
    return features * mask.astype(features.dtype)[..., None, None, :]


class Bottleneck(nn.Module):
    """The perceptron of squeeze-and-excite: C to C / reduction to C, relu between."""

    reduction: int
    dtype: Dtype | None
    param_dtype: Dtype

    @nn.compact
    def __call__(self, pooled: jax.Array) -> jax.Array:
        channels = pooled.shape[-1]
        check_count("reduction", self.reduction)
        dense = functools.partial(
            nn.Dense, dtype=self.dtype, param_dtype=self.param_dtype
        )
        hidden = dense(max(1, channels // self.reduction), name="reduce")(pooled)
        return at_least_float32(dense(channels, name="expand")(nn.relu(hidden)))


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
        pooled = at_least_float32(read_apart(features)).mean((-3, -2))
        perceptron = Bottleneck(
            self.reduction, self.dtype, self.param_dtype, name="mlp"
        )
        mask = jax.nn.sigmoid(perceptron(pooled))
        self.sow("intermediates", "channel_mask", mask)
        return gate_channels(features, mask)


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
        check_number("gamma", self.gamma, lambda value: value > 0, "be positive")
        check_number("offset", self.offset, np.isfinite, "be a finite number")
        size = int(abs((math.log2(features.shape[-1]) + self.offset) / self.gamma))
        logits = nn.Conv(
            1,
            (size if size % 2 else size + 1,),
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="along_channels",
        )(at_least_float32(read_apart(features)).mean((-3, -2))[..., None])
        mask = jax.nn.sigmoid(at_least_float32(logits[..., 0]))
        self.sow("intermediates", "channel_mask", mask)
        return gate_channels(features, mask)


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

    shows = ("mask",)

    reduction: int = 32
    min_hidden: int = 8
    axis_name: str | None = None
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features; `train` uses (and updates) the batch's statistics."""
        check_features(features)
        check_count("reduction", self.reduction)
        check_count("min_hidden", self.min_hidden)
        height, channels = features.shape[-3], features.shape[-1]
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        precise = at_least_float32(read_apart(features))
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
        rows = jax.nn.sigmoid(
            at_least_float32(nn.Dense(channels, name="rows", **dtypes)(rows))
        )
        columns = nn.Dense(channels, name="columns", **dtypes)(columns)
        columns = jax.nn.sigmoid(at_least_float32(columns))
        mask = jnp.einsum("...hc,...wc->...hw", rows, columns) / channels
        self.sow("intermediates", "mask", mask)
        features = features * rows.astype(features.dtype)[..., :, None, :]
        return features * columns.astype(features.dtype)[..., None, :, :]
