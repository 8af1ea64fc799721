"""The picture of a prediction: the photograph, where the network looked, a caption."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from cram_jax.drawing import PALETTE, draw_rectangles, overlay_mask
from cram_jax.drawing.fonts import load_font
from cram_jax.geometry.rectangle import Rectangle
from train.data.views import View
from train.evidence.sight import Sight, as_seen

# Small images are enlarged by whole factors to about the first, large ones reduced to
# the second: longest side in pixels.
_SMALL, _LARGE = 192, 1600
_MARGIN = 3
_WHITE = "#ffffff"
_SPOTLIGHT: dict[str, Any] = {"color": "#000000", "opacity": 0.8, "outside": True}


def draw_sight(
    sight: Sight,
    image: np.ndarray,
    caption: str,
    draw: Callable[[np.ndarray, float], np.ndarray] | None = None,
    *,
    spotlight: bool = False,
) -> np.ndarray:
    """The photograph with masks, rectangles and a caption.

    Args:
      sight: where the network looked in it.
      image: uint8 `[H, W, 1 or 3]`, the original.
      caption: one line.
      draw: what else is drawn, first: a function of the picture at the size that is
        shown, and its pixels per pixel of the original, that gives the new picture.
      spotlight: darken the picture where a mask is low, instead of a tint where it is
        high.

    Returns:
      uint8 `[h, w, 3]`; the longest side is 1600 pixels at most, but for letters that
      need more room.
    """
    picture, scale = _shown(as_seen(image, 3))
    if draw is not None:
        picture = draw(picture, scale)
    view = dataclasses.replace(
        sight.view,
        left=sight.view.left * scale,
        top=sight.view.top * scale,
        right=sight.view.right * scale,
        bottom=sight.view.bottom * scale,
    )
    for mask in sight.masks.values():
        whole = over_original(mask, view, picture.shape[:2])
        picture = overlay_mask(picture, whole, **(_SPOTLIGHT if spotlight else {}))
    width = max(2.0, max(picture.shape) / 200)
    lines = [(caption, _WHITE)]
    for index, layer in enumerate(sight.rectangles):
        color = str(PALETTE[index % len(PALETTE)])
        covers = sight.covers_each(layer)
        drawn = np.asarray(sight.on_picture(layer).as_array())[~covers]
        rectangles = Rectangle.from_array(drawn.reshape(-1, 5))
        picture = draw_rectangles(picture, rectangles, color=color, width=width)
        if np.any(covers):
            # Its outline is out of sight: the frame stands for it, and is said to.
            frame = _frame(picture.shape[0], picture.shape[1], width)
            picture = draw_rectangles(picture, frame, color=color, width=width)
            lines.append(("rectangle wider than the picture", color))
    return write_lines(picture, lines)


def over_original(mask: np.ndarray, view: View, size: tuple[int, int]) -> np.ndarray:
    """A mask over the view as one over the whole picture, 0 outside the view.

    Args:
      mask: `[h, w]` in [0, 1].
      view: in pixels of the picture.
      size: (height, width) of the picture.
    """
    left, right = _whole_pixels(view.left, view.right, size[1])
    top, bottom = _whole_pixels(view.top, view.bottom, size[0])
    stretched = Image.fromarray(mask).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    whole = np.zeros(size, np.float32)
    whole[top:bottom, left:right] = np.clip(np.asarray(stretched), 0.0, 1.0)
    return whole


def _whole_pixels(first: float, last: float, count: int) -> tuple[int, int]:
    """An interval of whole pixels inside a side of `count`, one pixel at least."""
    low = min(max(round(first), 0), count - 1)
    return low, max(min(round(last), count), low + 1)


def _shown(image: np.ndarray) -> tuple[np.ndarray, float]:
    """The image at the size it is shown at, and the factor between the two."""
    height, width = image.shape[:2]
    longest = max(height, width)
    if longest > _LARGE:
        scale = _LARGE / longest
        size = max(1, round(width * scale)), max(1, round(height * scale))
        # Halving first costs less memory than one filter over all pixels.
        small = Image.fromarray(image).resize(
            size, Image.Resampling.LANCZOS, reducing_gap=3.0
        )
        return np.asarray(small), scale
    upscale = max(1, _SMALL // longest)
    return image.repeat(upscale, axis=0).repeat(upscale, axis=1), float(upscale)


def _frame(height: int, width: int, line: float) -> Rectangle:
    """The rectangle whose outline lies just inside a picture's edges."""
    sides = np.array([width - line, height - line]) / max(height, width)
    return Rectangle.from_array(np.array([0.0, 0.0, *np.maximum(sides, 0.0), 0.0]))


def write_lines(picture: np.ndarray, lines: list[tuple[str, str]]) -> np.ndarray:
    """Writes lines of text in the upper left corner, on black.

    Lines too long for the picture are broken. Where the text would cover more than
    half of the picture, it stands above it.

    Args:
      picture: uint8 `[H, W, 3]`.
      lines: text and colour of each.
    """
    size = max(12, max(picture.shape[:2]) // 50)
    room = max(picture.shape[1], 10 * size) - 2 * _MARGIN
    broken = [
        (part, color) for text, color in lines for part in _broken(text, size, room)
    ]
    box = _text_box(broken, size)
    height, width = picture.shape[:2]
    above = box.width > width or box.height > height / 2
    canvas = Image.new(
        "RGB",
        (max(width, box.width), height + (box.height if above else 0)),
    )
    canvas.paste(Image.fromarray(picture), (0, box.height if above else 0))
    canvas.paste(box, (0, 0))
    return np.asarray(canvas)


def _broken(text: str, size: int, room: int) -> list[str]:
    """The text in pieces that fit into a width, broken at spaces where there are."""
    font, pieces = load_font(text, size), []
    while font.getlength(text) > room and len(text) > 1:
        share = room / font.getlength(text)
        end = max(1, math.floor(len(text) * share))
        while end > 1 and font.getlength(text[:end]) > room:
            end -= 1
        space = text.rfind(" ", 1, end + 1)
        end = space if space > 0 else end
        pieces.append(text[:end])
        text = text[end:].lstrip()
    return [*pieces, text]


def _text_box(lines: list[tuple[str, str]], size: int) -> Image.Image:
    """Lines of text on black, as large as they need."""
    fonts = [load_font(text, size) for text, _ in lines]
    widths = [
        font.getbbox(text)[2] for font, (text, _) in zip(fonts, lines, strict=True)
    ]
    step = round(size * 1.35)
    box = Image.new(
        "RGB", (round(max(widths)) + 2 * _MARGIN, step * len(lines) + _MARGIN)
    )
    pen = ImageDraw.Draw(box)
    for row, (font, (text, color)) in enumerate(zip(fonts, lines, strict=True)):
        pen.text((_MARGIN, row * step), text, font=font, fill=color)
    return box
