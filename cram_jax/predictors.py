"""Linen modules that look at a feature map and predict one rectangle.

Both predictors reduce first (`Trunk`): the only full-resolution work is one mean over
small cells. What they do with the trunk differs (see each class).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.coordinates import map_extents, pixel_centers
from cram_jax.rectangle import (
    MAX_HALF_SIZE,
    MIN_HALF_SIZE,
    NEUTRAL_HALF_SIZE,
    Rectangle,
    rectangle_from_raw,
)
from cram_jax.rendering import check_features

__all__ = ["MomentPredictor", "RegressionPredictor", "Trunk", "pool_to_grid"]

Dtype = jax.typing.DTypeLike


def pool_to_grid(values: jax.Array, max_grid: int) -> jax.Array:
    """Averages `[..., H, W, C]` over square cells so that at most `max_grid` remain.

    The cell side is the smallest that does it, the same in both directions, so the
    result keeps the aspect ratio. Cells at the right and bottom border may be cut;
    they average what they have.

    Args:
      values: `[..., H, W, C]`.
      max_grid: largest number of cells along the longer side, at least 1.

    Returns:
      `[..., h, w, C]` with h, w <= max_grid, of the same dtype.

    Raises:
      ValueError: if `max_grid` is less than 1.
    """
    if max_grid < 1:
        raise ValueError(f"max_grid must be at least 1, got {max_grid}.")
    height, width = values.shape[-3:-1]
    cell = -(-max(height, width) // max_grid)
    if cell == 1:
        return values
    if height % cell == 0 and width % cell == 0:
        # A reshape and one reduction: XLA's reduce_window is far slower on CPU.
        shape = (*values.shape[:-3], height // cell, cell, width // cell, cell)
        return jnp.mean(values.reshape(*shape, values.shape[-1]), axis=(-4, -2))
    batch = values.reshape(-1, *values.shape[-3:])
    strides = (cell, cell)
    pooled = nn.avg_pool(batch, strides, strides, "SAME", count_include_pad=False)
    return pooled.reshape(*values.shape[:-3], *pooled.shape[1:])


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
    width: int = 16
    depth: int = 2
    max_grid: int = 16
    last_kernel_init: nn.initializers.Initializer = nn.initializers.lecun_normal()
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps `[..., H, W, C]` to `[..., h, w, channels]`, h and w <= max_grid."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = pool_to_grid(features, self.max_grid)
        for layer in range(self.depth + 1):
            kernel = (3, 3) if layer else (1, 1)
            x = nn.Conv(self.width, kernel, use_bias=False, **dtypes)(x)
            x = nn.LayerNorm(reduction_axes=(-3, -2, -1), **dtypes)(x)
            x = nn.silu(x)
        return nn.Conv(
            self.channels, (1, 1), kernel_init=self.last_kernel_init, **dtypes
        )(x)


class RegressionPredictor(nn.Module):
    """Five numbers from a dense layer on the flattened trunk (ours).

    Like the localisation net of a spatial transformer, and with its weakness: at
    the network's own learning rate it saturates. The dense layer therefore starts
    small, and training should give the predictor a learning rate of its own (a
    tenth; `train/` does). The map's size is fixed by the first call.

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

    width: int = 16
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


@jax.custom_jvp
def _half_angle(sine: jax.Array, cosine: jax.Array) -> jax.Array:
    """Half the angle of the vector (cosine, sine); a round map has no direction."""
    return jnp.arctan2(sine, cosine) / 2


@_half_angle.defjvp
def _half_angle_jvp(primals, tangents):
    sine, cosine = primals
    # The true derivative is unbounded where the two eigenvalues meet, and one such
    # example would throw away a whole batch's gradient. The floor bounds it.
    squared = sine**2 + cosine**2 + 1e-4
    turn = (cosine * tangents[0] - sine * tangents[1]) / (2 * squared)
    return _half_angle(sine, cosine), turn


