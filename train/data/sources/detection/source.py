"""A split of a set whose images have objects, whatever file says where they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from train.config.data import DataConfig
from train.data.sources.base import (
    NO_LABEL,
    DatasetInfo,
    Example,
    Objects,
    UnreadableImageError,
)
from train.data.sources.decoding import decode_image
from train.data.sources.folders.boxes import normal_path
from train.data.sources.holding_out import (
    hash_order,
    hold_out,
    is_held_out,
    shown,
)


class Annotated(NamedTuple):
    """One image of a split as its set describes it.

    Attributes:
        path: its file, relative to the set's folder.
        size: (height, width) in pixels.
        objects: its objects, or the sentence that says what is wrong with them.
    """

    path: str
    size: tuple[int, int]
    objects: Objects | str


@dataclasses.dataclass(frozen=True)
class ObjectSource:
    """A split of a set of images with objects; made by `object_source`.

    Attributes:
        info: what is known without decoding.
        root: the set's folder.
        images: the images of the split.
    """

    info: DatasetInfo
    root: Path
    images: tuple[Annotated, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """One for each image, relative to `root`."""
        return tuple(image.path for image in self.images)

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        path, size, objects = self.images[index]
        if isinstance(objects, str):
            raise UnreadableImageError(objects)
        image = decode_image(self.root / path)
        height, width = image.shape[:2]
        if (height, width) != size:
            raise UnreadableImageError(
                f"{self.root / path} has {width} x {height} pixels, and its set says"
                f" {size[1]} x {size[0]}, so its objects would be elsewhere; correct"
                " the size, or put the right file there."
            )
        return Example(image, NO_LABEL, objects=objects)


def object_source(
    images: Sequence[Annotated],
    categories: Sequence[str],
    *,
    config: DataConfig,
    split: str,
    root: Path,
    listed_in: Path,
    max_examples: int | None,
) -> ObjectSource:
    """The images of a split, without those that are held out.

    With `config.on_bad_image="skip"`, images that are missing or have a wrong object
    are kept, and refused when they are asked for.

    Args:
        images: all of the split's, or of the training split for `HELD_OUT`.
        categories: the kinds of objects.
        config: names the set, and says what is held out.
        split: as `open_source` was asked for it.
        root: the set's folder.
        listed_in: what lists the images, for messages.
        max_examples: keep this many images, chosen by a hash of their paths.

    Raises:
        ValueError: there is no image, one is listed twice, does not exist or has a
            wrong object.
    """
    _check_listed(images, listed_in)
    chosen = _chosen(images, config, split)
    if max_examples is not None:
        chosen = sorted(chosen, key=lambda image: hash_order(image.path))
        chosen = sorted(chosen[:max_examples], key=lambda image: image.path)
    if config.on_bad_image == "raise":
        _check_usable(chosen, root, listed_in)
    sizes = {image.size for image in chosen}
    info = DatasetInfo(
        name=config.name,
        split=shown(config, split),
        class_names=(),
        num_examples=len(chosen),
        truth="none",
        channels=3,
        image_size=sizes.pop() if len(sizes) == 1 else None,
        categories=tuple(categories),
        rotated_objects=any(map(_is_rotated, images)),
        most_objects=max(map(_count, images)),
    )
    return ObjectSource(info, root, tuple(chosen))


def check_categories(names: Sequence[str], where: str) -> tuple[str, ...]:
    """The names of categories, if there are some, all different.

    Raises:
        ValueError: otherwise.
    """
    if not names:
        raise ValueError(f"{where} names no category.")
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"{where} names the category {repeated[0]!r} twice; give each its own name."
        )
    return tuple(names)


def _chosen(
    images: Sequence[Annotated], config: DataConfig, split: str
) -> list[Annotated]:
    """The images without those that are held out, or those."""
    held = is_held_out(config, split)
    if config.validation == 0 or not (held or split == config.train_split):
        return list(images)
    paths = [image.path for image in images]
    parts = hold_out(paths, [0] * len(paths), config.validation)
    return [images[position] for position in parts[held]]


def _is_rotated(image: Annotated) -> bool:
    objects = image.objects
    return not isinstance(objects, str) and bool(np.any(objects.rectangles[:, 4] != 0))


def _count(image: Annotated) -> int:
    return 0 if isinstance(image.objects, str) else len(image.objects)


def _check_listed(images: Sequence[Annotated], listed_in: Path) -> None:
    if not images:
        raise ValueError(f"{listed_in} lists no image; a split needs one or more.")
    known: set[str] = set()
    for image in images:
        path = normal_path(image.path)
        if path in known:
            raise ValueError(
                f"{listed_in} lists the image {image.path} twice; join its objects."
            )
        known.add(path)


def _check_usable(images: Sequence[Annotated], root: Path, listed_in: Path) -> None:
    missing = [image.path for image in images if not (root / image.path).is_file()]
    how = "--data.on-bad-image skip goes on without"
    if missing:
        raise ValueError(
            f"{len(missing)} of the {len(images)} images in {listed_in} are not there,"
            f" the first {root / missing[0]}; {how} them."
        )
    wrong = [image.objects for image in images if isinstance(image.objects, str)]
    if wrong:
        more = f", and {len(wrong) - 1} more images" if len(wrong) > 1 else ""
        raise ValueError(f"{wrong[0]} ({how} its image{more}.)")
