"""A feature map to a small map of a few channels: what every predictor starts with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from cram_jax.attention.moments import pool_to_grid
from cram_jax.checks import check_count
from cram_jax.geometry.batched import with_rank
from cram_jax.numerics import Dtype

__all__ = ["Trunk"]


class _PointwiseConv(nn.Module):
    """A 1x1 convolution as a matrix product; parameters as `nn.Conv`'s.

    With `nn.Conv`, XLA on CPU would compute the gradient with respect to the kernel as
    a convolution with a window as large as the map.
    """

    features: int
    use_bias: bool
    dtype: Dtype | None
    param_dtype: Dtype
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (1, 1, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        # XLA on CPU multiplies (channels, positions) by (positions, features), as the
        # kernel's gradient would be written, at a third of the speed of its transpose;
        # without the barrier it turns the one into the other.
        transposed = jax.lax.optimization_barrier(kernel[0, 0].T)
        contracted = ((x.ndim - 1,), (1,))
        product = jax.lax.dot_general(x, transposed, (contracted, ((), ())))
        return product if bias is None else product + with_rank(bias, x.ndim)


class Trunk(nn.Module):
    """Features to a small map: pool, 1x1 convolution, 3x3 convolutions (ours).

    Each convolution but the last is followed by a normalisation over the whole map of
    one example and a SiLU. That makes the trunk indifferent to the scale of the
    features, keeps examples independent of their batch, and needs no statistics.

    Attributes:
      channels: channels of the result.
      width: channels inside.
      depth: number of 3x3 convolutions inside.
      max_grid: see `pool_to_grid`.
      last_kernel_init: initialiser of the last convolution.
      dtype: computation dtype; None takes the features'.
      param_dtype: dtype of the parameters.
    """

    channels: int = 1
    width: int = 8
    depth: int = 2
    max_grid: int = 12
    last_kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[..., H, W, C]` to `[..., h, w, channels]`, h and w <= max_grid."""
        check_count("width", self.width)
        check_count("depth", self.depth, 0)
        check_count("channels", self.channels)
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = pool_to_grid(features, self.max_grid)
        x = _PointwiseConv(self.width, use_bias=False, name="Conv_0", **dtypes)(x)
        x = self._activate(x)
        for layer in range(1, self.depth + 1):
            x = nn.Conv(
                self.width, (3, 3), use_bias=False, name=f"Conv_{layer}", **dtypes
            )(x)
            x = self._activate(x)
        return _PointwiseConv(
            self.channels,
            use_bias=True,
            kernel_init=self.last_kernel_init,
            name=f"Conv_{self.depth + 1}",
            **dtypes,
        )(x)

    def _activate(self, x: jax.Array) -> jax.Array:
        norm = nn.LayerNorm(
            reduction_axes=(-2, -1), dtype=self.dtype, param_dtype=self.param_dtype
        )
        # Rows and columns as one axis: XLA on CPU then takes a sixth less time for the
        # gradient of all the layer (128 maps of 12x12x32).
        *batch, height, width, channels = x.shape
        positions = x.reshape(*batch, height * width, channels)
        return nn.silu(norm(positions)).reshape(x.shape)
