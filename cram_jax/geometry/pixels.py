"""Rectangles in pixels of the photograph that a network's input was cut from, and back.

**Pixels.** (x, y) in pixels from the *edges*: the photograph spans [0, width] x
[0, height], pixel i covers [i, i + 1] and its centre is i + 0.5. A box is
`(left, top, right, bottom)`, so its width is `right - left`. Whoever counts pixels
(first and last one, both inside) has the box `(first, ..., last + 1)`; COCO's
`[x, y, width, height]` is `(x, y, x + width, y + height)`.

**The way of the image.** The network's input shows the box `crop` of the photograph,
resized to `height` x `width`. The crop may reach beyond the photograph (padding), and
resizing may stretch it: then the rectangle is a parallelogram in the photograph, whose
polygon is exact and whose box is the hull of that. Isotropic coordinates depend only on
the ratio of height and width, so those of the layer's map do as well if it covers the
input evenly; where a network looks beside that, move the rectangle by
`cram_jax.backbones.alignment.rectangle_on_image` first.

All functions take the rectangles `[...]` in coordinates of the network's input, its
`height` and `width`, and the `crop`, None where the input is the whole photograph.
Everything is batched, differentiable, and float32 or better.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from cram_jax.geometry.batched import align
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.rectangle import Rectangle, rectangle_corners
from cram_jax.numerics import at_least_float32

__all__ = [
    "pixels_of_points",
    "points_of_pixels",
    "rectangle_from_pixel_box",
    "rectangle_pixel_box",
    "rectangle_polygon",
]

Box = jax.typing.ArrayLike | Sequence[float]


def crop_or_whole(crop: Box | None, height: int, width: int) -> jax.Array:
    """The crop as an array, checked; without one the whole of the input."""
    if crop is None:
        return jnp.array([0.0, 0.0, width, height], jnp.float32)
    box = as_box(crop, "crop")
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(crop)):
        known = np.asarray(crop)
        if not np.all(known[..., 2:] > known[..., :2]):
            raise ValueError(
                "A crop is (left, top, right, bottom) with left < right and top <"
                f" bottom; got {known.tolist()}."
            )
    return box


def as_box(box: Box, name: str) -> jax.Array:
    """The box as a floating array, checked."""
    box = jnp.asarray(box)
    if box.ndim == 0 or box.shape[-1] != 4:
        raise ValueError(
            f"A {name} is (left, top, right, bottom) on its last axis; got shape"
            f" {box.shape}."
        )
    if not jnp.issubdtype(box.dtype, jnp.floating):
        box = box.astype(jnp.float32)
    return at_least_float32(box)


def corner_and_size(crop: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Corner (left, top) and size (width, height), `[..., 2]` each."""
    return crop[..., :2], crop[..., 2:] - crop[..., :2]


def pixels_of_points(
    points: jax.Array, height: int, width: int, *, crop: Box | None = None
) -> jax.Array:
    """Points in isotropic coordinates as points in pixels of the photograph.

    Args:
      points: `[..., 2]` as (x, y).
      height: rows of the network's input, in pixels.
      width: columns of the network's input, in pixels.
      crop: (left, top, right, bottom) `[..., 4]` of the photograph that the input
        shows; None where the input is the photograph. Batch axes broadcast.

    Returns:
      `[..., 2]` as (x, y), in pixels from the photograph's edges.

    Raises:
      ValueError: for sides below 1, and a crop that is none.
    """
    points = at_least_float32(jnp.asarray(points))
    extents = jnp.array(map_extents(height, width), points.dtype)
    corner, size = corner_and_size(crop_or_whole(crop, height, width))
    return corner + size * (points / extents + 1) / 2


def points_of_pixels(
    pixels: jax.Array, height: int, width: int, *, crop: Box | None = None
) -> jax.Array:
    """The inverse of `pixels_of_points`, with the same arguments."""
    pixels = at_least_float32(jnp.asarray(pixels))
    extents = jnp.array(map_extents(height, width), pixels.dtype)
    corner, size = corner_and_size(crop_or_whole(crop, height, width))
    return ((pixels - corner) / size * 2 - 1) * extents


def rectangle_polygon(
    rectangle: Rectangle, height: int, width: int, *, crop: Box | None = None
) -> jax.Array:
    """The four corners in pixels of the photograph, in order round the rectangle.

    Args:
      rectangle: `[...]`, in coordinates of the network's input.
      height: rows of the network's input, in pixels.
      width: columns of the network's input, in pixels.
      crop: see `pixels_of_points`; `[..., 4]`. Batch axes broadcast; the crops of
        images beside rectangles `[B, K]` are `[B, 1, 4]`.

    Returns:
      `[..., 4, 2]` as (x, y); clockwise on screen. They may lie beyond the photograph.

    Raises:
      ValueError: for sides below 1, a crop that is none, and batch axes that do not
        fit together.
    """
    own = crop_or_whole(crop, height, width)
    rectangle, own = align(rectangle=(rectangle, 0), crop=(own, 1))
    corners = rectangle_corners(rectangle)
    return pixels_of_points(corners, height, width, crop=own[..., None, :])


def rectangle_pixel_box(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    crop: Box | None = None,
    picture: tuple[int, int] | None = None,
) -> jax.Array:
    """The tight axis-aligned box round the rectangle, in pixels of the photograph.

    Args:
      rectangle: `[...]`, in coordinates of the network's input.
      height: rows of the network's input, in pixels.
      width: columns of the network's input, in pixels.
      crop: see `rectangle_polygon`.
      picture: (height, width) of the photograph to cut the box at its edges; None
        leaves it as it is. A rectangle beside the photograph gives a box of no area.

    Returns:
      `[..., 4]` as (left, top, right, bottom).

    Raises:
      ValueError: for sides below 1, and a crop that is none.
    """
    corners = rectangle_polygon(rectangle, height, width, crop=crop)
    box = jnp.concatenate([corners.min(-2), corners.max(-2)], axis=-1)
    if picture is None:
        return box
    map_extents(*picture)
    rows, columns = picture
    return jnp.clip(box, 0, jnp.array([columns, rows, columns, rows], box.dtype))


def rectangle_from_pixel_box(
    box: Box, height: int, width: int, *, crop: Box | None = None
) -> Rectangle:
    """The rectangle of a box in the photograph; the inverse of `rectangle_pixel_box`.

    Args:
      box: (left, top, right, bottom) `[..., 4]` in pixels of the photograph.
      height: rows of the network's input, in pixels.
      width: columns of the network's input, in pixels.
      crop: see `rectangle_polygon`.

    Returns:
      Rectangles `[...]` with angle 0, in coordinates of the network's input.

    Raises:
      ValueError: for sides below 1, and a box or crop that is none.
    """
    box, crop = as_box(box, "box"), crop_or_whole(crop, height, width)
    first = points_of_pixels(box[..., :2], height, width, crop=crop)
    last = points_of_pixels(box[..., 2:], height, width, crop=crop)
    center, half = (first + last) / 2, (last - first) / 2
    return Rectangle(
        center_x=center[..., 0],
        center_y=center[..., 1],
        half_width=half[..., 0],
        half_height=half[..., 1],
        angle=jnp.zeros_like(center[..., 0]),
    )
