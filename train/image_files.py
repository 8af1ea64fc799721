"""Which image files a person means: files, folders, and quoted patterns of names."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from train.datasets.decoding import EXTENSIONS
from train.outputs import written_here
from train.printing import printable

_SHOWN_KINDS = 5


@dataclass
class Found:
    """What stands behind the paths that were given.

    Attributes:
      files: to look at, each once, in the order in which they were given.
      unusable: why a path gives no image, by path.
      notes: sentences on what was left out.
    """

    files: list[Path] = field(default_factory=list)
    unusable: dict[Path, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def find_images(paths: Iterable[Path], *, made_by: str) -> Found:
    """Expands folders (at any depth) and patterns to image files.

    Args:
      paths: as they were typed. What exists under its name is no pattern.
      made_by: the command whose own pictures in a folder are passed over.
    """
    found, seen = Found(), set()
    for path in paths:
        if os.path.lexists(path) or not glob.has_magic(str(path)):
            matches = [path]
        else:
            matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
            if not matches:
                found.unusable[path] = "matches no file."
        for match in matches:
            files = _walk(match, made_by, found) if match.is_dir() else [match]
            for file in files:
                real = os.path.realpath(file)
                if real not in seen:
                    seen.add(real)
                    found.files.append(file)
    return found


def _walk(folder: Path, made_by: str, found: Found) -> list[Path]:
    """The images of a folder, at any depth, hidden ones and our own left out."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    own, visited = 0, set()

    def cannot_enter(error: OSError) -> None:
        found.unusable[Path(error.filename)] = f"cannot be opened: {error.strerror}."

    for top, folders, names in os.walk(folder, onerror=cannot_enter, followlinks=True):
        # A link to a folder further up would lead round in circles.
        visited.add(os.path.realpath(top))
        folders[:] = sorted(
            name
            for name in folders
            if not name.startswith(".")
            and os.path.realpath(os.path.join(top, name)) not in visited
        )
        made = written_here(Path(top), made_by)
        for name in sorted(names):
            if name.startswith("."):
                continue
            if name in made:
                own += name.lower().endswith(".png")
            elif Path(name).suffix.lower() in EXTENSIONS:
                images.append(Path(top, name))
            else:
                others[Path(name).suffix.lower() or "no ending"] += 1
    if own:
        found.notes.append(
            f"{printable(folder)}: {own} pictures by {made_by} itself are left out."
        )
    if others:
        kinds = ", ".join(
            f"{printable(kind)}: {count}"
            for kind, count in others.most_common(_SHOWN_KINDS)
        )
        found.notes.append(
            f"{printable(folder)}: {others.total()} files whose names are not those of"
            f" images are left out ({kinds})."
        )
    if not images and folder not in found.unusable:
        found.unusable[folder] = "holds no image."
    return images
