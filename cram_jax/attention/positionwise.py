"""Attention layers with a free mask: one number for every position.

They are what the rectangular layer is compared with.
"""

from __future__ import annotations

import math
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cram_jax.attention.channel import Bottleneck, gate_channels
from cram_jax.attention.gate import Gate, check_features, check_floor, raise_floor
from cram_jax.attention.predictors import MomentPredictor
from cram_jax.attention.trunk import Trunk
from cram_jax.checks import check_count, check_number
from cram_jax.numerics import Dtype, at_least_float32, largest, read_apart

__all__ = ["CBAM", "PositionwiseAttention", "SpatialChannelSqueezeExcite"]


def _mean_and_max_over_channels(features: jax.Array) -> jax.Array:
    """`[..., H, W, C] -> [..., H, W, 2]`."""
    features = at_least_float32(read_apart(features))
    return jnp.stack([features.mean(-1), largest(features, -1)], axis=-1)


def enlarge_from_grid(grid: jax.Array, height: int, width: int) -> jax.Array:
    """Bilinear `[..., h, w] -> [..., height, width]`, back from `pool_to_grid`."""
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
      fill: what takes the place of what is masked, "zero" or "mean" (`apply_mask`).
      initial_mask: what the mask starts around, in (0, 1), the floor aside.
      kernel: side of the convolution of the form "pooled".
      dtype: computation dtype of the predictor; None takes its input's.
      param_dtype: dtype of the parameters.
    """

    shows = ("mask",)

    form: Literal["pooled", "trunk"] = "pooled"
    floor: float | np.floating = 0.0
    fill: str = "zero"
    initial_mask: float = 0.95
    kernel: int = 7
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features.

        Raises:
          ValueError: also for an unknown form, a floor or initial mask out of range.
        """
        del train
        check_features(features)
        check_floor(self.floor)
        check_number(
            "initial_mask",
            self.initial_mask,
            lambda value: (value > 0) & (value < 1),
            "lie between 0 and 1, both excluded",
            "0.5 is the start as published",
        )
        check_count("kernel", self.kernel)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        if self.form == "pooled":
            pooled = _mean_and_max_over_channels(features)
            kernel = (self.kernel, self.kernel)
            logits = nn.Conv(1, kernel, name="mask_predictor", **dtypes)(pooled)[..., 0]
        elif self.form == "trunk":
            init = MomentPredictor.heat_init
            trunk = Trunk(last_kernel_init=init, name="mask_predictor", **dtypes)
            grid = at_least_float32(trunk(features)[..., 0])
            logits = enlarge_from_grid(grid, *features.shape[-3:-1])
        else:
            raise ValueError(f"form must be 'pooled' or 'trunk'; got {self.form!r}.")
        opening = math.log(self.initial_mask / (1 - self.initial_mask))
        mask = jax.nn.sigmoid(at_least_float32(logits) + opening)
        mask = raise_floor(mask, self.floor)
        self.sow("intermediates", "mask", mask)
        return Gate(fill=self.fill, name="gate")(features, mask)


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

    shows = ("mask",)

    reduction: int = 16
    kernel: int = 7
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features."""
        del train
        check_features(features)
        check_count("kernel", self.kernel)
        precise = at_least_float32(read_apart(features))
        mlp = Bottleneck(self.reduction, self.dtype, self.param_dtype, name="channel")
        mean, maximum = precise.mean((-3, -2)), largest(precise, (-3, -2))
        channel_mask = jax.nn.sigmoid(mlp(mean) + mlp(maximum))
        self.sow("intermediates", "channel_mask", channel_mask)
        features = gate_channels(features, channel_mask)
        logits = nn.Conv(
            1,
            (self.kernel, self.kernel),
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="spatial",
        )(_mean_and_max_over_channels(features))
        mask = jax.nn.sigmoid(at_least_float32(logits[..., 0]))
        self.sow("intermediates", "mask", mask)
        return Gate(name="gate")(features, mask)


class SpatialChannelSqueezeExcite(nn.Module):
    """scSE: features gated by channel, plus features gated by position.

    The sum of squeeze-and-excite (`mlp`) and of a 1x1 convolution's sigmoid (`spatial`)
    on the same features (Roy et al. 2018, "Concurrent Spatial and Channel Squeeze &
    Excitation", section 3), the usual layer of segmentation networks. The sum starts
    around 1 times the features, for both gates start around a half.

    Attributes:
      reduction: channels divided by this are the hidden units, at least one; 2 in the
        paper, 16 where it is used with pretrained networks.
      dtype: computation dtype of perceptron and convolution; None takes float32.
      param_dtype: dtype of the parameters.
    """

    shows = ("mask",)

    reduction: int = 16
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates the features."""
        del train
        check_features(features)
        precise = at_least_float32(read_apart(features))
        mlp = Bottleneck(self.reduction, self.dtype, self.param_dtype, name="mlp")
        channel_mask = jax.nn.sigmoid(mlp(precise.mean((-3, -2))))
        self.sow("intermediates", "channel_mask", channel_mask)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        logits = nn.Dense(1, name="spatial", **dtypes)(precise)[..., 0]
        mask = jax.nn.sigmoid(at_least_float32(logits))
        self.sow("intermediates", "mask", mask)
        by_position = Gate(name="gate")(features, mask)
        return gate_channels(features, channel_mask) + by_position
