"""Rotated boxes in a JSON file for each split (ours): `rotated:PATH`.

PATH holds train.json, test.json (or val.json) and the images that they name:

    {"categories": ["car", "person"],
     "images": [{"file_name": "train/1.jpg", "width": 640, "height": 512,
                 "boxes": [[0, 281.3, 305.4, 67.2, 26.5, 0.428]]}]}

A box is [category, center_x, center_y, width, height, angle]: the category's place in
the list, pixels with the left edge of the first pixel at 0, and radians, positive
clockwise on screen. An image without objects has no boxes, `[]`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.config.data import DataConfig
from train.data.sources.base import UnreadableImageError
from train.data.sources.detection.checking import (
    check_radians,
    checked_objects,
    numbers,
)
from train.data.sources.detection.files import (
    field,
    file_of_split,
    folder_of_set,
    read_json,
    size_of,
)
from train.data.sources.detection.source import (
    Annotated,
    ObjectSource,
    check_categories,
    object_source,
)
from train.data.sources.holding_out import parted

_FORM = "[category, center_x, center_y, width, height, angle]"


def open_rotated(
    config: DataConfig, split: str, max_examples: int | None = None
) -> ObjectSource:
    """Opens a split of `rotated:PATH`; no image is decoded.

    Args:
        config: names the folder, and says what is held out.
        split: "train", "test" (also finds val.json), the name of another JSON file of
            the folder, or `HELD_OUT`.
        max_examples: keep this many images, chosen by a hash of their paths.

    Raises:
        NoSplitError: there is no such file.
        ValueError: says which rule the file breaks, and where.
    """
    root = folder_of_set(config.name, "rotated")
    file = file_of_split(root, parted(config, split), ("{split}.json",))
    values = read_json(file)
    listed = field(values, "categories", list, str(file))
    categories = check_categories([str(name) for name in listed], str(file))
    images = field(values, "images", list, str(file))
    return object_source(
        [_annotated(file, i, image, categories) for i, image in enumerate(images)],
        categories,
        config=config,
        split=split,
        root=root,
        listed_in=file,
        max_examples=max_examples,
    )


def _annotated(
    file: Path, position: int, values: Any, categories: tuple[str, ...]
) -> Annotated:
    where = f"images[{position}] of {file}"
    path = field(values, "file_name", str, where)
    size = size_of(values, where)
    boxes = field(values, "boxes", list, where)
    names = [f"boxes[{i}] of {path} in {file}" for i in range(len(boxes))]
    labels, rectangles = [], []
    try:
        for name, box in zip(names, boxes, strict=True):
            label, x, y, width, height, angle = numbers(box, 6, name, _FORM)
            check_radians(angle, name)
            labels.append(_label(label, name, categories))
            rectangles.append([x, y, width / 2, height / 2, angle])
        objects = checked_objects(
            rectangles, labels, [False] * len(labels), size=size, names=names
        )
    except UnreadableImageError as error:
        return Annotated(path, size, str(error))
    return Annotated(path, size, objects)


def _label(value: float, name: str, categories: tuple[str, ...]) -> int:
    if value not in range(len(categories)):
        raise UnreadableImageError(
            f"{name} has the category {value:g}, and categories are 0 to"
            f" {len(categories) - 1} ({', '.join(categories[:20])}); correct it, or"
            " name the category."
        )
    return int(value)
