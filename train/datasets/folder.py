"""A folder of images as a data source, with boxes and trimaps where it has them."""

from __future__ import annotations

import csv
import dataclasses
from pathlib import Path

from train.datasets.base import DatasetInfo, Example
from train.datasets.boxes import (
    Box,
    box_rectangle,
    mask_rectangle,
    normal_path,
    read_boxes,
)
from train.datasets.decoding import decode_image, decode_trimap, stored_size
from train.datasets.folder_tree import hash_order, read_tree

_SIZE_SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """A split of a folder of images; made by `open_folder`.

    Attributes:
        info: what is known without decoding.
        root: the folder.
        paths: of each image, relative to `root`.
        labels: of each image.
        boxes: by normal path; empty where the folder has no boxes file.
        has_trimaps: `trimaps/NAME.png` may hold the mask of the image NAME.
    """

    info: DatasetInfo
    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    boxes: dict[str, Box]
    has_trimaps: bool

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        path = self.paths[index]
        image = decode_image(self.root / path)
        height, width = image.shape[:2]
        rectangle, mask = None, None
        trimap = self.root / "trimaps" / f"{Path(path).stem}.png"
        if self.has_trimaps and trimap.exists():
            mask = decode_trimap(trimap, height, width)
            rectangle = mask_rectangle(mask)
        box = self.boxes.get(normal_path(path))
        if box is not None:
            name = str(self.root / path)
            rectangle = box_rectangle(box, height, width, name=name)
        return Example(image, self.labels[index], rectangle, mask)


def open_folder(
    root: Path,
    split: str,
    *,
    max_examples: int | None = None,
    boxes_file: str = "boxes.csv",
    box_max_inside: bool = False,
    on_bad_image: str = "raise",
) -> FolderSource:
    """Opens a split of a folder; no image is decoded.

    Two layouts: SPLIT/CLASS/IMAGE, if a folder is called train, test, val or the
    like; else CLASS/IMAGE, of which a fifth of each class is kept for "test". Classes
    are the folders of the training split, sorted by name; classes.csv (folder, name)
    may give them better names. Files without an image's extension, and names that
    begin with a dot, are passed over.

    Args:
        root: the folder.
        split: "train" or "test", or the name of one of its split folders.
        max_examples: keep this many images, chosen by a hash of their paths.
        boxes_file: the CSV of boxes inside the folder; it may be absent.
        box_max_inside: xmax and ymax are the last pixel inside the box.
        on_bad_image: "skip" passes over boxes of images that are not there.

    Raises:
        ValueError: says which rule the folder breaks.
    """
    tree = read_tree(root, split)
    boxes = {}
    if (root / boxes_file).exists():
        known = {normal_path(path) for path in tree.everything}
        boxes = read_boxes(
            root / boxes_file,
            known,
            max_inside=box_max_inside,
            skip_unknown=on_bad_image == "skip",
        )
    chosen = tree.chosen
    if max_examples is not None:
        chosen = sorted(sorted(chosen, key=hash_order)[:max_examples])
    paths, labels = zip(*chosen, strict=True)
    has_trimaps = (root / "trimaps").is_dir()
    info = DatasetInfo(
        name=f"folder:{root}",
        split=split,
        class_names=_class_names(root, tree.classes),
        num_examples=len(chosen),
        truth="mask" if has_trimaps else "box" if boxes else "none",
        channels=3,
        image_size=_common_size(root, paths),
    )
    return FolderSource(info, root, paths, labels, boxes, has_trimaps)


def _common_size(root: Path, paths: tuple[str, ...]) -> tuple[int, int] | None:
    """The size that a sample of the images share, if they do."""
    step = max(1, len(paths) // _SIZE_SAMPLES)
    sizes = {stored_size(root / path) for path in paths[::step]} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def _class_names(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Folder names, or what classes.csv calls them."""
    file = root / "classes.csv"
    if not file.exists():
        return classes
    with file.open(newline="", encoding="utf-8-sig") as lines:
        names = {row[0]: row[1] for row in csv.reader(lines) if len(row) >= 2}
    return tuple(names.get(name, name) for name in classes)
