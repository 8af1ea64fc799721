"""Which images a folder holds: SPLIT/CLASS/IMAGE, or CLASS/IMAGE split here."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from train.datasets.boxes import normal_path
from train.datasets.decoding import EXTENSIONS

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
TEST_SHARE = 0.2  # of the images of each class, where the folder has no splits

Classes = dict[str, list[str]]  # class folder's name -> paths relative to the root


class Tree(NamedTuple):
    """The images of one split.

    Attributes:
        classes: names of the class folders, sorted; a label is an index into them.
        chosen: (path relative to the root, label) of each image of the split.
        everything: paths of the images of all splits.
    """

    classes: tuple[str, ...]
    chosen: list[tuple[str, int]]
    everything: list[str]


def read_tree(root: Path, split: str) -> Tree:
    """Reads the folder; see `train.datasets.folder.open_folder` for the rules."""
    if not root.is_dir():
        what = "is a file; unpack it first" if root.exists() else "does not exist"
        raise ValueError(f"The image folder {root} {what}.")
    tops = _subfolders(root)
    usual = {name for names in SPLIT_FOLDERS.values() for name in names}
    if any(top.name.lower() in usual for top in tops):
        return _read_split_tree(root, tops, split)
    return _read_plain_tree(root, split)


def hash_order(chosen: tuple[str, int]) -> bytes:
    """A sort key that looks random and does not depend on the other images."""
    return hashlib.blake2b(normal_path(chosen[0]).encode(), digest_size=8).digest()


def _read_split_tree(root: Path, tops: list[Path], split: str) -> Tree:
    train = _split_folder(root, tops, "train")
    folder = _split_folder(root, tops, split)
    splits = {top: _scan(root, top) for top in tops}
    _check_classes(train, splits[train], least_images=1)
    classes = tuple(splits[train])
    chosen = []
    for name, paths in splits[folder].items():
        if name not in classes:
            raise ValueError(
                f"{folder / name} is a class that {train} does not have; remove it, or "
                "add training images."
            )
        chosen += [(path, classes.index(name)) for path in paths]
    if not chosen:
        raise ValueError(f"{folder} has no images in class folders.")
    everything = [
        path
        for scanned in splits.values()
        for paths in scanned.values()
        for path in paths
    ]
    return Tree(classes, chosen, everything)


def _read_plain_tree(root: Path, split: str) -> Tree:
    if split not in SPLIT_FOLDERS:
        raise ValueError(
            f"{root} has no folder {split!r}: it is a plain CLASS/IMAGE tree, whose "
            'splits are "train" and "test".'
        )
    scanned = _scan(root, root)
    _check_classes(root, scanned, least_images=2)
    chosen = []
    for label, paths in enumerate(scanned.values()):
        # By hash, so that a new image does not move the old ones about.
        ordered = sorted(((path, label) for path in paths), key=hash_order)
        cut = max(1, round(TEST_SHARE * len(ordered)))
        chosen += sorted(ordered[:cut] if split == "test" else ordered[cut:])
    everything = [path for paths in scanned.values() for path in paths]
    return Tree(tuple(scanned), chosen, everything)


def _split_folder(root: Path, tops: list[Path], split: str) -> Path:
    """The folder of a split, by any of its usual names."""
    names = SPLIT_FOLDERS.get(split, (split,))
    for name in names:
        for top in tops:
            if top.name.lower() == name.lower():
                return top
    found = ", ".join(f"{top.name}/" for top in tops)
    wanted = " or ".join(f"{name}/" for name in names)
    raise ValueError(
        f"{root} has no {split} split: found {found}, expected {wanted}. Or move the "
        "class folders to the top, and they are split for you."
    )


def _check_classes(folder: Path, scanned: Classes, *, least_images: int) -> None:
    for name, paths in scanned.items():
        if not paths:
            deeper = _subfolders(folder / name)
            hint = " (they must lie in it directly, not in folders)" if deeper else ""
            raise ValueError(
                f"The class folder {folder / name} has no images{hint}; add some or "
                f"remove it. Known extensions: {' '.join(sorted(EXTENSIONS))}."
            )
        if len(paths) < least_images:
            raise ValueError(
                f"The class folder {folder / name} has one image, and needs two: one "
                "to train and one to test on."
            )
    if len(scanned) < 2:
        raise ValueError(
            f"{folder} must hold at least two class folders with images, found "
            f"{', '.join(scanned) or 'none'}."
        )


def _scan(root: Path, folder: Path) -> Classes:
    # trimaps/ beside the classes or splits holds masks.
    return {
        class_folder.name: sorted(
            path.relative_to(root).as_posix()
            for path in class_folder.iterdir()
            if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
        )
        for class_folder in _subfolders(folder)
        if class_folder != root / "trimaps"
    }


def _subfolders(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.is_dir() and not path.name.startswith((".", "__"))
    )
