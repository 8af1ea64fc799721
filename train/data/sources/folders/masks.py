"""Which mask belongs to which image: trimaps/ and masks/ beside the images.

A mask is found by its path, the most telling first: trimaps/SPLIT/CLASS/NAME.png,
trimaps/CLASS/NAME.png, trimaps/SPLIT/NAME.png, trimaps/NAME.png. A path that fits two
images is refused, for one of them would be scored against the other's object.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from train.data.sources.decoding import mask_levels
from train.data.sources.folders.boxes import normal_path
from train.data.sources.memory import name_skipped

TRIMAPS, MASKS = "trimaps", "masks"  # value 1 is the object; white is the object
_SAMPLES = 8


def find_masks(
    root: Path,
    files: Sequence[str],
    images: Sequence[str],
    *,
    in_splits: bool,
    trees: Sequence[str] = (TRIMAPS, MASKS),
) -> dict[str, str]:
    """The mask of each image that has one, as paths relative to the root.

    Args:
        root: the folder.
        files: what lies in its trees of masks.
        images: all images of all splits.
        in_splits: images are SPLIT/CLASS/..., else CLASS/...
        trees: names of the trees to look in.

    Raises:
        ValueError: a mask fits two images, or an image has two; no mask fits at all.
    """
    found: dict[str, str] = {}
    for tree in trees:
        masks = _by_key(root, [file for file in files if file.startswith(f"{tree}/")])
        if not masks:
            continue
        claimed = _claims(root, masks, images, in_splits=in_splits)
        for image, mask in claimed.items():
            other = found.setdefault(image, mask)
            if other != mask:
                raise ValueError(
                    f"{root / image} has two masks, {other} and {mask}; keep one."
                )
        _name_unclaimed(root, tree, masks, claimed)
    return found


def is_mask_tree(root: Path, files: Sequence[str]) -> bool:
    """Whether the files of a folder are masks, not photographs of a class "masks".

    Most files of a sample must be PNG of black and one level more (255, or 1), and
    some of them not all black.
    """
    sample = files[:: max(1, len(files) // _SAMPLES)]
    levels = [_levels(root / file) for file in sample]
    masks = [found for found in levels if found in ({0}, {0, 1}, {0, 255}, {1}, {255})]
    return 2 * len(masks) > len(sample) and any(found != {0} for found in masks)


def _levels(file: Path) -> set[int]:
    """The grey levels of a PNG; none if it is no PNG or has colours."""
    try:
        with Image.open(file) as image:
            colours = np.asarray(image.convert("RGB"))
            if image.format != "PNG" or np.ptp(colours, axis=-1).any():
                return set()
            return {int(level) for level in np.unique(mask_levels(image))}
    except Exception:  # no image, or a broken one
        return set()


def _by_key(root: Path, files: Sequence[str]) -> dict[str, str]:
    """PNG files by their path inside the tree without its ending."""
    masks: dict[str, str] = {}
    for file in files:
        path = PurePosixPath(file)
        if path.suffix.lower() != ".png":
            continue
        key = normal_path(str(PurePosixPath(*path.parts[1:]).with_suffix("")))
        other = masks.setdefault(key, file)
        if other != file:
            raise ValueError(f"{root} has two masks of one name: {other} and {file}.")
    if files and not masks:
        name_skipped(
            f"{len(files)} files in {root / PurePosixPath(files[0]).parts[0]} are no "
            "masks, which must be .png."
        )
    return masks


def _keys(image: str, *, in_splits: bool) -> list[str]:
    """Where the mask of an image may lie, the most telling first."""
    path = PurePosixPath(normal_path(image)).with_suffix("")
    parts, name = path.parts, path.name
    tails = [parts, parts[1:], (*parts[:2], name), (*parts[1:2], name)]
    if not in_splits:
        tails = [parts]
    tails += [(parts[0], name), (name,)]
    return list(dict.fromkeys("/".join(tail) for tail in tails))


def _claims(
    root: Path, masks: dict[str, str], images: Sequence[str], *, in_splits: bool
) -> dict[str, str]:
    keys = {image: _keys(image, in_splits=in_splits) for image in images}
    fitting: dict[str, list[str]] = {}
    for image in images:
        for key in keys[image]:
            if key in masks:
                fitting.setdefault(key, []).append(image)
    claimed = {}
    for image in images:
        key = next((key for key in keys[image] if key in masks), None)
        if key is None:
            continue
        if len(fitting[key]) > 1:
            first, second = fitting[key][:2]
            tree = PurePosixPath(masks[key]).parts[0]
            raise ValueError(
                f"{root / masks[key]} may be the mask of {first} or of {second}; call "
                f"it {_place(tree, first)} or {_place(tree, second)}."
            )
        claimed[image] = masks[key]
    return claimed


def _place(tree: str, image: str) -> str:
    return f"{tree}/{PurePosixPath(image).with_suffix('.png')}"


def _name_unclaimed(
    root: Path, tree: str, masks: dict[str, str], claimed: dict[str, str]
) -> None:
    used = set(claimed.values())
    unclaimed = [mask for mask in masks.values() if mask not in used]
    if not unclaimed:
        return
    sentence = (
        f"{len(unclaimed)} of the {len(masks)} masks in {root / tree} fit no image, "
        f"the first {unclaimed[0]}; a mask has the path of its image, as in "
        f"{tree}/CLASS/NAME.png, or its name, as in {tree}/NAME.png."
    )
    if len(unclaimed) == len(masks):
        raise ValueError(sentence)
    name_skipped(sentence)
