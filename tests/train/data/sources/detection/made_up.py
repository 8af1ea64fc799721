"""A few images with objects, written as each of the formats has them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.train.data.sources.opened import opened
from train.data.sources.detection.source import ObjectSource

CATEGORIES = ("car", "person", "tree")
WIDTH, HEIGHT = 30, 20


def write_image(path: Path, seed: int = 0, size: tuple[int, int] = (WIDTH, HEIGHT)):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)


def rotated_values(split: str, count: int) -> dict[str, Any]:
    """Image i has i % 3 objects, the first of them rotated."""
    rng = np.random.default_rng(count)
    images = []
    for number in range(count):
        boxes = [
            [i, *rng.uniform(8, 12, 2), *rng.uniform(3, 6, 2), 0.4 if i == 0 else 0]
            for i in range(number % 3)
        ]
        name = f"{split}/{number}.png"
        size = {"width": WIDTH, "height": HEIGHT}
        images.append({"file_name": name, **size, "boxes": boxes})
    return {"categories": list(CATEGORIES), "images": images}


def write_rotated(
    root: Path,
    change: Callable[[dict[str, Any]], None] | None = None,
    *,
    train: int = 7,
    test: int = 4,
    test_name: str = "test",
) -> Path:
    """A set of `rotated:PATH`; `change` spoils what train.json says."""
    for split, count in (("train", train), (test_name, test)):
        values = rotated_values(split, count)
        for seed, image in enumerate(values["images"]):
            write_image(root / image["file_name"], seed)
        if change is not None and split == "train":
            change(values)
        (root / f"{split}.json").write_text(json.dumps(values))
    return root


def opened_objects(
    name: str, split: str, *, max_examples: int | None = None, **options: Any
) -> ObjectSource:
    """One split of a set with objects; `options` are fields of `DataConfig`."""
    source = opened(name, split, max_examples=max_examples, **options)
    assert isinstance(source, ObjectSource)
    return source
