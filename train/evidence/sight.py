"""Where a trained network looked in one image of any size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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

Look = Callable[[np.ndarray], tuple[Any, dict[str, dict[str, Any]]]]
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


def see(
    look: Look,
    image: np.ndarray,
    image_shape: tuple[int, int, int],
    data: DataConfig,
) -> tuple[Any, Sight]:
    """Shows a network one uint8 image `[H, W, C]` of any size, in colour or in grey.

    Args:
      look: from uint8 images `[1, h, w, c]` to the network's outputs and its layers'
        evidence, in coordinates of the images.
      image: the original.
      image_shape: (height, width, channels) of the network's input.
      data: how images are cropped and resized for the network.

    Returns:
      The outputs without their batch axis, and where the network looked.

    Raises:
      NoAnswerError: if the network's output is not finite.
    """
    height, width, channels = image_shape
    view = eval_view(image.shape[:2], (height, width), data.eval_crop)
    seen = render_view(as_seen(image, channels), view, data.interpolation)
    outputs, evidence = jax.device_get(look(seen[None]))
    outputs = jax.tree.map(lambda leaf: leaf[0], outputs)
    rectangles, masks = {}, {}
    for path, layer in evidence.items():
        if "rectangle" in layer:
            rectangle = layer["rectangle"].as_array()[0]
            rectangles[path] = np.asarray(rectangle, np.float64)
        else:
            masks[path] = np.asarray(layer["mask"][0], np.float32)
    shown = [*jax.tree.leaves(outputs), *rectangles.values(), *masks.values()]
    if not all(np.isfinite(np.asarray(each, np.float32)).all() for each in shown):
        raise NoAnswerError(
            "the network's output is not finite; its training has failed, try an"
            " earlier --checkpoint."
        )
    return outputs, Sight(rectangles, masks, view, image.shape[:2])


def _named(rectangle: np.ndarray) -> dict[str, float]:
    return dict(zip(_FIELDS, map(float, rectangle), strict=True))


def as_record(sight: Sight) -> dict[str, Any]:
    """Where the network looked, as JSON: the rectangles of its layers.

    For each of them, "view" holds the five numbers in isotropic coordinates of what
    the network saw, "pixels" those in pixels of the original file (0 is the left or
    upper edge), "corners" the four (x, y) in those pixels, "area" the share of the
    file's pixels in it, and "covers_picture" whether all of them are.
    """
    rectangles = {}
    for layer, rectangle in sight.rectangles.items():
        pixels = sight.in_pixels(layer)
        # Corners scale with their rectangle: pixels serve as well as any other unit.
        corners = rectangle_corners(Rectangle.from_array(pixels))
        rectangles[layer] = {
            "view": _named(rectangle),
            "pixels": _named(pixels),
            "corners": np.asarray(corners).tolist(),
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
