"""Detections in pixels of the original, and drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from cram_jax.drawing import PALETTE, draw_rectangles
from cram_jax.drawing.fonts import has_font
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.heads.detections import Detections
from train.data.views import View, pixel_to_isotropic, rectangle_to_source

Color = str | tuple[int, int, int]
_TRUTH_COLOR, _IGNORED_COLOR = "#ffffff", "#808080"


def objects_in_pixels(
    found: Detections, view: View, categories: Sequence[str], *, least: float
) -> list[dict[str, Any]]:
    """The detections of one image with a score of `least` or more, as JSON."""
    told = np.asarray(found.score) >= max(least, np.finfo(np.float32).tiny)
    rectangles = np.asarray(found.rectangle.as_array(), np.float64)[told]
    rectangles = rectangle_to_source(view, rectangles)
    scores, labels = np.asarray(found.score)[told], np.asarray(found.label)[told]
    return [
        {
            "category": categories[label],
            "label": int(label),
            "score": float(score),
            "center": rectangle[:2].tolist(),
            "size": (2 * rectangle[2:4]).tolist(),
            "angle": float(rectangle[4]),
            "corners": _corners(rectangle).tolist(),
        }
        for rectangle, score, label in zip(rectangles, scores, labels, strict=True)
    ]


def _corners(rectangle: np.ndarray) -> np.ndarray:
    """The corners `[4, 2]` of one rectangle in pixels, in order round it."""
    x, y, half_width, half_height, angle = rectangle
    cos, sin = np.cos(angle), np.sin(angle)
    turned = np.array([[cos, sin], [-sin, cos]])
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return [x, y] + (signs * [half_width, half_height]) @ turned


def draw_objects(
    picture: np.ndarray, objects: Sequence[Mapping[str, Any]], scale: float
) -> np.ndarray:
    """The rectangles of `objects_in_pixels`, coloured by category, with scores.

    Args:
      picture: uint8 `[h, w, 3]`.
      objects: in pixels of the original.
      scale: pixels of the picture per pixel of the original.
    """
    if not objects:
        return picture
    numbers = [
        [*each["center"], *(side / 2 for side in each["size"]), each["angle"]]
        for each in objects
    ]
    pixels = np.array(numbers) * ([scale] * 4 + [1.0])
    rectangles = pixel_to_isotropic(pixels, *picture.shape[:2])
    return draw_rectangles(
        picture,
        Rectangle.from_array(rectangles),
        color=[_color(each["label"]) for each in objects],
        labels=[_label(each) for each in objects],
    )


def _label(found: Mapping[str, Any]) -> str:
    """Category and score; its number where no font has the letters of its name."""
    name = found["category"] if has_font(found["category"]) else f"#{found['label']}"
    return f"{name} {found['score']:.2f}"


def draw_beside_truth(
    picture: np.ndarray,
    found: Detections | None,
    truth: Mapping[str, np.ndarray],
    *,
    least: float,
) -> np.ndarray:
    """True objects, and those found in the colours of their categories.

    Args:
      picture: uint8 `[h, w, 3]`, what the network saw, enlarged.
      found: the image's detections, in isotropic coordinates; then the truth is white.
        None where there is no network.
      truth: a row of `train.data.objects`.
      least: detections with a lower score are left out.
    """
    labels = np.asarray(truth["object_labels"])
    there = labels >= 0
    colors: list[Color] = [_TRUTH_COLOR] * int(there.sum())
    if found is None:
        passed_over = np.asarray(truth["object_ignored"])[there]
        colors = [
            _IGNORED_COLOR if ignored else _color(label)
            for label, ignored in zip(labels[there], passed_over, strict=True)
        ]
    picture = _outlined(picture, np.asarray(truth["objects"])[there], colors, 1.5)
    if found is None:
        return picture
    told = np.asarray(found.score) >= least
    rectangles = np.asarray(found.rectangle.as_array(), np.float32)[told]
    colors = [_color(label) for label in np.asarray(found.label)[told]]
    return _outlined(picture, rectangles, colors, 2.0)


def _color(label: int) -> Color:
    return PALETTE[int(label) % len(PALETTE)]


def _outlined(
    picture: np.ndarray, rectangles: np.ndarray, colors: list[Color], width: float
) -> np.ndarray:
    if not colors:
        return picture
    found = Rectangle.from_array(rectangles)
    return draw_rectangles(picture, found, color=colors, width=width)
