"""The CRAM layer: predict rectangles, render their mask, gate the features."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from cram_jax.attention.gate import Gate, check_features
from cram_jax.attention.predictors import MomentPredictor
from cram_jax.checks import check_count
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import (
    check_sharpness,
    mask_union,
    relative_sharpness,
    render_mask,
)
from cram_jax.numerics import Dtype

__all__ = ["RectangularAttention"]


class RectangularAttention(nn.Module):
    """Spatial attention whose mask is one soft rotated rectangle, or several.

    After CRAM (Nguyen et al. 2025, arXiv 2503.10875); the edge function, the
    predictors and their initial values are ours. At initialisation the rectangle is
    larger than the map and the mask nearly 1, so the layer can be put into a trained
    network without hurting it. See `cram_jax.geometry.rendering` for the mask.

    With a `count` of K > 1, which is ours, the mask is the union of K (`mask_union`).
    They start in K tiles of the map (`cram_jax.attention.tiles`), so no two are alike;
    together they see everything.

    `intermediates` receives "mask" (`[..., H, W]`) and "rectangle": `[...]`, or with a
    `count` above 1 `[..., K]`. Ranks tell which, sizes need not
    (`cram_jax.attention.evidence.shows_several`).

    Attributes:
      predictor: makes the linen module that maps features to a `Rectangle`; called
        with `dtype`, `param_dtype` and `name`, and with `count` where that is not 1.
        A class or a `functools.partial`.
      sharpness: the mask's edges', in units of the rectangle's size, positive (see
        `relative_sharpness`). A value "sharpness" at the layer's path in the
        collection "schedule", where there is one, takes its place
        (`sharpness_schedule` makes it), so that it can change without recompiling.
      floor: what the gate lets through far outside the rectangle, in [0, 1).
      fill: what takes the place of what is masked, "zero" or "mean" (`apply_mask`).
      dtype: computation dtype of the predictor; None takes the features'. Geometry
        is float32 or better always.
      param_dtype: dtype of the parameters.
      count: number of rectangles, at least 1.
    """

    shows = ("rectangle", "mask")

    predictor: Callable[..., nn.Module] = MomentPredictor
    sharpness: float = 10.0
    floor: float | np.floating = 0.0
    fill: str = "zero"
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32
    count: int = 1

    def setup(self) -> None:
        """Makes the predictor."""
        check_sharpness(self.sharpness)
        check_count("count", self.count)
        several = {"count": self.count} if self.count > 1 else {}
        if several:
            _check_takes_count(self.predictor, self.count)
        self._predictor = self.predictor(
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="mask_predictor",
            **several,
        )
        self._gate = Gate(self.floor, self.fill, name="gate")

    def locate(self, features: jax.Array, *, train: bool = False) -> Rectangle:
        """The rectangle `[...]` of each map of `[..., H, W, C]`; several: `[..., K]`.

        Raises:
          ValueError: on a wrong rank or integer features, and for a predictor that
            gives another number of rectangles.
        """
        del train
        check_features(features)
        rectangle = self._predictor(features)
        _check_predicted(rectangle, features.shape[:-3], self.count)
        return rectangle

    def __call__(self, features: jax.Array, *, train: bool = False) -> jax.Array:
        """Gates `[..., H, W, C]`; shape and dtype stay.

        Raises:
          ValueError: as `locate` does.
        """
        rectangle = self.locate(features, train=train)
        sharpness = self.sharpness
        if self.has_variable("schedule", "sharpness"):
            sharpness = self.get_variable("schedule", "sharpness")
        sharpness = relative_sharpness(rectangle, sharpness)
        mask = render_mask(rectangle, *features.shape[-3:-1], sharpness=sharpness)
        if self.count > 1:
            mask = mask_union(mask)
        self.sow("intermediates", "rectangle", rectangle)
        self.sow("intermediates", "mask", mask)
        return self._gate(features, mask)


def _check_takes_count(predictor: Callable[..., nn.Module], count: int) -> None:
    """Raises ValueError for a predictor that cannot be asked for several rectangles."""
    kinds = inspect.signature(predictor).parameters
    if "count" in kinds or any(
        each.kind is each.VAR_KEYWORD for each in kinds.values()
    ):
        return
    name = getattr(predictor, "__name__", repr(predictor))
    raise ValueError(
        f"count={count} needs a predictor that takes `count`, as MomentPredictor and"
        f" RegressionPredictor do; {name} does not."
    )


def _check_predicted(rectangle: Rectangle, batch: tuple[int, ...], count: int) -> None:
    """Raises ValueError unless there are `count` rectangles for each map."""
    shape = jnp.shape(rectangle.center_x)
    # One rectangle for all maps is legal: it broadcasts.
    fits = shape == (*batch, count) if count > 1 else len(shape) <= len(batch)
    if not fits:
        raise ValueError(
            f"The predictor gave rectangles {shape} for maps {batch}, and the layer's"
            f" count is {count}; set the count on the layer, which hands it on."
        )
