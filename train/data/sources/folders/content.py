"""What lies in a folder: images by the folder at the top, masks, and what is neither.

Pure questions on paths; `train.data.sources.folders.tree` decides what they mean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from pathlib import Path, PurePosixPath

from train.data.sources.decoding import image_endings
from train.data.sources.folders.class_names import check_spelling, class_name
from train.data.sources.folders.listing import list_folder
from train.data.sources.folders.masks import MASKS, TRIMAPS, is_mask_tree
from train.data.sources.memory import name_skipped

Classes = dict[str, list[str]]  # class -> paths relative to the root


@dataclasses.dataclass(frozen=True)
class Content:
    """A folder as it lies there; all paths relative to it, with "/", sorted.

    Attributes:
        root: its path.
        folders: folders in each folder at the top, at any depth.
        images: images in each folder at the top ("": directly in the root).
        others: files that are neither image nor mask.
        masks: files in trees of masks (trimaps/, masks/).
        repeated: links to folders that are read already.
    """

    root: Path
    folders: dict[str, list[str]]
    images: dict[str, list[str]]
    others: list[str]
    masks: list[str]
    repeated: list[str]

    @property
    def tops(self) -> list[str]:
        """Folders at the top that are no trees of masks."""
        return list(self.folders)

    def holds_classes(self, top: str) -> bool:
        """Whether most images of a folder lie in folders of it: a split, no class."""
        images = self.images.get(top, [])
        direct = sum(path.count("/") == 1 for path in images)
        return len(images) - direct > direct if images else bool(self.folders[top])

    def by_class(self, top: str | None) -> Classes:
        """Images of the class folders in a folder at the top, at any depth of them.

        Args:
            top: the folder; None: the class folders are those at the top.

        Raises:
            ValueError: two class folders have one name, spelled in two ways.
        """
        depth, where = (0, self.root) if top is None else (1, self.root / top)
        paths = self.folders[top] if top else self.tops
        folders = [path.split("/")[-1] for path in paths if path.count("/") == depth]
        check_spelling(folders, where)
        names = {folder: class_name(folder, where) for folder in folders}
        classes: Classes = {name: [] for name in sorted(names.values())}
        for each in self.tops if top is None else [top]:
            for path in self.images.get(each, []):
                parts = path.split("/")
                if len(parts) > depth + 1:
                    classes[names[parts[depth]]].append(path)
        return classes


def read_content(
    root: Path, split_names: Collection[str], mask_tree: str | None = None
) -> Content:
    """Lists a folder and tells images, masks and other files apart.

    Args:
        root: the folder.
        split_names: names of folders at the top that are splits if they hold classes,
            in lower case. Beside one, masks/ is no class, whatever it holds.
        mask_tree: a folder at the top that is one, too.

    Raises:
        ValueError: there is no such folder.
    """
    listing = list_folder(root)
    endings = image_endings()
    images, others = [], []
    for file in listing.files:
        is_image = PurePosixPath(file).suffix.lower() in endings
        (images if is_image else others).append(file)
    folders: dict[str, list[str]] = {}
    for path in listing.folders:
        top, slash, _ = path.partition("/")
        folders.setdefault(top, []).extend([path] if slash else [])
    files = _by_top(listing.files)
    content = Content(root, folders, _by_top(images), others, [], listing.repeated)
    if mask_tree is not None and mask_tree not in folders:
        raise ValueError(
            f"{root} has no folder {mask_tree!r} of masks, which data.masks names; it"
            f" has {', '.join(sorted(folders)) or 'none'}."
        )
    trees = {TRIMAPS, mask_tree or TRIMAPS} & folders.keys()
    in_splits = any(
        top.lower() in split_names and content.holds_classes(top) for top in folders
    )
    if MASKS in folders and (in_splits or is_mask_tree(root, files.get(MASKS, []))):
        trees.add(MASKS)
    return dataclasses.replace(
        content,
        folders={top: found for top, found in folders.items() if top not in trees},
        images={top: f for top, f in content.images.items() if top not in trees},
        others=[file for file in others if file.partition("/")[0] not in trees],
        masks=[file for tree in sorted(trees) for file in files.get(tree, [])],
    )


def name_left_out(content: Content, used: Iterable[str]) -> None:
    """One sentence in the log for each kind of file that is passed over.

    Args:
        content: what lies in the folder.
        used: paths of the images of all splits.
    """
    root, used = content.root, set(used)
    images = [path for found in content.images.values() for path in found]
    stray = [path for path in images if path not in used]
    if stray:
        name_skipped(
            f"{len(stray)} of the {len(images)} images in {root} lie in no class "
            f"folder of a split, the first {stray[0]}."
        )
    classes = {path.rpartition("/")[0] for path in used}
    others = [path for path in content.others if path.rpartition("/")[0] in classes]
    if others:
        endings = sorted({PurePosixPath(path).suffix.lower() for path in others})
        kinds = ", ".join(ending or "none" for ending in endings[:5])
        name_skipped(
            f"{len(others)} files in the class folders of {root} are no images by "
            f"their ending ({kinds}), the first {others[0]}."
        )
    if content.repeated:
        name_skipped(
            f"{len(content.repeated)} links in {root} lead to folders that are read "
            f"already, the first {content.repeated[0]}."
        )


def _by_top(files: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in files:
        top, slash, _ = file.partition("/")
        found.setdefault(top if slash else "", []).append(file)
    return found
