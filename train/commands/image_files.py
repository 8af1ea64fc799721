"""Which image files a person means: files, folders, and quoted patterns of names."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from train.data.sources.decoding import image_endings
from train.printing import printable
from train.run.outputs import written_here

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
      made_by: the command whose own pictures are passed over, wherever they lie.
    """
    found, seen, own = Found(), set(), 0
    made: dict[Path, set[str]] = {}
    for path in paths:
        for file in _expanded(path, found):
            real = os.path.realpath(file)
            if real in seen:
                continue
            seen.add(real)
            folder = file.parent
            if folder not in made:
                made[folder] = written_here(folder, made_by)
            if file.name in made[folder]:
                own += 1
            else:
                found.files.append(file)
    if own:
        found.notes.append(
            f"Left out: pictures that {made_by} itself has made ({own})."
        )
    return found


def _expanded(path: Path, found: Found) -> list[Path]:
    """The files behind one path as it was typed."""
    matches = [path]
    if not os.path.lexists(path) and glob.has_magic(str(path)):
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))
        if not matches:
            found.unusable[path] = "matches no file."
    return [
        file
        for match in matches
        for file in (_walk(match, found) if match.is_dir() else [match])
    ]


def _walk(folder: Path, found: Found) -> list[Path]:
    """The images of a folder, at any depth, but for hidden ones."""
    images: list[Path] = []
    others: Counter[str] = Counter()
    visited = set()

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
        for name in sorted(names):
            ending = Path(name).suffix.lower()
            if name.startswith("."):
                continue
            if ending in image_endings():
                images.append(Path(top, name))
            else:
                others[ending or "no ending"] += 1
    if others:
        kinds = ", ".join(
            f"{printable(kind)}: {count}"
            for kind, count in others.most_common(_SHOWN_KINDS)
        )
        found.notes.append(
            f"Left out in {printable(folder)}: files without an image's ending"
            f" ({kinds})."
        )
    if not images and folder not in found.unusable:
        found.unusable[folder] = "holds no image."
    return images
