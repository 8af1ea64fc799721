"""How many objects a split has, of which categories and sizes."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from train.data.sources.base import Objects


@dataclass
class ObjectCounts:
    """The objects of the images that were added.

    Attributes:
      per_category: objects by the name of their category.
      per_image: how many images have so many objects.
      sides: root of the area of each object, in pixels of its image.
      rotated: objects whose rectangle is rotated.
      ignored: objects that need not be found.
    """

    per_category: Counter[str] = field(default_factory=Counter)
    per_image: Counter[int] = field(default_factory=Counter)
    sides: list[float] = field(default_factory=list)
    rotated: int = 0
    ignored: int = 0

    @property
    def total(self) -> int:
        """The number of objects."""
        return len(self.sides)

    def add(self, objects: Objects, categories: tuple[str, ...]) -> None:
        """Counts the objects of one more image."""
        self.per_category.update(categories[label] for label in objects.labels)
        self.per_image[len(objects)] += 1
        half = objects.rectangles[:, 2:4]
        self.sides += (2 * np.sqrt(half.prod(axis=1))).tolist()
        self.rotated += int((objects.rectangles[:, 4] != 0).sum())
        self.ignored += int(objects.ignored.sum())

    def as_record(self, categories: tuple[str, ...]) -> dict[str, Any]:
        """The counts as JSON values; ranges are smallest, median, largest."""
        return {
            "all": self.total,
            "categories": {name: self.per_category[name] for name in categories},
            "images_without": self.per_image[0],
            "per_image": _range(list(self.per_image.elements())),
            "side": _range(self.sides),
            "rotated": self.rotated,
            "ignored": self.ignored,
        }

    def sentence(self) -> str:
        """The counts in words, without the categories."""
        few, some, many = _range(list(self.per_image.elements()))
        small, middle, large = _range(self.sides)
        return (
            f"{self.total:,} objects, {few:g} to {many:g} in an image (median"
            f" {some:g}), {small:.3g} to {large:.3g} pixels large (the root of the"
            f" area; median {middle:.3g}); {self.rotated:,} are rotated,"
            f" {self.ignored:,} ignored"
        )


def _range(values: list[float] | list[int]) -> list[float]:
    if not values:
        return [0.0, 0.0, 0.0]
    return [float(each) for each in (min(values), np.median(values), max(values))]
