"""Parts that the backbones share: convolutions with BatchNorm, pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from cram_jax.backbones.depthwise import depthwise_conv, padding_for
from cram_jax.geometry.batched import with_rank
from cram_jax.numerics import Dtype

AttentionFactory = Callable[..., nn.Module]
Activation = Callable[[jax.Array], jax.Array]


def round_channels(channels: float) -> int:
    """The nearest multiple of 8, but not below nine tenths of what was asked for.

    The rule of all MobileNets and EfficientNets (Howard et al.'s code).
    """
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded


_KERNEL_INIT = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class DepthwiseConv(nn.Module):
    """Each channel convolved with a kernel of its own; see `depthwise_conv`.

    Attributes:
      kernel: side of the square kernels.
      strides: step in both directions.
      same_padding: TensorFlow's padding instead of torch's (see `padding_for`).
      use_bias: whether to add a bias.
      kernel_init: initialiser of the kernels `[kernel, kernel, 1, C]`.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    kernel: int
    strides: int = 1
    same_padding: bool = False
    use_bias: bool = False
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(
        2.0, "fan_in", "normal"
    )
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns the convolved features `[..., H', W', C]`."""
        channels = features.shape[-1]
        shape = (self.kernel, self.kernel, 1, channels)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (channels,), self.param_dtype)
        features, kernel, bias = promote_dtype(features, kernel, bias, dtype=self.dtype)
        sides = features.shape[-3:-1]
        padding = padding_for(self.kernel, self.strides, sides, same=self.same_padding)
        features = depthwise_conv(
            features, kernel, strides=self.strides, padding=padding
        )
        return features if bias is None else features + with_rank(bias, features.ndim)


class ConvNorm(nn.Module):
    """Convolution, BatchNorm, activation: `[..., H, W, C] -> [..., H', W', features]`.

    Padding is torch's: `(kernel - 1) // 2` on both sides, whatever the stride, where
    "SAME" would pad a strided convolution on one side only.

    Attributes:
      features: output channels; for a depthwise convolution those of the input.
      kernel: side of the square kernel.
      strides: step in both directions.
      activation: the nonlinearity, or None for none.
      depthwise: whether each channel is convolved by itself.
      same_padding: TensorFlow's padding instead of torch's (see `padding_for`).
      scale_init: initialiser of BatchNorm's scale.
      momentum: BatchNorm's, for its running statistics (1 minus torch's).
      epsilon: BatchNorm's, added to the variance.
      axis_name: pmap axis over which to average BatchNorm's statistics, or None.
      freeze_norm: BatchNorm uses its running statistics in training too.
      dtype: the computation's dtype (default: that of input and parameters).
      param_dtype: the parameters' dtype.
    """

    features: int
    kernel: int = 3
    strides: int = 1
    activation: Activation | None = nn.relu
    depthwise: bool = False
    same_padding: bool = False
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    momentum: float = 0.9
    epsilon: float = 1e-5
    axis_name: str | None = None
    freeze_norm: bool = False
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the activated features; `train` uses the batch's statistics."""
        features = self._convolution(features.shape[-3:-1])(features)
        features = nn.BatchNorm(
            use_running_average=self.freeze_norm or not train,
            momentum=self.momentum,
            epsilon=self.epsilon,
            scale_init=self.scale_init,
            axis_name=self.axis_name,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="norm",
        )(features)
        return features if self.activation is None else self.activation(features)

    def _convolution(self, sides: Sequence[int]) -> nn.Module:
        settings = {
            "dtype": self.dtype,
            "param_dtype": self.param_dtype,
            "name": "conv",
        }
        if self.depthwise:
            return DepthwiseConv(
                self.kernel,
                self.strides,
                same_padding=self.same_padding,
                **settings,
            )
        return nn.Conv(
            self.features,
            (self.kernel, self.kernel),
            strides=self.strides,
            padding=padding_for(
                self.kernel,
                self.strides,
                sides,
                same=self.same_padding,
            ),
            use_bias=False,
            kernel_init=_KERNEL_INIT,
            **settings,
        )


def max_pool(features: jax.Array, *, window: int, strides: int) -> jax.Array:
    """Maximum over square windows, padded by `(window - 1) // 2` all round as torch."""
    margin = (window - 1) // 2
    padded = jnp.pad(
        features,
        [(0, 0)] * (features.ndim - 3) + [(margin, margin)] * 2 + [(0, 0)],
        constant_values=-jnp.inf,
    )
    return nn.max_pool(padded, (window, window), (strides, strides))
