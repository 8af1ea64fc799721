"""COCO's JSON with upright boxes: `coco:PATH`.

The file of a split is the first of PATH/annotations/instances_SPLIT*.json (COCO's own,
as in instances_train2017.json), PATH/annotations/SPLIT.json, PATH/SPLIT.json and
PATH/SPLIT/_annotations.coco.json. Its images lie in the first of PATH/SPLIT (as in
train2017), PATH/images/SPLIT, PATH/images, PATH and the folder of the file that has
them. Of the file are read "categories" (id, name), "images" (id, file_name, width,
height) and "annotations" (image_id, category_id, bbox as x, y, width, height, iscrowd);
what `iscrowd` marks is ignored. The format is described on cocodataset.org.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.config.data import DataConfig
from train.data.sources.base import UnreadableImageError
from train.data.sources.detection.checking import (
    checked_objects,
    numbers,
    upright_rectangle,
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

FORMS = (
    "annotations/instances_{split}*.json",
    "annotations/{split}.json",
    "{split}.json",
    "{split}/_annotations.coco.json",
)
_TRIED = 20  # images that are looked for in each folder


def open_coco(
    config: DataConfig, split: str, max_examples: int | None = None
) -> ObjectSource:
    """Opens a split of `coco:PATH`; no image is decoded.

    Args:
        config: names the folder, and says what is held out.
        split: "train", "test" (also finds val), the name of another one as in
            train2017, or `HELD_OUT`.
        max_examples: keep this many images, chosen by a hash of their paths.

    Raises:
        NoSplitError: there is no such file.
        ValueError: says which rule the file breaks, and where.
    """
    root = folder_of_set(config.name, "coco")
    file = file_of_split(root, parted(config, split), FORMS)
    values = read_json(file)
    categories = _categories(field(values, "categories", list, str(file)), file)
    images = field(values, "images", list, str(file))
    annotations = _by_image(file, values, images)
    folder = _folder_of_images(root, file, images)
    labels = {id_: label for label, id_ in enumerate(categories)}
    return object_source(
        [_annotated(file, folder, each, annotations, labels) for each in images],
        check_categories(list(categories.values()), str(file)),
        config=config,
        split=split,
        root=root,
        listed_in=file,
        max_examples=max_examples,
    )


def _categories(listed: list[Any], file: Path) -> dict[int, str]:
    """Names by id, in the order of the ids."""
    found: dict[int, str] = {}
    for position, values in enumerate(listed):
        where = f"categories[{position}] of {file}"
        id_ = field(values, "id", int, where)
        if id_ in found:
            raise ValueError(f"{where} has the id {id_} of an earlier one.")
        found[id_] = field(values, "name", str, where)
    return dict(sorted(found.items()))


def _by_image(
    file: Path, values: dict[str, Any], images: list[Any]
) -> dict[int, list[tuple[int, Any]]]:
    """The annotations of each image by its id, with their places in the file."""
    found: dict[int, list[tuple[int, Any]]] = {}
    for position, image in enumerate(images):
        where = f"images[{position}] of {file}"
        id_ = field(image, "id", int, where)
        if id_ in found:
            raise ValueError(f"{where} has the id {id_} of an earlier one.")
        field(image, "file_name", str, where)
        found[id_] = []
    annotations = field(values, "annotations", list, str(file))
    for position, annotation in enumerate(annotations):
        where = f"annotations[{position}] of {file}"
        id_ = field(annotation, "image_id", int, where)
        if id_ not in found:
            raise ValueError(f"{where} is of the image {id_}, which is not listed.")
        found[id_].append((position, annotation))
    return found


def _folder_of_images(root: Path, file: Path, images: list[Any]) -> str:
    """The folder of a split's images, relative to the set's."""
    split = file.stem.removeprefix("instances_")
    candidates = [split, f"images/{split}", "images", "."]
    candidates.append(str(file.parent.relative_to(root)))
    names = [image["file_name"] for image in images[:_TRIED]]
    for candidate in candidates:
        if any((root / candidate / name).is_file() for name in names):
            return candidate
    return candidates[0] if (root / candidates[0]).is_dir() else "."


def _annotated(
    file: Path,
    folder: str,
    image: Any,
    annotations: Mapping[int, list[tuple[int, Any]]],
    labels: Mapping[int, int],
) -> Annotated:
    path = image["file_name"]
    size = size_of(image, f"The image {path} in {file}")
    path = path if folder == "." else f"{folder}/{path}"
    found = annotations[image["id"]]
    names = [f"annotations[{i}] ({path}) of {file}" for i, _ in found]
    try:
        read = [
            _read(values, name, labels)
            for name, (_, values) in zip(names, found, strict=True)
        ]
        rectangles, own_labels, crowds = zip(*read, strict=True) if read else ((),) * 3
        objects = checked_objects(
            rectangles, own_labels, crowds, size=size, names=names
        )
    except UnreadableImageError as error:
        return Annotated(path, size, str(error))
    return Annotated(path, size, objects)


def _read(
    values: Any, name: str, labels: Mapping[int, int]
) -> tuple[list[float], int, bool]:
    """Rectangle, label and whether it is a crowd."""
    box = numbers(field(values, "bbox", list, name), 4, name, "[x, y, width, height]")
    category = field(values, "category_id", int, name)
    if category not in labels:
        raise UnreadableImageError(
            f"{name} has the category_id {category}, and the ids of categories are"
            f" {', '.join(map(str, list(labels)[:20]))}; correct it, or name the"
            " category."
        )
    crowd = bool(values.get("iscrowd", 0))
    return upright_rectangle(*box), labels[category], crowd
