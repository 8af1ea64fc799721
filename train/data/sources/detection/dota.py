"""DOTA's text files with four corners of each object: `dota:PATH`.

A split is PATH/SPLIT with its images in images/ and a text file NAME.txt for each in
labelTxt/ (or annfiles/, as mmrotate calls it). A line is x1 y1 x2 y2 x3 y3 x4 y4
category difficult; before them may stand imagesource:... and gsd:... The four corners
become the rectangle of least area round them; what is difficult is ignored. Categories
are those of the training split, by name. Large images are cut into tiles beforehand.
The format is described in Xia et al., "DOTA", CVPR 2018, and on its web page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from train.config.data import DataConfig
from train.data.sources.base import NoSplitError, UnreadableImageError
from train.data.sources.decoding import image_endings, stored_size
from train.data.sources.detection.checking import checked_objects, unknown_category
from train.data.sources.detection.corners import smallest_rectangles
from train.data.sources.detection.files import folder_of_set, split_names
from train.data.sources.detection.source import (
    Annotated,
    ObjectSource,
    check_categories,
    object_source,
)
from train.data.sources.holding_out import parted

LABELS = ("labelTxt", "annfiles")
_HEADERS = ("imagesource:", "gsd:")


class _Line(NamedTuple):
    """An object: where it stands, corners, category, and whether it is difficult."""

    name: str
    corners: list[float]
    category: str
    difficult: bool


class _File(NamedTuple):
    """A text file: path and size of its image, and objects or what is wrong with one.

    The size is None where the image cannot be read.
    """

    path: str
    size: tuple[int, int] | None
    lines: list[_Line] | str


def open_dota(
    config: DataConfig, split: str, max_examples: int | None = None
) -> ObjectSource:
    """Opens a split of `dota:PATH`; of images only the sizes are read.

    Args:
        config: names the folder, and says what is held out.
        split: "train", "test" (also finds val, where test has no text files), another
            folder's name, or `HELD_OUT`.
        max_examples: keep this many images, chosen by a hash of their paths.

    Raises:
        NoSplitError: there is no such folder.
        ValueError: says which rule a file breaks, and where.
    """
    root = folder_of_set(config.name, "dota")
    asked = parted(config, split)
    folder = _folder_of_split(root, asked)
    files = list(_files(root, folder))
    trained_on = files
    if asked != config.train_split:
        try:
            trained_on = list(_files(root, _folder_of_split(root, config.train_split)))
        except NoSplitError:  # only to be evaluated on
            trained_on = files
    where = f"{root} ({config.train_split})"
    categories = check_categories(sorted(_names(trained_on)), where)
    return object_source(
        [_annotated(file, categories) for file in files],
        categories,
        config=config,
        split=split,
        root=root,
        listed_in=folder,
        max_examples=max_examples,
    )


def _names(files: list[_File]) -> set[str]:
    return {
        line.category
        for file in files
        if not isinstance(file.lines, str)
        for line in file.lines
    }


def _folder_of_split(root: Path, split: str) -> Path:
    """The folder of text files of a split."""
    for name in split_names(split):
        for labels in LABELS:
            if (root / name / labels).is_dir():
                return root / name / labels
    raise NoSplitError(
        f"{root} has no split {split!r}: expected {root / split / LABELS[0]} with a"
        " text file for each image. Training images can be held out instead, by"
        " --data.validation 0.2."
    )


def _files(root: Path, folder: Path) -> Iterator[_File]:
    """The text files of a split in the order of their names."""
    images = _images(folder.parent / "images")
    texts = sorted(folder.glob("*.txt"))
    alone = sorted(images.keys() - {text.stem for text in texts})
    if alone:
        raise ValueError(
            f"{images[alone[0]]} has no {folder / alone[0]}.txt"
            f" ({len(alone)} of {len(images)} images have none); an image without"
            " objects has an empty file."
        )
    for text in texts:
        image = images.get(text.stem, folder.parent / "images" / f"{text.stem}.png")
        path = image.relative_to(root).as_posix()
        yield _File(path, stored_size(image), _lines(text))


def _images(folder: Path) -> dict[str, Path]:
    """Images of a folder by their names without the ending."""
    endings, found = image_endings(), {}
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    for file in files:
        if file.suffix.lower() not in endings or file.name.startswith("."):
            continue
        other = found.setdefault(file.stem, file)
        if other != file:
            raise ValueError(
                f"{folder} has two images of one name, {other.name} and {file.name};"
                " keep one."
            )
    return found


def _lines(file: Path) -> list[_Line] | str:
    """The objects of a text file, or what is wrong with one of them."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        return f"{file} must be UTF-8 text: {error}."
    lines = []
    for number, line in enumerate(text.splitlines(), 1):
        words, name = line.split(), f"Line {number} of {file}"
        if not words or line.lower().startswith(_HEADERS):
            continue
        try:
            lines.append(_line(words, name))
        except ValueError:
            return (
                f"{name} must be x1 y1 x2 y2 x3 y3 x4 y4 category difficult, got"
                f" {line.strip()[:80]!r}."
            )
    return lines


def _line(words: list[str], name: str) -> _Line:
    """An object; raises ValueError where the words are none."""
    # The last word is missing in some releases, as DOTA's own reader knows.
    *corners, category = words[:9]
    difficult, places = int(*words[9:10]), [float(word) for word in corners]
    wrong = len(words) > 10 or len(places) != 8 or difficult < 0
    if wrong or not all(map(math.isfinite, places)):
        raise ValueError
    return _Line(name, places, category, difficult > 0)


def _annotated(file: _File, categories: tuple[str, ...]) -> Annotated:
    path, size, lines = file
    if size is None:
        return Annotated(path, (0, 0), f"{path} is no image that can be read.")
    if isinstance(lines, str):
        return Annotated(path, size, lines)
    labels = {name: i for i, name in enumerate(categories)}
    try:
        for line in lines:
            if line.category not in labels:
                message = unknown_category(line.name, line.category, categories)
                raise UnreadableImageError(message)
        objects = checked_objects(
            smallest_rectangles([line.corners for line in lines]),
            [labels[line.category] for line in lines],
            [line.difficult for line in lines],
            size=size,
            names=[line.name for line in lines],
        )
    except UnreadableImageError as error:
        return Annotated(path, size, str(error))
    return Annotated(path, size, objects)
