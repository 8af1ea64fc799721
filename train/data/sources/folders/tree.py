"""Which images a folder holds: SPLIT/CLASS/IMAGE, or CLASS/IMAGE split here."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from cram_jax.checks import nearest
from train.data.sources.base import NoSplitError
from train.data.sources.decoding import image_endings
from train.data.sources.folders.content import (
    Classes,
    Content,
    name_left_out,
    read_content,
)
from train.data.sources.holding_out import hold_out
from train.data.sources.memory import say_once

SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "test": ("test", "testing", "val", "valid", "validation"),
}
TEST_SHARE = 0.2  # of the images of each class, where the folder has no test split

Labelled = list[tuple[str, int]]  # path relative to the root, label


class Tree(NamedTuple):
    """The images of one split.

    Attributes:
        classes: names of the class folders, sorted; a label is an index into them.
        chosen: the images of the split.
        everything: paths of the images of all splits.
        masks: paths of the files in trees of masks.
        in_splits: the layout is SPLIT/CLASS/IMAGE.
        is_training: the split is the one that is trained on.
    """

    classes: tuple[str, ...]
    chosen: Labelled
    everything: list[str]
    masks: list[str]
    in_splits: bool
    is_training: bool


def read_tree(
    root: Path, split: str, train_split: str = "train", *, mask_tree: str | None = None
) -> Tree:
    """Reads the folder; `open_folder` states the rules."""
    if not root.is_dir():
        what = "is a file; unpack it first" if root.exists() else "does not exist"
        raise ValueError(f"The image folder {root} {what}.")
    names = {name for names in SPLIT_FOLDERS.values() for name in names}
    names.add(train_split.lower())
    content = read_content(root, names, mask_tree)
    splits = [top for top in content.tops if content.holds_classes(top)]
    if any(top.lower() in names for top in splits):
        tree = _read_split_tree(content, splits, split, train_split)
    else:
        tree = _read_plain_tree(content, split)
    name_left_out(content, tree.everything)
    return tree


def _read_split_tree(
    content: Content, splits: list[str], split: str, train_split: str
) -> Tree:
    train = _find_split(content, splits, train_split)
    scanned = {top: content.by_class(top) for top in splits}
    # The only split is divided as a folder of classes is.
    divided = splits == [train] and not _unlabelled(content, splits)
    divided = divided and any(len(paths) > 1 for paths in scanned[train].values())
    is_test = divided and split == "test"
    asked = train if is_test else _find_split(content, splits, split)
    where = content.root / train
    _check_classes(where, scanned[train], least_images=1)
    classes = tuple(scanned[train])
    chosen: Labelled = []
    for name, paths in scanned[asked].items():
        if name not in classes and paths:
            raise ValueError(_unknown_class(content.root / asked, name, where, classes))
        chosen += [(path, classes.index(name)) for path in paths]
    if not chosen:
        raise ValueError(f"{content.root / asked} has no images in class folders.")
    if divided:
        say_once(
            f"{content.root} has no test/, so a fifth of each class of {train}/ is held"
            " out of training as the test images."
        )
        chosen = _divide(chosen, test=is_test)
    everything = [
        path
        for classes_of in scanned.values()
        for paths in classes_of.values()
        for path in paths
    ]
    is_training = asked == train and not is_test
    return Tree(classes, chosen, everything, content.masks, True, is_training)


def _read_plain_tree(content: Content, split: str) -> Tree:
    root = content.root
    if split not in SPLIT_FOLDERS:
        raise NoSplitError(
            f"{root} has no folder {split!r}: it is a plain CLASS/IMAGE tree, whose "
            'splits are "train" and "test".'
        )
    scanned = content.by_class(None)
    _refuse_inner_splits(root, scanned)
    _check_classes(root, scanned, least_images=2, is_top=True)
    labelled = [
        (path, label) for label, paths in enumerate(scanned.values()) for path in paths
    ]
    chosen = _divide(labelled, test=split == "test")
    everything = [path for path, _ in labelled]
    is_training = split == "train"
    return Tree(tuple(scanned), chosen, everything, content.masks, False, is_training)


def _divide(labelled: Labelled, *, test: bool) -> Labelled:
    # By hash, so that a new image does not move the old ones about.
    paths, labels = zip(*labelled, strict=True)
    stay, held = hold_out(paths, labels, TEST_SHARE)
    return [labelled[position] for position in (held if test else stay)]


def _find_split(content: Content, splits: list[str], split: str) -> str:
    """The folder of a split, by any of its usual names."""
    names = SPLIT_FOLDERS.get(split, (split,))
    for name in names:
        for top in splits:
            if top.lower() == name.lower():
                return top
    for top in _unlabelled(content, splits):
        if top.lower() in names:
            raise NoSplitError(
                f"{content.root / top} holds {len(content.images[top])} images without "
                "class folders, so that their classes are unknown. Move it away, and a "
                "fifth of the training images is held out to test on; or sort its "
                "images into class folders; or give --data.validation 0.2."
            )
    found = ", ".join(f"{top}/" for top in splits)
    wanted = " or ".join(f"{name}/" for name in names)
    raise NoSplitError(
        f"{content.root} has no {split} split: found {found}, expected {wanted}. Or "
        "move the class folders to the top, and they are split for you."
    )


def _unlabelled(content: Content, splits: list[str]) -> list[str]:
    """Folders with the name of a test split, and images, but no class folders."""
    return [
        top
        for top in content.tops
        if top.lower() in SPLIT_FOLDERS["test"]
        and top in content.images
        and top not in splits
    ]


def _check_classes(
    where: Path, scanned: Classes, *, least_images: int, is_top: bool = False
) -> None:
    for name, paths in scanned.items():
        if not paths:
            raise ValueError(
                f"The class folder {where / name} has no images; add some or remove "
                f"it. Known endings: {' '.join(sorted(image_endings()))}."
            )
        if len(paths) < least_images:
            raise ValueError(
                f"The class folder {where / name} has one image, and needs two: one "
                "to train and one to test on."
            )
    if len(scanned) < 2:
        only = next(iter(scanned), "none")
        deep = is_top and any(path.count("/") > 1 for path in scanned.get(only, []))
        hint = f" Did you mean folder:{where / only}?" if deep else ""
        raise ValueError(
            f"{where} must hold at least two class folders with images, found {only}."
            f"{hint}"
        )


def _refuse_inner_splits(root: Path, scanned: Classes) -> None:
    """CLASS/SPLIT/IMAGE would mix the splits, since deeper folders are read."""
    if len(scanned) < 2:  # a folder round the whole set; `_check_classes` says so
        return
    for name, paths in scanned.items():
        inner = {path.split("/")[1].lower() for path in paths if path.count("/") > 1}
        if all(inner & set(names) for names in SPLIT_FOLDERS.values()):
            raise ValueError(
                f"The class folder {root / name} holds the folders "
                f"{', '.join(sorted(inner))}, which look like splits; turn them round: "
                "SPLIT/CLASS/IMAGE."
            )


def _unknown_class(
    asked: Path, name: str, train: Path, classes: tuple[str, ...]
) -> str:
    by_case = {each.casefold(): each for each in classes}
    near = nearest(name.casefold(), by_case)
    hint = f" Did you mean {by_case[near[0]]!r}?" if near else ""
    return (
        f"{asked / name} is a class that {train} does not have; remove it, or add "
        f"training images.{hint}"
    )
