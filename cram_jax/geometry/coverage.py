"""How much of the photograph a rectangle covers.

Arguments and conventions are those of `cram_jax.geometry.pixels`; `picture` is the
photograph's (height, width), and None asks about the crop instead.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.geometry.batched import align
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.overlap import rectangle_intersection_area
from cram_jax.geometry.pixels import (
    Box,
    corner_and_size,
    crop_or_whole,
    points_of_pixels,
    rectangle_from_pixel_box,
    rectangle_pixel_box,
)
from cram_jax.geometry.rectangle import Rectangle

__all__ = [
    "covers_picture",
    "is_wider_than_picture",
    "rectangle_pixel_area",
    "share_of_picture",
]


def rectangle_pixel_area(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    crop: Box | None = None,
    picture: tuple[int, int] | None = None,
) -> jax.Array:
    """The area of the rectangle inside the photograph, in pixels of it, exact.

    Args:
      rectangle: `[...]`, in coordinates of the network's input.
      height: rows of the network's input, in pixels.
      width: columns of the network's input, in pixels.
      crop: see `rectangle_polygon`.
      picture: (height, width) of the photograph; None counts what lies in the crop.

    Returns:
      `[...]`, at most the area of the photograph.

    Raises:
      ValueError: for sides below 1, and a crop that is none.
    """
    crop = crop_or_whole(crop, height, width)
    frame = crop if picture is None else _whole(picture)
    frame = rectangle_from_pixel_box(frame, height, width, crop=crop)
    extent_x, extent_y = map_extents(height, width)
    _, size = corner_and_size(crop)
    pixels_per_unit = size[..., 0] * size[..., 1] / (4 * extent_x * extent_y)
    return rectangle_intersection_area(frame, rectangle) * pixels_per_unit


def _whole(picture: tuple[int, int]) -> jax.Array:
    map_extents(*picture)
    rows, columns = picture
    return jnp.array([0.0, 0.0, columns, rows], jnp.float32)


def share_of_picture(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    crop: Box | None = None,
    picture: tuple[int, int] | None = None,
) -> jax.Array:
    """The share of the photograph that lies in the rectangle, `[...]` in [0, 1], exact.

    Arguments and errors are those of `rectangle_pixel_area`.
    """
    area = rectangle_pixel_area(rectangle, height, width, crop=crop, picture=picture)
    _, size = corner_and_size(
        crop_or_whole(crop, height, width) if picture is None else _whole(picture)
    )
    return jnp.clip(area / (size[..., 0] * size[..., 1]), 0.0, 1.0)


def is_wider_than_picture(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    crop: Box | None = None,
    picture: tuple[int, int] | None = None,
) -> jax.Array:
    """Whether the rectangle's box is wider or higher than the photograph, bool `[...]`.

    Such a rectangle points at nothing in that direction. Arguments and errors are as in
    `rectangle_pixel_area`.
    """
    box = rectangle_pixel_box(rectangle, height, width, crop=crop)
    _, size = corner_and_size(box)
    _, whole = corner_and_size(
        crop_or_whole(crop, height, width) if picture is None else _whole(picture)
    )
    return jnp.any(size > whole, axis=-1)


def covers_picture(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    crop: Box | None = None,
    picture: tuple[int, int] | None = None,
) -> jax.Array:
    """Whether the whole photograph lies in the rectangle, border included, `[...]`.

    Arguments and errors are those of `rectangle_pixel_area`.
    """
    shown = crop_or_whole(crop, height, width)
    rectangle, shown = align(rectangle=(rectangle, 0), crop=(shown, 1))
    left, top, right, bottom = jnp.moveaxis(
        shown if picture is None else _whole(picture), -1, 0
    )
    corners = jnp.stack(
        [jnp.stack([x, y], -1) for x in (left, right) for y in (top, bottom)], -2
    )
    points = points_of_pixels(corners, height, width, crop=shown[..., None, :])
    x = points[..., 0] - rectangle.center_x[..., None]
    y = points[..., 1] - rectangle.center_y[..., None]
    cos, sin = jnp.cos(rectangle.angle)[..., None], jnp.sin(rectangle.angle)[..., None]
    inside_width = jnp.abs(cos * x + sin * y) <= rectangle.half_width[..., None]
    inside_height = jnp.abs(cos * y - sin * x) <= rectangle.half_height[..., None]
    return jnp.all(inside_width & inside_height, axis=-1)
