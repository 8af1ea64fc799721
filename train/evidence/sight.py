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
# Along the longer side, where the area of several rectangles is counted.
_POINTS = 512


class NoAnswerError(ValueError):
    """The network gives no usable answer for an image; the message says why."""


@dataclass(frozen=True)
class Sight:
    """Where the network looked in one image.

    Attributes:
      rectangles: float64 `[5]` in isotropic coordinates of the view, by layer; where a
        layer has several, `[K, 5]`.
      masks: float32 `[h, w]` over the network's view, of position-wise layers.
      view: what the network saw of the original.
      size: (height, width) of the original.
    """

    rectangles: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    view: View
    size: tuple[int, int]

    def in_pixels(self, layer: str) -> np.ndarray:
        """A layer's rectangles float64 `[5]` or `[K, 5]` in pixels of the original."""
        return rectangle_to_source(self.view, self.rectangles[layer])

    def on_picture(self, layer: str) -> Rectangle:
        """A layer's rectangles in isotropic coordinates of the whole original."""
        return Rectangle.from_array(
            pixel_to_isotropic(self.in_pixels(layer), *self.size)
        )

    def areas(self, layer: str) -> np.ndarray:
        """The share of the original that each of a layer's rectangles covers, exact."""
        extent_x, extent_y = map_extents(*self.size)
        frame = Rectangle.from_array(np.array([0.0, 0.0, extent_x, extent_y, 0.0]))
        both = jax.tree.map(np.float32, (frame, self.on_picture(layer)))
        shared = np.asarray(rectangle_intersection_area(*both), np.float64)
        return np.clip(shared / (4 * extent_x * extent_y), 0.0, 1.0)

    def area(self, layer: str) -> float:
        """The share of the original that a layer's rectangles cover together.

        It is exact for one rectangle. Several are counted at points, 512 along the
        longer side: to about a thousandth.
        """
        areas = self.areas(layer)
        if areas.ndim == 0 or self.covers(layer):
            return float(areas.max())
        height, width = self.size
        step = max(self.size) / _POINTS
        rows, columns = (max(round(side / step), 1) for side in self.size)
        y = (np.arange(rows) + 0.5) / rows * height
        x = (np.arange(columns) + 0.5) / columns * width
        grid = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
        return float(self._hold(layer, grid).any(axis=0).mean())

    def _hold(self, layer: str, points: np.ndarray) -> np.ndarray:
        """Whether rectangles hold points `[N, 2]` in pixels, bool `[N]` or `[K, N]`."""
        numbers = np.moveaxis(self.in_pixels(layer)[..., None], -2, 0)
        x, y, half_width, half_height, angle = numbers
        right, down = points[:, 0] - x, points[:, 1] - y
        cos, sin = np.cos(angle), np.sin(angle)
        inside_x = np.abs(cos * right + sin * down) <= half_width
        inside_y = np.abs(cos * down - sin * right) <= half_height
        return inside_x & inside_y

    def covers_each(self, layer: str) -> np.ndarray:
        """Whether the whole original lies in each of a layer's rectangles."""
        height, width = self.size
        corners = np.array([[0, 0], [width, 0], [width, height], [0, height]])
        return np.asarray(self._hold(layer, corners).all(axis=-1))

    def covers(self, layer: str) -> bool:
        """Whether the whole original lies in one of a layer's rectangles."""
        return bool(np.any(self.covers_each(layer)))


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
            own = layer["rectangle"].as_array()[row]
            rectangles[path] = np.asarray(own, np.float64)
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


def _records(sight: Sight, layer: str) -> list[dict[str, Any]]:
    """What `as_record` says of each rectangle of a layer."""
    pixels = sight.in_pixels(layer).reshape(-1, 5)
    # Corners scale with their rectangle: pixels serve as well as any other unit.
    corners = np.asarray(rectangle_corners(Rectangle.from_array(pixels)))
    height, width = sight.size
    limits = np.array([width, height, width, height])
    boxes = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    areas, covers = sight.areas(layer), sight.covers_each(layer)
    columns = {
        "view": map(_named, sight.rectangles[layer].reshape(-1, 5)),
        "pixels": map(_named, pixels),
        "corners": corners.tolist(),
        "box": np.clip(boxes, 0, limits).tolist(),
        "area": areas.reshape(-1).tolist(),
        "covers_picture": covers.reshape(-1).tolist(),
    }
    return [
        dict(zip(columns, row, strict=True))
        for row in zip(*columns.values(), strict=True)
    ]


def as_record(sight: Sight) -> dict[str, Any]:
    """Where the network looked, as JSON: the rectangles of its layers.

    A layer of one rectangle has one record, a layer of several a list of them. There,
    "view" holds the five numbers in isotropic coordinates of what the network saw,
    "pixels" those in pixels of the original file (0 is the left or upper edge),
    "corners" the four (x, y) in those pixels, "box" (xmin, ymin, xmax, ymax) round
    them, cut off at the picture's edges, "area" the share of the file's pixels in the
    rectangle, and "covers_picture" whether all of them are.
    """
    rectangles = {}
    for layer, rectangle in sight.rectangles.items():
        records = _records(sight, layer)
        rectangles[layer] = records if rectangle.ndim > 1 else records[0]
    return {"rectangles": rectangles}


def area_lines(sight: Sight) -> list[str]:
    """How much of the picture each layer's rectangles cover, for the terminal."""
    lines = []
    for layer, rectangle in sight.rectangles.items():
        area = f"area {sight.area(layer):.1%} of the picture"
        if sight.covers(layer):
            one = "one rectangle" if rectangle.ndim > 1 else "the rectangle"
            area = f"area 100%: {one} is wider than the whole picture"
        lines.append(f"{layer} {area}")
    return lines
