"""When the image moves, its rectangle must move with it (ours).

Two rectangles are compared: the one found in an image, moved by the similarity that
moved the image, and the one found in the moved image. `equivariance_loss` trains a
network to make them equal; `equivariance_iou` and `mask_equivariance_iou` measure how
equal they are, the latter also for layers whose mask is no rectangle.

A distance between rectangles in units of the map rewards shrinking: of two small
rectangles the sizes differ by little. *Relative* distances are measured in units of
the pair itself: the root mean square u of their four half sizes. Sizes are divided by
u, so that a common factor of all sizes cancels. Offsets are divided by u taken as a
constant, because otherwise the loss would reward growing instead: the same offset
would count less. Either way the gradient towards a common factor of all sizes is 0.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from cram_jax.distances import gaussian_distance_squared, rectangle_distance
from cram_jax.overlap import mask_iou, rectangle_intersection_area, rotated_iou
from cram_jax.rectangle import Rectangle, rectangle_area
from cram_jax.rendering import render_mask
from cram_jax.similarity import Similarity, transform_rectangle
from cram_jax.warping import inside_mask, warp_image

__all__ = [
    "equivariance_distance",
    "equivariance_iou",
    "equivariance_loss",
    "mask_equivariance_iou",
    "visible_fraction",
]

METRICS = ("gaussian", "parameters", "corners", "mask")
# Smaller pairs than this are compared in units of this, not of their own size.
SMALLEST_UNIT = 1e-3
# In these units a thinner side is as good as this one.
THINNEST = 1e-6
# The metric "mask" renders on a grid of so many pixels, with edges a twelfth of half
# its side wide; a relative pair is shown in a window of three units in each direction.
MASK_PIXELS = 32
MASK_SHARPNESS = 12.0
MASK_WINDOW = 3.0


def equivariance_distance(
    rectangle: Rectangle,
    moved_rectangle: Rectangle,
    similarity: Similarity,
    *,
    metric: str = "gaussian",
    relative: bool = True,
) -> jax.Array:
    """The squared distance of the moved rectangle to the rectangle of the moved image.

    Args:
      rectangle: found in the image, `[...]`.
      moved_rectangle: found in the moved image, `[...]`.
      similarity: what moved the image, `[...]`.
      metric: `"gaussian"`, `"parameters"` or `"corners"`: the square of
        `cram_jax.distances.rectangle_distance`; or `"mask"`: the squared difference of
        the two soft masks, summed, over the sum of their squares, which is at most 1.
      relative: measure in units of the rectangles' own size (see the module's
        docstring), else in units of the map. The difference of two angles and the
        value of masks have no unit.

    Returns:
      `[...]`, 0 where the rectangle moved exactly with the image.

    Raises:
      ValueError: on an unknown metric.
    """
    if metric not in METRICS:
        raise ValueError(f"Unknown metric {metric!r}; choose one of {METRICS}.")
    expected = transform_rectangle(similarity, rectangle)
    found = moved_rectangle
    if relative:
        expected, found = _in_own_units(expected, found)
    if metric == "gaussian":
        return gaussian_distance_squared(expected, found)
    if metric == "mask":
        return _mask_distance(expected, found, MASK_WINDOW if relative else 1.0)
    return rectangle_distance(expected, found, metric=metric) ** 2


def _in_own_units(a: Rectangle, b: Rectangle) -> tuple[Rectangle, Rectangle]:
    """The pair seen from the centre of `a`, in units of its root mean square size."""
    squares = a.half_width**2 + a.half_height**2 + b.half_width**2 + b.half_height**2
    unit = jnp.sqrt(jnp.maximum(squares / 4, SMALLEST_UNIT**2))
    offset_unit = jax.lax.stop_gradient(unit)

    def seen(rectangle: Rectangle) -> Rectangle:
        # In float32 the square of the square of a much thinner side underflows.
        return Rectangle(
            center_x=(rectangle.center_x - a.center_x) / offset_unit,
            center_y=(rectangle.center_y - a.center_y) / offset_unit,
            half_width=jnp.maximum(rectangle.half_width / unit, THINNEST),
            half_height=jnp.maximum(rectangle.half_height / unit, THINNEST),
            angle=rectangle.angle,
        )

    return seen(a), seen(b)


def _mask_distance(a: Rectangle, b: Rectangle, window: float) -> jax.Array:
    def mask(rectangle: Rectangle) -> jax.Array:
        shrunk = Rectangle(
            center_x=rectangle.center_x / window,
            center_y=rectangle.center_y / window,
            half_width=rectangle.half_width / window,
            half_height=rectangle.half_height / window,
            angle=rectangle.angle,
        )
        return render_mask(shrunk, MASK_PIXELS, MASK_PIXELS, sharpness=MASK_SHARPNESS)

    mask_a, mask_b = mask(a), mask(b)
    difference = jnp.sum((mask_a - mask_b) ** 2, axis=(-2, -1))
    total = jnp.sum(mask_a**2 + mask_b**2, axis=(-2, -1))
    # Two rectangles out of sight of the grid have nothing to compare.
    some = total > 1e-12
    return jnp.where(some, difference, 0.0) / jnp.where(some, total, 1.0)


def equivariance_loss(
    rectangles: Rectangle | Mapping[str, Rectangle],
    moved_rectangles: Rectangle | Mapping[str, Rectangle],
    similarities: Similarity,
    *,
    metric: str = "gaussian",
    relative: bool = True,
    stop_gradient: Literal["none", "original", "moved"] = "none",
    min_inside: float = 0.5,
    extent_x: float = 1.0,
    extent_y: float = 1.0,
    weights: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """The mean squared distance of moved rectangles to those of the moved images.

    Args:
      rectangles: found in the images, `[B]`; or one such batch per layer, by name, as
        `attended_rectangles` gives them.
      moved_rectangles: found in the moved images, of the same structure.
      similarities: what moved each image, `[B]`.
      metric: see `equivariance_distance`.
      relative: see `equivariance_distance`.
      stop_gradient: the side that is a fixed target: the rectangle of the original
        image, that of the moved image, or neither.
      min_inside: pairs count only if at least this fraction of the moved rectangle
        lies inside the frame (or of the frame inside the rectangle, if that is the
        larger one): the network cannot find what it cannot see.
      extent_x: half the width of the frame, see `map_extents`.
      extent_y: half its height.
      weights: `[B]`, 0 for images that do not count (padding), 1 for the others.

    Returns:
      A scalar: the weighted mean over the pairs that count, then over the layers; 0 if
      no pair counts.

    Raises:
      ValueError: on an unknown metric or side, or if the layers differ.
    """
    if stop_gradient not in ("none", "original", "moved"):
        raise ValueError(
            f"Unknown side {stop_gradient!r} for stop_gradient; choose 'none', "
            "'original' or 'moved'."
        )
    layers, moved_layers = _by_name(rectangles), _by_name(moved_rectangles)
    if layers.keys() != moved_layers.keys() or not layers:
        raise ValueError(
            "The loss compares the same layers, at least one, on both sides; got "
            f"{sorted(layers)} and {sorted(moved_layers)}."
        )
    distance = functools.partial(
        equivariance_distance, metric=metric, relative=relative
    )
    given = jnp.asarray(1.0 if weights is None else weights)
    losses = []
    for name in layers:
        original = _held(layers[name], stop_gradient == "original")
        moved = _held(moved_layers[name], stop_gradient == "moved")
        distances = jax.vmap(distance)(original, moved, similarities)
        expected = transform_rectangle(similarities, original)
        seen = visible_fraction(expected, extent_x, extent_y) >= min_inside
        weight = given * seen
        losses.append(jnp.sum(weight * distances) / jnp.maximum(jnp.sum(weight), 1.0))
    return jnp.mean(jnp.stack(losses))


def _held(rectangle: Rectangle, hold: bool) -> Rectangle:
    return jax.lax.stop_gradient(rectangle) if hold else rectangle


def _by_name(
    rectangles: Rectangle | Mapping[str, Rectangle],
) -> Mapping[str, Rectangle]:
    return {"": rectangles} if isinstance(rectangles, Rectangle) else rectangles


def visible_fraction(
    rectangle: Rectangle, extent_x: float, extent_y: float
) -> jax.Array:
    """Area shared with the frame, over the smaller of both areas.

    Args:
      rectangle: rectangles `[...]`.
      extent_x: half the width of the frame, see `map_extents`.
      extent_y: half its height.

    Returns:
      `[...]` in [0, 1].
    """
    zero = jnp.zeros_like(rectangle.center_x)
    frame = Rectangle(zero, zero, zero + extent_x, zero + extent_y, zero)
    shared = rectangle_intersection_area(frame, rectangle)
    smaller = jnp.minimum(rectangle_area(rectangle), 4 * extent_x * extent_y)
    return shared / jnp.maximum(smaller, 1e-12)


def equivariance_iou(
    rectangles: Rectangle, moved_rectangles: Rectangle, similarities: Similarity
) -> jax.Array:
    """Rotated IoU of moved rectangles with those found in the moved images.

    Args:
      rectangles: found in the images, `[...]`.
      moved_rectangles: found in the moved images, `[...]`.
      similarities: what moved the images, `[...]`.

    Returns:
      `[...]` in [0, 1]; 1 means perfect equivariance.
    """
    return rotated_iou(transform_rectangle(similarities, rectangles), moved_rectangles)


def mask_equivariance_iou(
    masks: jax.Array, moved_masks: jax.Array, similarities: Similarity
) -> jax.Array:
    """IoU of moved masks with those found in the moved images, for any mask.

    Only what came from inside the image is compared.

    Args:
      masks: found in the images, `[..., H, W]`, floating point, in [0, 1].
      moved_masks: found in the moved images, `[..., H, W]`.
      similarities: what moved the images, `[...]`.

    Returns:
      `[...]` in [0, 1], by `mask_iou`.
    """
    inside = inside_mask(similarities, *masks.shape[-2:])
    moved = warp_image(similarities, masks[..., None])[..., 0]
    return mask_iou(moved * inside, moved_masks * inside)