def rectangle_from_moments(
    mean_x: jax.Array,
    mean_y: jax.Array,
    variance_x: jax.Array,
    variance_y: jax.Array,
    covariance: jax.Array,
    *,
    factor: jax.typing.ArrayLike = 1.0,
) -> Rectangle:
    """The rectangle whose uniform density has the given moments (ours).

    Along an eigenvector of the covariance with eigenvalue l the half size is
    `factor * sqrt(3 l)`. The width belongs to the larger eigenvalue.

    Args:
      mean_x: `[...]`; likewise the other moments.
      mean_y: mean of y.
      variance_x: variance of x.
      variance_y: variance of y.
      covariance: covariance of x and y.
      factor: scales both half sizes.

    Returns:
      Rectangles `[...]`; where the eigenvalues meet the angle is 0 and its gradient
      bounded.
    """
    half_trace = (variance_x + variance_y) / 2
    half_difference = (variance_x - variance_y) / 2
    squared = half_difference**2 + covariance**2
    # sqrt has no finite gradient at 0; the offset is far below one cell's variance.
    radius = jnp.sqrt(squared + 1e-12)
    smallest = 1e-6
    large = jnp.maximum(half_trace + radius, smallest)
    small = jnp.maximum(half_trace - radius, smallest)
    return Rectangle(
        center_x=mean_x,
        center_y=mean_y,
        half_width=factor * jnp.sqrt(3 * large),
        half_height=factor * jnp.sqrt(3 * small),
        angle=_half_angle(covariance, half_difference),
    )


def heat_map_moments(logits: jax.Array, height: int, width: int) -> tuple:
    """Mean and covariance of the softmax of a heat map over the cells of a map.

    A cell counts with the number of its pixels, and as a little uniform square, not
    a point. So a constant heat map has exactly the moments of the whole map,
    whatever the grid, and no heat map has less variance than a cell.

    Args:
      logits: `[..., h, w]`, the map of `height` x `width` pixels pooled by
        `pool_to_grid`.
      height: rows of the original map.
      width: columns of the original map.

    Returns:
      `(mean_x, mean_y, variance_x, variance_y, covariance)`, each `[...]`.
    """
    x, y = pixel_centers(height, width)
    cell = -(-max(height, width) // max(logits.shape[-2:]))

    def pooled(values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        groups = [values[i : i + cell] for i in range(0, values.size, cell)]
        pixel = 2 / max(height, width)
        means = jnp.stack([group.mean() for group in groups])
        sizes = jnp.array([float(group.size) for group in groups])
        return means, sizes, (sizes * pixel) ** 2 / 12

    center_x, count_x, spread_x = pooled(x)
    center_y, count_y, spread_y = pooled(y)
    logits = logits.astype(jnp.float32)
    logits = logits + jnp.log(count_y)[:, None] + jnp.log(count_x)
    weights = jax.nn.softmax(logits, axis=(-2, -1))
    along_x, along_y = weights.sum(-2), weights.sum(-1)
    mean_x = along_x @ center_x
    mean_y = along_y @ center_y
    from_x = center_x - mean_x[..., None]
    from_y = center_y - mean_y[..., None]
    variance_x = jnp.sum(along_x * (from_x**2 + spread_x), -1)
    variance_y = jnp.sum(along_y * (from_y**2 + spread_y), -1)
    covariance = jnp.einsum("...hw,...h,...w->...", weights, from_y, from_x)
    return mean_x, mean_y, variance_x, variance_y, covariance


class MomentPredictor(nn.Module):
    """The rectangle with the mean and covariance of a heat map (ours).

    A trunk makes a heat map; its softmax over positions is a density; the rectangle
    is the one whose uniform density has the same mean and covariance, enlarged by a
    learned factor. It moves, turns and grows with the features by construction.

    Attributes:
      width: channels of the trunk.
      depth: 3x3 convolutions of the trunk.
      max_grid: see `pool_to_grid`.
      initial_factor: initial value of the learned factor.
      heat_init: initialiser of the convolution that makes the heat map. Not zero:
        a constant heat map is a saddle.
      dtype: computation dtype of the trunk; None takes the features'.
      param_dtype: dtype of the parameters.
    """

    width: int = 16
    depth: int = 2
    max_grid: int = 16
    initial_factor: float = NEUTRAL_HALF_SIZE
    heat_init: nn.initializers.Initializer = nn.initializers.normal(0.02)
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> Rectangle:
        """Predicts one rectangle `[...]` for each map of `[..., H, W, C]`."""
        check_features(features)
        heat = Trunk(
            1,
            self.width,
            self.depth,
            self.max_grid,
            self.heat_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="trunk",
        )(features)[..., 0]
        self.sow("intermediates", "heat", heat)
        log_factor = self.param(
            "log_factor",
            nn.initializers.constant(jnp.log(self.initial_factor)),
            (),
            self.param_dtype,
        )
        moments = heat_map_moments(heat, *features.shape[-3:-1])
        factor = jnp.exp(log_factor.astype(jnp.float32))
        return rectangle_from_moments(*moments, factor=factor)
