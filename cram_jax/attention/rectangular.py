"""The CRAM layer: predict a rectangle, render its mask, gate the features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.attention.gate import Gate
from cram_jax.attention.predictors import MomentPredictor
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import (
    check_features,
    check_sharpness,
    relative_sharpness,
    render_mask,
)
from cram_jax.numerics import at_least_float32

__all__ = ["RectangularAttention", "attended_rectangles", "sharpness_schedule"]


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
      sharpness: of the mask's edges in units of the rectangle's size, positive (see
        `relative_sharpness`). A value "sharpness" at the layer's path in the
        collection "schedule", where there is one, takes its place
        (`sharpness_schedule` makes it), so that it can change without recompiling.
      floor: what the gate lets through far outside the rectangle, in [0, 1).
      fill: what takes the place of what is masked, "zero" or "mean" (`apply_mask`).
      dtype: computation dtype of the predictor; None takes the features'. Geometry
        is float32 or better always.
      param_dtype: dtype of the parameters.
    """

    predictor: Callable[..., nn.Module] = MomentPredictor
    sharpness: float = 10.0
    floor: float = 0.0
    fill: str = "zero"
    dtype: jax.typing.DTypeLike | None = None
    param_dtype: jax.typing.DTypeLike = jnp.float32

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


def attended_rectangles(intermediates: Mapping[str, Any]) -> dict[str, Rectangle]:
    """Every CRAM layer's rectangle by module path, "/" between names.

    Args:
      intermediates: the collection "intermediates" that
        `apply(..., mutable=["intermediates"])` returns, or a dict that holds it
        under that name.

    Returns:
      The rectangles in module order; of several calls of one layer, the last. A
      layer that is itself the root has the path "".
    """
    intermediates = intermediates.get("intermediates", intermediates)
    found: dict[str, Rectangle] = {}

    def visit(tree: Mapping[str, Any], path: tuple[str, ...]) -> None:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                visit(value, (*path, name))
            elif name == "rectangle":
                found["/".join(path)] = value[-1]

    visit(intermediates, ())
    return found


def sharpness_schedule(
    paths: Iterable[str], sharpness: jax.typing.ArrayLike
) -> dict[str, Any]:
    """The collection that sets the sharpness of CRAM layers from outside.

    Merge it into the variables: `model.apply({**variables, **collection}, images)`.
    A traced sharpness can so follow a schedule within one compiled step.

    Args:
      paths: module paths, as the keys of `attended_rectangles`.
      sharpness: positive; a number or a scalar array.

    Returns:
      `{"schedule": {...}}`.

    Raises:
      ValueError: if a sharpness known now is not positive.
    """
    check_sharpness(sharpness)
    value = at_least_float32(sharpness)
    schedule: dict[str, Any] = {}
    for path in paths:
        level = schedule
        for name in filter(None, path.split("/")):
            level = level.setdefault(name, {})
        level["sharpness"] = value
    return {"schedule": schedule}
