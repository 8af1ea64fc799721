"""A folder of images as a data source, with boxes and masks where it has them."""

from __future__ import annotations

import dataclasses
from pathlib import Path, PurePosixPath

import numpy as np

from train.config.data import DataConfig
from train.config.places import FOLDER, expanded
from train.data.sources.base import DatasetInfo, Example
from train.data.sources.decoding import (
    decode_image,
    decode_values,
    marked_object,
    stored_size,
)
from train.data.sources.folders.boxes import (
    Box,
    box_rectangle,
    mask_rectangle,
    normal_path,
    read_boxes,
)
from train.data.sources.folders.class_names import displayed_names
from train.data.sources.folders.masks import MASKS, TRIMAPS, find_masks
from train.data.sources.folders.tree import Labelled, Tree, read_tree
from train.data.sources.holding_out import (
    hash_order,
    hold_out,
    is_held_out,
    parted,
    shown,
)
from train.data.sources.regions import (
    OBJECT_REGIONS,
    named_regions,
    trimap_regions,
)

_SIZE_SAMPLES = 64


@dataclasses.dataclass(frozen=True)
class FolderSource:
    """A split of a folder of images; made by `open_folder`.

    Attributes:
        info: what is known without decoding.
        root: the folder.
        paths: one for each image, relative to `root`.
        labels: one for each image.
        boxes: by normal path; empty where the folder has no boxes file.
        masks: by path; empty where the folder has no masks.
        named: masks hold indices of `info.regions`, not one object.
    """

    info: DatasetInfo
    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]
    boxes: dict[str, Box]
    masks: dict[str, str]
    named: bool = False

    def __len__(self) -> int:
        """The number of images."""
        return len(self.paths)

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        path = self.paths[index]
        image = decode_image(self.root / path)
        height, width = image.shape[:2]
        mask, regions, no_regions = self._regions(path, height, width)
        rectangle = None if mask is None else mask_rectangle(mask)
        box = self.boxes.get(normal_path(path))
        if box is not None:
            name = str(self.root / path)
            rectangle = box_rectangle(box, height, width, name=name)
        label = self.labels[index]
        return Example(image, label, rectangle, mask, regions, no_regions)

    def _regions(
        self, path: str, height: int, width: int
    ) -> tuple[np.ndarray | None, np.ndarray | None, str]:
        """Mask and regions of an image, or why there are none."""
        if path not in self.masks:
            absent = f"{self.root / path} has no mask; it would be called"
            return None, None, f"{absent} {PurePosixPath(path).stem}.png."
        file = self.root / self.masks[path]
        trimap = self.masks[path].startswith(f"{TRIMAPS}/")
        stored = trimap or self.named
        values = decode_values(file, height, width, stored=stored)
        if self.named:
            found = named_regions(values, self.info.regions, str(file))
            inside = (values > 0) & (values < len(self.info.regions))
            return inside.astype(np.uint8), found[0], found[1]
        mask = marked_object(values, file, trimap=trimap)
        if not trimap:
            return mask, mask, ""
        regions, no_regions = trimap_regions(values, str(file))
        return mask, regions, no_regions


def open_folder(
    config: DataConfig, split: str, max_examples: int | None = None
) -> FolderSource:
    """Opens a split of a folder; no image is decoded.

    Two layouts: SPLIT/CLASS/IMAGE, if a folder called train, test, val or the like
    holds class folders; else CLASS/IMAGE. Of the latter, and where train/ is the only
    split, a fifth of each class is kept for "test". Classes are the folders of the
    training split, sorted by name; classes.csv (folder, name) may give them better
    names. Images may lie in folders of a class folder; every ending that Pillow reads
    counts. Hidden files are passed over; other files, and images outside of class
    folders, are counted in the log.

    Args:
        config: names the folder, its file of boxes and what is held out.
        split: "train" or "test", the name of one of its split folders, or `HELD_OUT`.
        max_examples: keep this many images, chosen by a hash of their paths.

    Raises:
        ValueError: says which rule the folder breaks.
    """
    root = Path(expanded(config.name.removeprefix(FOLDER)))
    tree = read_tree(
        root, parted(config, split), config.train_split, mask_tree=config.masks
    )
    chosen = tree.chosen
    if config.validation > 0 and tree.is_training:
        held = is_held_out(config, split)
        chosen = _part(chosen, config.validation, held=held)
    masks = _masks_of(root, tree, config)
    boxes = {}
    if (root / config.boxes_file).exists():
        boxes = read_boxes(config, root, tree.everything)
    if max_examples is not None:
        chosen = sorted(chosen, key=lambda each: hash_order(each[0]))[:max_examples]
        chosen = sorted(chosen)
    paths, labels = zip(*chosen, strict=True)
    info = DatasetInfo(
        name=f"folder:{root}",
        split=shown(config, split),
        class_names=displayed_names(root, tree.classes),
        num_examples=len(chosen),
        truth="mask" if masks else "box" if boxes else "none",
        channels=3,
        image_size=_common_size(root, paths),
        regions=(config.regions or OBJECT_REGIONS) if masks else (),
    )
    named = bool(config.regions)
    return FolderSource(info, root, paths, labels, boxes, masks, named)


def _masks_of(root: Path, tree: Tree, config: DataConfig) -> dict[str, str]:
    trees = (TRIMAPS, MASKS) if config.masks is None else (config.masks,)
    images, in_splits = tree.everything, tree.in_splits
    return find_masks(root, tree.masks, images, in_splits=in_splits, trees=trees)


def _common_size(root: Path, paths: tuple[str, ...]) -> tuple[int, int] | None:
    """The size that a sample of the images share, if they do."""
    step = max(1, len(paths) // _SIZE_SAMPLES)
    sizes = {stored_size(root / path) for path in paths[::step]} - {None}
    return sizes.pop() if len(sizes) == 1 else None


def _part(chosen: Labelled, share: float, *, held: bool) -> Labelled:
    """The training images that are held out, or those that stay."""
    paths, labels = zip(*chosen, strict=True)
    return [chosen[position] for position in hold_out(paths, labels, share)[held]]
