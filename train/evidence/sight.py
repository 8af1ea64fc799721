"""Where a trained network looked in one image of any size."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np
from PIL import Image

from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.overlap import rectangle_intersection_area
from cram_jax.geometry.rectangle import Rectangle, rectangle_corners
from train.config.data import DataConfig
from train.data.views import (
    View,
    eval_view,
    pixel_to_isotropic,
    rectangle_to_source,
    render_view,
)

_FIELDS = ("center_x", "center_y", "half_width", "half_height", "angle")


class NoAnswerError(ValueError):
    """The network gives no usable answer for an image; the message says why."""


@dataclass(frozen=True)
class Sight:
    """Where the network looked in one image.

    Attributes:
      rectangles: float64 `[5]` in isotropic coordinates of the view, by layer.
      masks: float32 `[h, w]` over the network's view, of position-wise layers.
      view: what the network saw of the original.
      size: (height, width) of the original.
    """

    rectangles: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    view: View
    size: tuple[int, int]

    def in_pixels(self, layer: str) -> np.ndarray:
        """A layer's rectangle float64 `[5]` in pixels of the original."""
        return rectangle_to_source(self.view, self.rectangles[layer])

    def on_picture(self, layer: str) -> Rectangle:
        """A layer's rectangle in isotropic coordinates of the whole original."""
        return Rectangle.from_array(
            pixel_to_isotropic(self.in_pixels(layer), *self.size)
        )

    def area(self, layer: str) -> float:
        """The share of the original that a layer's rectangle covers."""
        extent_x, extent_y = map_extents(*self.size)
        frame = Rectangle.from_array(np.array([0.0, 0.0, extent_x, extent_y, 0.0]))
        both = jax.tree.map(np.float32, (frame, self.on_picture(layer)))
        share = float(rectangle_intersection_area(*both)) / (4 * extent_x * extent_y)
        return min(max(share, 0.0), 1.0)

    def covers(self, layer: str) -> bool:
        """Whether the whole original lies in a layer's rectangle."""
        x, y, half_width, half_height, angle = self.in_pixels(layer)
        height, width = self.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
        right, down = (corners - [x, y]).T
        cos, sin = np.cos(angle), np.sin(angle)
        inside_x = np.abs(cos * right + sin * down) <= half_width
        inside_y = np.abs(cos * down - sin * right) <= half_height
        return bool(np.all(inside_x & inside_y))


def as_seen(image: np.ndarray, channels: int) -> np.ndarray:
    """uint8 `[H, W, 1 or 3]` with the channels that a network takes."""
    if image.shape[-1] == channels:
        return image
    if channels == 1:
        return np.asarray(Image.fromarray(image).convert("L"))[..., None]
    return np.repeat(image, channels, axis=-1)


class Seen(NamedTuple):
    """What a network sees of an image.

    Attributes:
      image: uint8 `[h, w, c]`, the network's input.
      view: which part of the original that is.
      size: (height, width) of the original.
    """

    image: np.ndarray
    view: View
    size: tuple[int, int]


def seen_by(
    image: np.ndarray, image_shape: tuple[int, int, int], data: DataConfig
) -> Seen:
    """What a network sees of one uint8 image `[H, W, C]`, in colour or in grey.

    Args:
      image: the original, of any size.
      image_shape: (height, width, channels) of the network's input.
      data: how images are cropped and resized for the network.
    """
    height, width, channels = image_shape
    size = image.shape[0], image.shape[1]
    view = eval_view(size, (height, width), data.eval_crop)
    shown = render_view(as_seen(image, channels), view, data.interpolation)
    return Seen(shown, view, size)


def sight_of(
    outputs: Any, evidence: Mapping[str, Mapping[str, Any]], row: int, seen: Seen
) -> tuple[Any, Sight]:
    """The outputs for one image of a batch, and where the network looked in it.

    Args:
      outputs: fetched, the batch axis in front.
      evidence: fetched, of its layers, in coordinates of the network's input.
      row: the image's place in the batch.
      seen: what the network saw of it.

    Raises:
      NoAnswerError: if the network's output is not finite.
    """
    outputs = jax.tree.map(lambda leaf: leaf[row], outputs)
    rectangles, masks = {}, {}
    for path, layer in evidence.items():
        if "rectangle" in layer:
            rectangle = layer["rectangle"].as_array()[row]
            rectangles[path] = np.asarray(rectangle, np.float64)
        else:
            masks[path] = np.asarray(layer["mask"][row], np.float32)
    shown = [*jax.tree.leaves(outputs), *rectangles.values(), *masks.values()]
    if not all(np.isfinite(np.asarray(each, np.float32)).all() for each in shown):
        raise NoAnswerError(
            "the network's output is not finite; its training has failed, try an"
            " earlier --checkpoint."
        )
    return outputs, Sight(rectangles, masks, seen.view, seen.size)


def _named(rectangle: np.ndarray) -> dict[str, float]:
    return dict(zip(_FIELDS, map(float, rectangle), strict=True))


def as_record(sight: Sight) -> dict[str, Any]:
    """Where the network looked, as JSON: the rectangles of its layers.

    For each of them, "view" holds the five numbers in isotropic coordinates of what
    the network saw, "pixels" those in pixels of the original file (0 is the left or
    upper edge), "corners" the four (x, y) in those pixels, "box" (xmin, ymin, xmax,
    ymax) round them, cut off at the picture's edges, "area" the share of the file's
    pixels in it, and "covers_picture" whether all of them are.
    """
    rectangles = {}
    for layer, rectangle in sight.rectangles.items():
        pixels = sight.in_pixels(layer)
        # Corners scale with their rectangle: pixels serve as well as any other unit.
        corners = np.asarray(rectangle_corners(Rectangle.from_array(pixels)))
        height, width = sight.size
        box = np.concatenate([corners.min(axis=0), corners.max(axis=0)])
        rectangles[layer] = {
            "view": _named(rectangle),
            "pixels": _named(pixels),
            "corners": corners.tolist(),
            "box": np.clip(box, 0, [width, height, width, height]).tolist(),
            "area": sight.area(layer),
            "covers_picture": sight.covers(layer),
        }
    return {"rectangles": rectangles}


def area_lines(sight: Sight) -> list[str]:
    """How much of the picture each layer's rectangle covers, for the terminal."""
    lines = []
    for layer in sight.rectangles:
        area = f"area {sight.area(layer):.1%} of the picture"
        if sight.covers(layer):
            area = "area 100%: the rectangle is wider than the whole picture"
        lines.append(f"{layer} {area}")
    return lines
