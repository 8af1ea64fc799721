"""Linen modules that look at a feature map and predict one rectangle.

Both predictors reduce first (`Trunk`): the only full-resolution work is one mean over
small cells. What they do with the trunk differs (see each class).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.dtypes import promote_dtype

from cram_jax.coordinates import map_extents
from cram_jax.moments import heat_map_moments, pool_to_grid, rectangle_from_moments
from cram_jax.rectangle import (
    MAX_HALF_SIZE,
    MIN_HALF_SIZE,
    NEUTRAL_HALF_SIZE,
    Rectangle,
    rectangle_from_raw,
)
from cram_jax.rendering import check_features

__all__ = ["MomentPredictor", "RegressionPredictor", "Trunk"]

Dtype = jax.typing.DTypeLike


class _PointwiseConv(nn.Module):
    """A 1x1 convolution as a matrix product; parameters as `nn.Conv`'s.

    XLA on CPU computes a convolution's gradients with respect to a 1x1 kernel as a
    convolution with a window as large as the map.
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
        positions = x.reshape(-1, x.shape[-1])
        product = jax.lax.dot_general(positions, transposed, (((1,), (1,)), ((), ())))
        product = product.reshape(*x.shape[:-1], self.features)
        return product if bias is None else product + bias


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
        positions = x.reshape(*x.shape[:-3], -1, x.shape[-1])
        return nn.silu(norm(positions)).reshape(x.shape)


class RegressionPredictor(nn.Module):
    """Five numbers from a dense layer on the flattened trunk (ours).

    Like the localisation net of a spatial transformer, and with its weakness: at
    the network's own learning rate it saturates. The dense layer therefore starts
    small, and training should give the predictor a learning rate of its own (a
    tenth: `--optimizer.predictor-scale 0.1`). The first call fixes the map's size.

    Attributes:
      width: channels of the trunk.
      depth: 3x3 convolutions of the trunk.
      max_grid: see `pool_to_grid`.
      trunk_channels: channels that are flattened for the dense layer.
      min_half_size: see `rectangle_from_raw`.
      max_half_size: see `rectangle_from_raw`.
      kernel_init: initialiser of the dense layer.
      dtype: computation dtype of the trunk; None takes the features'.
      param_dtype: dtype of the parameters.
    """

    width: int = 8
    depth: int = 2
    max_grid: int = 8
    trunk_channels: int = 8
    min_half_size: float = MIN_HALF_SIZE
    max_half_size: float = MAX_HALF_SIZE
    kernel_init: nn.initializers.Initializer = nn.initializers.normal(1e-3)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> Rectangle:
        """Predicts one rectangle `[...]` for each map of `[..., H, W, C]`."""
        check_features(features)
        x = Trunk(
            self.trunk_channels,
            self.width,
            self.depth,
            self.max_grid,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="trunk",
        )(features)
        x = nn.silu(x.reshape(*x.shape[:-3], -1)).astype(jnp.float32)
        raw = nn.Dense(
            5, kernel_init=self.kernel_init, param_dtype=self.param_dtype, name="raw"
        )(x)
        extent_x, extent_y = map_extents(*features.shape[-3:-1])
        return rectangle_from_raw(
            raw,
            extent_x=extent_x,
            extent_y=extent_y,
            min_half_size=self.min_half_size,
            max_half_size=self.max_half_size,
        )


class MomentPredictor(nn.Module):
    """The rectangle with the mean and covariance of a heat map (ours).

    A trunk makes a heat map; its softmax over positions is a density; the rectangle
    is the one whose uniform density has the same mean and covariance, enlarged by a
    learned factor. It moves, turns and grows with the features by construction.
    What is hardly looked at counts as nothing (`background`).

    It is the default because it finds the object: on cluttered digits (4,000 images,
    labels only, 5 seeds; results/digits.md) its mean IoU with the true rectangle is
    0.45, that of `RegressionPredictor` 0.20, with test accuracies of 0.779 and 0.756.

    Attributes:
      width: channels of the trunk.
      depth: 3x3 convolutions of the trunk.
      max_grid: see `pool_to_grid`.
      initial_factor: initial value of the learned factor.
      background: see `heat_map_moments`.
      rotations: 1, 2 or 4: the heat map is the mean of those of the features turned
        by so many parts of a full turn, each turned back; a map that is not square is
        turned by half turns only. The rectangle then turns exactly with features that
        turn so (where the pooled cells fill the map), at so many times the cost of
        the trunk.
      heat_init: initialiser of the convolution that makes the heat map. Not zero:
        a constant heat map is a saddle.
      dtype: computation dtype of the trunk; None takes the features'.
      param_dtype: dtype of the parameters.
    """

    width: int = 8
    depth: int = 2
    max_grid: int = 12
    initial_factor: float = NEUTRAL_HALF_SIZE
    background: float = 0.5
    rotations: int = 1
    heat_init: nn.initializers.Initializer = nn.initializers.normal(0.02)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> Rectangle:
        """Predicts one rectangle `[...]` for each map of `[..., H, W, C]`.

        Raises:
          ValueError: for other `rotations`, or features of wrong rank or dtype.
        """
        check_features(features)
        trunk = Trunk(
            1,
            self.width,
            self.depth,
            self.max_grid,
            self.heat_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="trunk",
        )
        if self.rotations == 1:
            heat = trunk(features)[..., 0]
        else:
            heat = self._mean_over_rotations(trunk, features)
        self.sow("intermediates", "heat", heat)
        log_factor = self.param(
            "log_factor",
            nn.initializers.constant(jnp.log(self.initial_factor)),
            (),
            self.param_dtype,
        )
        moments = heat_map_moments(
            heat, *features.shape[-3:-1], background=self.background
        )
        factor = jnp.exp(log_factor.astype(jnp.float32))
        return rectangle_from_moments(*moments, factor=factor)

    def _mean_over_rotations(self, trunk: Trunk, features: jax.Array) -> jax.Array:
        grid = pool_to_grid(features, self.max_grid)
        if self.rotations not in (2, 4):
            raise ValueError(f"rotations must be 1, 2 or 4; got {self.rotations}.")
        square = grid.shape[-3] == grid.shape[-2]
        quarters = range(0, 4, 1 if self.rotations == 4 and square else 2)
        turned = jnp.stack([jnp.rot90(grid, k, axes=(-3, -2)) for k in quarters])
        heat = trunk(turned)[..., 0]
        back = [jnp.rot90(heat[i], -k, axes=(-2, -1)) for i, k in enumerate(quarters)]
        return jnp.mean(jnp.stack(back), axis=0)
