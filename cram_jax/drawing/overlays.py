"""Rectangles and masks drawn on images.

What counts as an image is said in `cram_jax.drawing.images`; pictures come out as uint8
RGB arrays. Rectangles are in the coordinates of `cram_jax.geometry.coordinates`,
relative to the image they are drawn on.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from cram_jax.drawing.fonts import load_font
from cram_jax.drawing.images import (
    as_picture,
    check_unit_interval,
    enlarged,
    image_grid,
    load_pillow,
    row_bands,
)
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.rectangle import Rectangle, rectangle_corners

__all__ = ["draw_rectangles", "image_grid", "overlay_mask", "rectangle_pixel_corners"]

Color = str | tuple[int, int, int]

# Told apart by everybody, on dark and on light ground (Okabe and Ito, 2008).
PALETTE: tuple[Color, ...] = ("#f0e442", "#56b4e9", "#d55e00", "#009e73", "#cc79a7")
# Of the thin dark line on both sides of a coloured one.
BORDER_OPACITY = 0.6
# Side of the squares in which outlines are drawn, in pixels.
_TILE = 64
_LETTERS = 12


def rectangle_pixel_corners(
    rectangle: Rectangle, height: int, width: int
) -> np.ndarray:
    """The corners of rectangles in pixels of an image.

    Args:
      rectangle: rectangles `[...]`.
      height: rows of the image.
      width: columns of the image.

    Returns:
      float64 `[..., 4, 2]` as (x, y), in order round the rectangle. The first pixel
      has its outer corner at (0, 0), its centre at (0.5, 0.5).
    """
    corners = np.asarray(rectangle_corners(rectangle), np.float64)
    extents = np.array(map_extents(height, width))
    return (corners / extents + 1) / 2 * [width, height]


def draw_rectangles(
    image: jax.typing.ArrayLike,
    rectangles: Rectangle,
    *,
    color: Color | Sequence[Color] = PALETTE,
    width: float = 2.0,
    labels: Sequence[str] | None = None,
    upscale: int = 1,
) -> np.ndarray:
    """Draws the outlines of rectangles on one image.

    Lines are antialiased and have a thin dark border, so that they show on any
    ground. A small image becomes legible with `upscale`: its pixels stay square, the
    lines are drawn on top at full resolution.

    Args:
      image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8 or floating in [0, 1].
      rectangles: one rectangle or a batch `[n]`.
      color: one colour (a name, "#rrggbb", or three integers up to 255), or a
        sequence of them, used in turn.
      width: thickness of the lines, in pixels of the result.
      labels: a short text for each rectangle, written at its topmost corner.
      upscale: whole factor by which the image is enlarged first.

    Returns:
      uint8 `[H * upscale, W * upscale, 3]`.

    Raises:
      ImportError: if Pillow is missing.
      ValueError: on an image, a factor or a number of labels that does not fit.
    """
    picture = enlarged(as_picture(image), upscale)
    corners = rectangle_pixel_corners(rectangles, *picture.shape[:2])
    corners = corners.reshape(-1, 4, 2)
    if labels is not None and len(labels) != len(corners):
        raise ValueError(
            "Each rectangle needs one label, got "
            f"{len(labels)} labels for {len(corners)} rectangles."
        )
    colors = _colors(color)
    picture = _with_outlines(picture, rectangles, colors, width)
    return _with_labels(picture, labels or (), corners, colors)


def overlay_mask(
    image: jax.typing.ArrayLike,
    mask: jax.typing.ArrayLike,
    *,
    color: Color = "#d55e00",
    opacity: float = 0.5,
    outside: bool = False,
    upscale: int = 1,
) -> np.ndarray:
    """Tints an image where a mask is high.

    Args:
      image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8 or floating in [0, 1].
      mask: `[h, w]` in [0, 1], boolean or floating, of any size: it is stretched
        over the image, bilinearly.
      color: the tint's colour; see `draw_rectangles`.
      opacity: the tint's, where the mask is 1.
      outside: tint where the mask is low instead; with black, the spotlight.
      upscale: whole factor by which the image is enlarged first.

    Returns:
      uint8 `[H * upscale, W * upscale, 3]`.

    Raises:
      ImportError: if Pillow is missing.
      ValueError: on an image, a mask or a factor that does not fit.
    """
    picture = enlarged(as_picture(image), upscale)
    values = np.asarray(mask, np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ValueError(
            f"One mask has the shape [h, w], got {values.shape}; draw the masks of a "
            "batch one by one."
        )
    check_unit_interval(values, "mask")
    height, width = picture.shape[:2]
    pillow = load_pillow().Image
    stretched = pillow.fromarray(values).resize(
        (width, height), pillow.Resampling.BILINEAR
    )
    weights = np.asarray(stretched)
    tint = np.array(_rgb(color), np.float32)
    result = np.empty(picture.shape, np.uint8)
    for band in row_bands(height, width):
        weight = weights[band, :, None]
        weight = opacity * (1 - weight if outside else weight)
        result[band] = np.rint(picture[band] * (1 - weight) + tint * weight)
    return result


def _rgb(color: Color) -> tuple[int, ...]:
    return (
        load_pillow().ImageColor.getrgb(color)[:3] if isinstance(color, str) else color
    )


def _colors(color: Color | Sequence[Color]) -> list[tuple[int, ...]]:
    one = isinstance(color, str) or isinstance(color[0], int)
    return [_rgb(c) for c in ([color] if one else color)]  # type: ignore[arg-type]


def _edge_distance(
    numbers: np.ndarray, x: np.ndarray, y: np.ndarray, height: int, width: int
) -> np.ndarray:
    """How far points `x` `[w]`, `y` `[h]` are from an outline, in pixels `[h, w]`."""
    center_x, center_y, half_width, half_height, angle = numbers
    pixel = max(height, width) / 2
    right = x - width / 2 - center_x * pixel
    down = (y - height / 2 - center_y * pixel)[:, None]
    cos, sin = np.cos(angle), np.sin(angle)
    beyond_x = np.abs(cos * right + sin * down) - half_width * pixel
    beyond_y = np.abs(cos * down - sin * right) - half_height * pixel
    outside = np.hypot(np.maximum(beyond_x, 0), np.maximum(beyond_y, 0))
    return np.abs(outside + np.minimum(np.maximum(beyond_x, beyond_y), 0))


def _tiles_near(
    numbers: np.ndarray, reach: float, height: int, width: int
) -> Iterator[tuple[slice, slice]]:
    """The square tiles of an image that a line along the outline may touch.

    A point of a tile is at most half the diagonal from the tile's centre, and no
    distance changes by more than the way walked.
    """
    tops, lefts = np.arange(0, height, _TILE), np.arange(0, width, _TILE)
    distance = _edge_distance(
        numbers, lefts + _TILE / 2, tops + _TILE / 2, height, width
    )
    for row, column in np.argwhere(distance <= reach + _TILE / 2**0.5):
        top, left = int(tops[row]), int(lefts[column])
        yield (
            slice(top, min(top + _TILE, height)),
            slice(left, min(left + _TILE, width)),
        )


def _with_outlines(
    picture: np.ndarray,
    rectangles: Rectangle,
    colors: Sequence[tuple[int, ...]],
    width: float,
) -> np.ndarray:
    """The picture with one line over the other; a pixel is covered in part."""
    result = np.array(picture)
    size = picture.shape[:2]
    array = np.asarray(rectangles.as_array(), np.float64).reshape(-1, 5)
    for index, numbers in enumerate(array):
        color = np.array(colors[index % len(colors)])
        for rows, columns in _tiles_near(numbers, width / 2 + 1, *size):
            x = np.arange(columns.start, columns.stop) + 0.5
            y = np.arange(rows.start, rows.stop) + 0.5
            distance = _edge_distance(numbers, x, y, *size)
            cover = np.clip(width / 2 + 0.5 - distance, 0, 1)[..., None]
            border = np.clip(width / 2 + 1.0 - distance, 0, 1)[..., None]
            tile = result[rows, columns] * (1 - BORDER_OPACITY * border)
            result[rows, columns] = np.rint(tile + cover * (color - tile))
    return result


def _with_labels(
    picture: np.ndarray,
    labels: Sequence[str],
    corners: np.ndarray,
    colors: Sequence[tuple[int, ...]],
) -> np.ndarray:
    """The picture with each label above its topmost corner, kept inside."""
    if not any(labels):
        return picture
    pillow = load_pillow()
    canvas = pillow.Image.fromarray(picture)
    draw = pillow.ImageDraw.Draw(canvas)
    for index, (label, outline) in enumerate(zip(labels, corners, strict=True)):
        font = load_font(label, _LETTERS)
        left, top, right, bottom = draw.textbbox((0, 0), label, font=font)
        x, y = outline[np.argmin(outline[:, 1])]
        x = min(max(x - (right - left) / 2, 2), max(canvas.width - right - 2, 2))
        y = min(max(y - bottom - 4, 1), max(canvas.height - bottom - 2, 1))
        box = (x + left - 2, y + top - 2, x + right + 2, y + bottom + 2)
        draw.rectangle(box, fill=(0, 0, 0))
        draw.text((x, y), label, font=font, fill=colors[index % len(colors)])
    return np.asarray(canvas)
