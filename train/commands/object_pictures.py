"""The objects of a set on its images, before any task says how to find them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cram_jax.drawing import PALETTE, draw_rectangles
from cram_jax.geometry.rectangle import Rectangle
from train.data.objects.rows import (
    NO_OBJECT,
    blank_objects,
    mirrored_objects,
    padded_objects,
)
from train.data.objects.seen import visible_objects
from train.data.sources.base import DatasetInfo, Example, Objects
from train.data.views import View

_MOST = 256  # objects that are drawn on an image
_IGNORED_COLOR = "#808080"


class ObjectPictures:
    """What rows and pictures of a set with objects need of a task."""

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """No object."""
        del size
        return blank_objects(_MOST)

    def truth_of(self, example: Example, view: View) -> dict[str, np.ndarray]:
        """The objects that are seen."""
        objects = example.objects or Objects.none()
        return padded_objects(visible_objects(view, objects), _MOST).arrays

    def check(self, example: Example, info: DatasetInfo, name: str) -> None:
        """Every image will do."""
        del example, info, name

    def mirrored(self, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The objects of mirrored images."""
        return mirrored_objects(truth)

    def compared(
        self, picture: np.ndarray, outputs: Any, truth: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """The picture with every object in the colour of its category."""
        del outputs
        there = truth["object_labels"] != NO_OBJECT
        if not there.any():
            return picture
        labels, ignored = truth["object_labels"][there], truth["object_ignored"][there]
        colors = [
            _IGNORED_COLOR if passed_over else PALETTE[int(label) % len(PALETTE)]
            for label, passed_over in zip(labels, ignored, strict=True)
        ]
        rectangles = Rectangle.from_array(truth["objects"][there])
        return draw_rectangles(picture, rectangles, color=colors, width=1.5)
