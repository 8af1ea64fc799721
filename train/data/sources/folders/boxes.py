"""boxes.csv of a folder: one axis-aligned box per image."""

from __future__ import annotations

import csv
import math
import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from train.config.data import DataConfig
from train.data.sources.base import UnreadableImageError
from train.data.sources.memory import name_skipped

COLUMNS = ("path", "xmin", "ymin", "xmax", "ymax")

Box = tuple[float, float, float, float]


def read_boxes(config: DataConfig, root: Path, images: Sequence[str]) -> dict[str, Box]:
    """Boxes (xmin, ymin, xmax, ymax) by `normal_path` of the image, edges in pixels.

    With `config.on_bad_image="skip"`, boxes of images that the folder does not have
    are passed over with one sentence in the log; not if it has none of them.

    Args:
        config: names the file, a CSV of path, xmin, ymin, xmax, ymax, and says whether
            xmax and ymax are the last pixel inside or the far edge.
        root: the folder.
        images: paths of its images, relative to it, with "/".

    Raises:
        ValueError: names the line and what is wrong with it.
    """
    file = root / config.boxes_file
    boxes: dict[str, Box] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            reader = csv.DictReader(lines)
            if not set(COLUMNS) <= set(reader.fieldnames or ()):
                raise ValueError(
                    f"{file} must begin with the header {','.join(COLUMNS)}, "
                    f"got {','.join(reader.fieldnames or ('nothing',))}."
                )
            for row in reader:
                where = f"{file} line {reader.line_num}"
                path = normal_path(row["path"] or "")
                if path in boxes:
                    raise ValueError(f"{where} gives {path!r} a second box; keep one.")
                boxes[path] = _parse_box(row, where, config.box_max_inside)
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 text: {error}.") from error
    except csv.Error as error:
        raise ValueError(f"{file} must be a CSV file: {error}.") from error
    known = _normal_paths(file, images, boxes)
    unknown = [path for path in boxes if path not in known]
    if unknown:
        sentence = (
            f"{len(unknown)} of the {len(boxes)} paths in {file} are not images of its "
            f"folder, the first {unknown[0]!r}; paths are relative to {file.parent}."
        )
        if len(unknown) == len(boxes):
            raise ValueError(sentence)
        if config.on_bad_image != "skip":
            raise ValueError(f"{sentence} --data.on-bad-image skip goes on without.")
        name_skipped(sentence)
    return {path: box for path, box in boxes.items() if path in known}


def _normal_paths(
    file: Path, images: Sequence[str], boxes: Mapping[str, Box]
) -> set[str]:
    """Normal paths of all images; refuses a box that may be of two of them."""
    known: dict[str, str] = {}
    for image in images:
        other = known.setdefault(normal_path(image), image)
        if other != image and normal_path(image) in boxes:
            raise ValueError(
                f"{file} has one box for two images whose paths read alike, "
                f"{other!a} and {image!a}; rename one."
            )
    return set(known)


def normal_path(path: str) -> str:
    """One spelling per path: "/" between parts, no "./" before, composed Unicode."""
    spelled = unicodedata.normalize("NFC", path.replace("\\", "/"))
    return spelled.removeprefix("./")


def box_rectangle(box: Box, height: int, width: int, *, name: str) -> np.ndarray:
    """The part of a box inside its image, as a pixel rectangle float64 [5].

    Raises:
        UnreadableImageError: the box lies outside the image.
    """
    xmin, ymin = max(box[0], 0.0), max(box[1], 0.0)
    xmax, ymax = min(box[2], float(width)), min(box[3], float(height))
    if xmax <= xmin or ymax <= ymin:
        edges = ", ".join(f"{edge:g}" for edge in box)
        raise UnreadableImageError(
            f"{name} has {width}x{height} pixels, and its box ({edges}) in boxes.csv "
            "lies outside; correct or remove that line."
        )
    return np.array(
        [(xmin + xmax) / 2, (ymin + ymax) / 2, (xmax - xmin) / 2, (ymax - ymin) / 2, 0]
    )


def mask_rectangle(mask: np.ndarray) -> np.ndarray | None:
    """The tight box of a mask as a pixel rectangle float64 [5]; None if empty."""
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if not len(columns):
        return None
    box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    return box_rectangle(box, *mask.shape, name="mask")


def _parse_box(row: dict[str, str], where: str, max_inside: bool) -> Box:
    texts = [row[column] for column in COLUMNS[1:]]
    try:
        xmin, ymin, xmax, ymax = (float(text) for text in texts)
    except (TypeError, ValueError):
        raise ValueError(f"{where} must hold four numbers, got {texts}.") from None
    if max_inside:
        xmax, ymax = xmax + 1, ymax + 1
    if not all(map(math.isfinite, (xmin, ymin, xmax, ymax))) or not (
        xmin < xmax and ymin < ymax
    ):
        raise ValueError(
            f"{where} must have xmin < xmax and ymin < ymax, got {', '.join(texts)}."
        )
    return xmin, ymin, xmax, ymax
