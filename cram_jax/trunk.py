"""A feature map to a small map of a few channels: what every predictor starts with.

Inside, channels come first and positions last, and every convolution is one matrix
product. So few channels as the last axis would leave a CPU's vector units idle, and
XLA's convolutions there take longer than all else: forward and backward of the
rectangular layer take four fifths of the time this way (results/cost.md).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from cram_jax.moments import pool_to_grid

__all__ = ["Trunk"]

Dtype = jax.typing.DTypeLike


class _Project(nn.Module):
    """A 1x1 convolution without bias that brings the channels to the front.

    Its parameters are those of `nn.Conv`.
    """

    features: int
    dtype: Dtype | None
    param_dtype: Dtype

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[B, h, w, C]` to `[features, B, h, w]`."""
        shape = (1, 1, x.shape[-1], self.features)
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, shape, self.param_dtype)
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        positions = x.reshape(-1, x.shape[-1])
        # Without the barriers XLA on CPU writes both the product and the kernel's
        # gradient the other way round, at a third of the speed and less.
        transposed = jax.lax.optimization_barrier(kernel[0, 0].T)
        product = jax.lax.dot_general(positions, transposed, (((1,), (1,)), ((), ())))
        product = jax.lax.optimization_barrier(product)
        return product.T.reshape(self.features, *x.shape[:-1])


class _Conv(nn.Module):
    """A convolution of odd side, padded with zeros, of maps with channels first.

    Its parameters are those of `nn.Conv`.
    """

    features: int
    side: int
    use_bias: bool
    dtype: Dtype | None
    param_dtype: Dtype
    kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[C, B, h, w]` to `[features, B, h, w]`."""
        shape = (self.side, self.side, x.shape[0], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            zeros = nn.initializers.zeros
            bias = self.param("bias", zeros, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        taps = _taps(x, self.side)
        product = jax.lax.dot_general(
            kernel.reshape(-1, self.features), taps, (((0,), (0,)), ((), ()))
        )
        product = product.reshape(self.features, *x.shape[1:])
        return product if bias is None else product + bias[:, None, None, None]


def _taps(x: jax.Array, side: int) -> jax.Array:
    """What a kernel sees: `[C, B, h, w]` to `[side * side * C, B * h * w]`."""
    channels, batch, height, width = x.shape
    if side > 1:
        margin = (side // 2, side // 2)
        padded = jnp.pad(x, [(0, 0), (0, 0), margin, margin])
        x = jnp.stack(
            [
                padded[..., row : row + height, column : column + width]
                for row in range(side)
                for column in range(side)
            ]
        )
    return x.reshape(side * side * channels, batch * height * width)


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
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        grid = pool_to_grid(features, self.max_grid)
        x = grid.reshape(-1, *grid.shape[-3:])
        x = _Project(self.width, name="Conv_0", **dtypes)(x)
        x = self._activate(x)
        for layer in range(1, self.depth + 1):
            name = f"Conv_{layer}"
            x = _Conv(self.width, 3, use_bias=False, name=name, **dtypes)(x)
            x = self._activate(x)
        x = _Conv(
            self.channels,
            1,
            use_bias=True,
            kernel_init=self.last_kernel_init,
            name=f"Conv_{self.depth + 1}",
            **dtypes,
        )(x)
        return jnp.moveaxis(x, 0, -1).reshape(*grid.shape[:-1], self.channels)

    def _activate(self, x: jax.Array) -> jax.Array:
        """Normalises each example of `[C, B, h, w]`, then SiLU."""
        norm = nn.LayerNorm(
            reduction_axes=(0, 2),
            feature_axes=0,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        channels, batch, height, width = x.shape
        # Rows and columns as one axis: XLA on CPU then sums faster.
        positions = x.reshape(channels, batch, height * width)
        return nn.silu(norm(positions)).reshape(x.shape)
