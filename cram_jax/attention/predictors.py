"""Linen modules that look at a feature map and predict one rectangle, or several.

Both predictors reduce first (`Trunk`): the only full-resolution work is one mean over
small cells. What they do with the trunk differs (see each class).
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.attention.gate import check_features
from cram_jax.attention.moments import (
    heat_map_moments,
    pool_to_grid,
    rectangle_from_moments,
)
from cram_jax.attention.tiles import tile_raw, tile_shares
from cram_jax.attention.trunk import Trunk
from cram_jax.checks import check_count, check_made_for, check_number
from cram_jax.geometry.batched import with_rank
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.raw import rectangle_from_raw
from cram_jax.geometry.rectangle import (
    MAX_HALF_SIZE,
    MIN_HALF_SIZE,
    NEUTRAL_HALF_SIZE,
    Rectangle,
)
from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["MomentPredictor", "RegressionPredictor"]


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
      count: number of rectangles, at least 1. The dense layer makes five numbers for
        each; biases start several of them in tiles of the map (`tile_raw`).
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
    count: int = 1

    @nn.compact
    def __call__(self, features: jax.Array) -> Rectangle:
        """Predicts one rectangle `[...]` for each map of `[..., H, W, C]`.

        Several are `[..., count]`.
        """
        check_features(features)
        check_count("trunk_channels", self.trunk_channels)
        check_count("count", self.count)
        x = Trunk(
            self.trunk_channels,
            self.width,
            self.depth,
            self.max_grid,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="trunk",
        )(features)
        *batch, height, width, channels = x.shape
        x = x.reshape(*batch, height * width * channels)
        check_made_for(
            self,
            ("raw",),
            x.shape[-1],
            "numbers from the trunk",
            ("RegressionPredictor keeps the map's size of its first call"),
        )
        x = at_least_float32(nn.silu(x))
        size = features.shape[-3:-1]
        limits = {
            "min_half_size": self.min_half_size,
            "max_half_size": self.max_half_size,
        }

        def in_tiles(key, shape, dtype):
            del key
            return tile_raw(self.count, *size, **limits).reshape(shape).astype(dtype)

        raw = nn.Dense(
            5 * self.count,
            kernel_init=self.kernel_init,
            bias_init=in_tiles if self.count > 1 else nn.initializers.zeros,
            param_dtype=self.param_dtype,
            name="raw",
        )(x)
        if self.count > 1:
            raw = raw.reshape(*raw.shape[:-1], self.count, 5)
        extent_x, extent_y = map_extents(*size)
        return rectangle_from_raw(raw, extent_x=extent_x, extent_y=extent_y, **limits)


class MomentPredictor(nn.Module):
    """The rectangle with the mean and covariance of a heat map (ours).

    A trunk makes a heat map; its softmax over positions is a density; the rectangle
    is the one whose uniform density has the same mean and covariance, enlarged by a
    learned factor. It moves, turns and grows with the features by construction.
    What is hardly looked at counts as nothing (`background`).

    Several rectangles are those of several heat maps, each with a factor of its own.
    Alone they would all start as one (a nearly uniform heat map is the whole map, and a
    saddle). So each heat map is raised in a tile of the map, by a learned number
    (`prior`). What the features say is added to that: it can outweigh the tile, and
    only then does a rectangle leave it.

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
        the trunk. Tiles do not turn: several rectangles turn so but for them.
      heat_init: initialiser of the convolution that makes the heat map. Not zero:
        a constant heat map is a saddle.
      dtype: computation dtype of the trunk; None takes the features'.
      param_dtype: dtype of the parameters.
      count: number of rectangles, at least 1.
      prior: by how much the heat map of one of several rectangles is raised in its
        tile at first. At 3 the background swallows what lies outside of the tile, for
        up to 16 rectangles.
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
    count: int = 1
    prior: float = 3.0

    @nn.compact
    def __call__(self, features: jax.Array) -> Rectangle:
        """Predicts one rectangle `[...]` for each map of `[..., H, W, C]`.

        Several are `[..., count]`.

        Raises:
          ValueError: for other `rotations`, or features of wrong rank or dtype.
        """
        check_features(features)
        if self.rotations not in (1, 2, 4) or isinstance(self.rotations, bool):
            raise ValueError(f"rotations must be 1, 2 or 4; got {self.rotations!r}.")
        check_number(
            "initial_factor", self.initial_factor, lambda v: v > 0, "be positive"
        )
        check_count("count", self.count)
        check_number("prior", self.prior, lambda v: v > 0, "be positive")
        trunk = Trunk(
            self.count,
            self.width,
            self.depth,
            self.max_grid,
            self.heat_init,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="trunk",
        )
        if self.rotations == 1:
            heat = trunk(features)
        else:
            heat = self._mean_over_rotations(trunk, features)
        size = features.shape[-3:-1]
        heat = heat[..., 0] if self.count == 1 else self._in_tiles(heat, size)
        self.sow("intermediates", "heat", heat)
        log_factor = self.param(
            "log_factor",
            nn.initializers.constant(math.log(self.initial_factor)),
            () if self.count == 1 else (self.count,),
            self.param_dtype,
        )
        moments = heat_map_moments(heat, *size, background=self.background)
        factor = jnp.exp(at_least_float32(log_factor))
        if self.count > 1:
            factor = with_rank(factor, moments[0].ndim)
        return rectangle_from_moments(*moments, factor=factor)

    def _in_tiles(self, heat: jax.Array, size: tuple[int, ...]) -> jax.Array:
        """Heat maps `[..., h, w, K]` as `[..., K, h, w]`, each raised in its tile."""
        heat = at_least_float32(jnp.moveaxis(heat, -1, -3))
        prior = self.param(
            "prior",
            nn.initializers.constant(self.prior),
            (self.count,),
            self.param_dtype,
        )
        height, width = size
        shares = tile_shares(self.count, height, width, heat.shape[-2:])
        raised = at_least_float32(prior)[:, None, None] * jnp.asarray(
            shares, heat.dtype
        )
        return heat + with_rank(raised, heat.ndim)

    def _mean_over_rotations(self, trunk: Trunk, features: jax.Array) -> jax.Array:
        grid = pool_to_grid(features, self.max_grid)
        square = grid.shape[-3] == grid.shape[-2]
        quarters = range(0, 4, 1 if self.rotations == 4 and square else 2)
        # Beside the map, not in front of the batch, which may be spread over a mesh.
        turns = [jnp.rot90(grid, k, axes=(-3, -2)) for k in quarters]
        heat = trunk(jnp.stack(turns, axis=-4))
        back = [
            jnp.rot90(heat[..., i, :, :, :], -k, axes=(-3, -2))
            for i, k in enumerate(quarters)
        ]
        return jnp.mean(jnp.stack(back), axis=0)
