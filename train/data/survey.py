"""What a data set holds, found by decoding every image of it once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from train.data.collate import RowTruth
from train.data.objects.counts import ObjectCounts
from train.data.sources.base import (
    DatasetInfo,
    Example,
    Source,
    UnreadableImageError,
    WrongLabelError,
)


@dataclass
class Survey:
    """What one split holds.

    Attributes:
      info: what the split says of itself.
      per_class: readable images of each class, by name.
      sizes: how many images have each (height, width).
      objects: images whose object is known.
      counts: all objects, of a set whose objects have categories.
      broken: a sentence for each image that cannot be used.
      repeated: names of images with the pixels of an earlier one of this split.
      known: names of images with the pixels of one in a split that came before.
    """

    info: DatasetInfo
    per_class: Counter[str] = field(default_factory=Counter)
    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    objects: int = 0
    counts: ObjectCounts = field(default_factory=ObjectCounts)
    broken: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)

    @property
    def readable(self) -> int:
        """Images that can be used."""
        return self.sizes.total()

    def as_record(self) -> dict[str, Any]:
        """The survey as JSON values."""
        categories = self.info.categories
        own = {"objects": self.counts.as_record(categories)} if categories else {}
        return {
            "images": self.info.num_examples,
            "readable": self.readable,
            "truth": self.info.truth,
            "with_object": self.objects,
            "channels": self.info.channels,
            "classes": {name: self.per_class[name] for name in self.info.class_names},
            **own,
            "sizes": size_summary(self.sizes),
            "broken": self.broken,
            "repeated": self.repeated,
            "also_in_an_earlier_split": self.known,
        }


def size_summary(sizes: Counter[tuple[int, int]]) -> dict[str, list[int]]:
    """Smallest, median, largest (by area) and most common size, (height, width)."""
    if not sizes:
        return {}
    ordered = sorted(sizes.elements(), key=lambda size: (size[0] * size[1], size))
    chosen = {
        "smallest": ordered[0],
        "median": ordered[len(ordered) // 2],
        "largest": ordered[-1],
        "most_common": sizes.most_common(1)[0][0],
    }
    return {name: list(size) for name, size in chosen.items()}


def survey(
    source: Source,
    task: RowTruth,
    earlier: set[bytes],
    steps: Callable[[Iterable[int]], Iterable[int]],
) -> Survey:
    """Decodes all images of a split, one at a time; none is kept.

    Args:
      source: the split.
      task: refuses images whose truth means nothing to it.
      earlier: fingerprints of the images of splits that came before; those of this one
        are added at the end.
      steps: passes numbers of images on, and shows how far it is.
    """
    found, here = Survey(source.info), set()
    for index in steps(range(len(source))):
        name = name_of(source, index)
        try:
            example = source[index]
            task.check(example, source.info, name)
        except (UnreadableImageError, WrongLabelError) as error:
            found.broken.append(str(error))
            continue
        _count(found, example)
        print_of_it = fingerprint(example.image)
        if print_of_it in here:
            found.repeated.append(name)
        elif print_of_it in earlier:
            found.known.append(name)
        here.add(print_of_it)
    earlier |= here
    return found


def _count(found: Survey, example: Example) -> None:
    names = found.info.class_names
    if names:
        found.per_class[names[example.label]] += 1
    if example.objects is not None:
        found.counts.add(example.objects, found.info.categories)
    found.sizes[example.image.shape[0], example.image.shape[1]] += 1
    found.objects += example.rectangle is not None or example.mask is not None


def name_of(source: Source, index: int) -> str:
    """An image's path in its folder, or its number where it has none."""
    paths = getattr(source, "paths", None)
    return f"image {index}" if paths is None else str(paths[index])


def fingerprint(image: np.ndarray) -> bytes:
    """Equal for equal pixels, and for no others in practice."""
    shape = np.asarray(image.shape, np.int64).tobytes()
    return hashlib.blake2b(shape + image.tobytes(), digest_size=16).digest()
