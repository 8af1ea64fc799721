"""The CRAM layer: predict a rectangle, render its mask, gate the features."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cram_jax.attention.gate import Gate, check_features
from cram_jax.attention.predictors import MomentPredictor
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import (
    check_sharpness,
    relative_sharpness,
    render_mask,
)
from cram_jax.numerics import Dtype

__all__ = ["RectangularAttention"]


class RectangularAttention(nn.Module):
    """Spatial attention whose mask is one soft rotated rectangle.

    After CRAM (Nguyen et al. 2025, arXiv 2503.10875); the edge function, the
    predictors and their initial values are ours. At initialisation the rectangle is
    larger than the map and the mask nearly 1, so the layer can be put into a trained
    network without hurting it. See `cram_jax.geometry.rendering` for the mask.

    `intermediates` receives "rectangle" (`[...]`) and "mask" (`[..., H, W]`).

    Attributes:
      predictor: makes the linen module that maps features to a `Rectangle`; called
        with `dtype`, `param_dtype` and `name`. A class or a `functools.partial`.
      sharpness: the mask's edges', in units of the rectangle's size, positive (see
        `relative_sharpness`). A value "sharpness" at the layer's path in the
        collection "schedule", where there is one, takes its place
        (`sharpness_schedule` makes it), so that it can change without recompiling.
      floor: what the gate lets through far outside the rectangle, in [0, 1).
      fill: what takes the place of what is masked, "zero" or "mean" (`apply_mask`).
      dtype: computation dtype of the predictor; None takes the features'. Geometry
        is float32 or better always.
      param_dtype: dtype of the parameters.
    """

    shows = ("rectangle", "mask")

    predictor: Callable[..., nn.Module] = MomentPredictor
    sharpness: float = 10.0
    floor: float | np.floating = 0.0
    fill: str = "zero"
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    def setup(self) -> None:
        """Makes the predictor."""
        check_sharpness(self.sharpness)
        self._predictor = self.predictor(
            dtype=self.dtype, param_dtype=self.param_dtype, name="mask_predictor"
        )
        self._gate = Gate(self.floor, self.fill, name="gate")

    def locate(self, features: jax.Array, *, train: bool = False) -> Rectangle:
        """The rectangle `[...]` of each map of `[..., H, W, C]`.

        Raises:
          ValueError: on a wrong rank or integer features.
        """
        del train
        check_features(features)
        return self._predictor(features)

    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates `[..., H, W, C]`; shape and dtype stay.

        Raises:
          ValueError: on a wrong rank or integer features.
        """
        rectangle = self.locate(features, train=train)
        sharpness = self.sharpness
        if self.has_variable("schedule", "sharpness"):
            sharpness = self.get_variable("schedule", "sharpness")
        sharpness = relative_sharpness(rectangle, sharpness)
        mask = render_mask(rectangle, *features.shape[-3:-1], sharpness=sharpness)
        self.sow("intermediates", "rectangle", rectangle)
        self.sow("intermediates", "mask", mask)
        return self._gate(features, mask)
