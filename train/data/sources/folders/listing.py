"""Every visible file below a folder; links are followed, and loops of them end."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from typing import NamedTuple

# What file managers and archivers leave behind.
_JUNK = frozenset(("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"))


class Listing(NamedTuple):
    """What lies below a folder; all paths relative to it, with "/", sorted.

    Attributes:
        folders: at any depth.
        files: at any depth.
        repeated: links to folders that are read already, and not again.
    """

    folders: list[str]
    files: list[str]
    repeated: list[str]


def list_folder(root: Path) -> Listing:
    """Lists a folder without what is hidden or junk (".x", "__MACOSX", "Thumbs.db").

    Below each folder at the top, another folder is read once, by its shortest path,
    whatever links lead to it; a link to the folder itself, to one at the top or to one
    above is not followed.
    """
    tops, files = _visible(root, "")
    folders: list[str] = []
    repeated: list[str] = []
    at_top = {os.path.realpath(root / top) for top in tops}
    for top in tops:
        if _leads_up(root, top):
            repeated.append(top)
            continue
        folders.append(top)
        seen, waiting = set(at_top), deque([top])
        while waiting:
            inner, found = _visible(root, waiting.popleft())
            files += found
            for folder in inner:
                real = os.path.realpath(root / folder)
                if real in seen or _leads_up(root, folder):
                    repeated.append(folder)
                    continue
                seen.add(real)
                folders.append(folder)
                waiting.append(folder)
    return Listing(sorted(folders), sorted(files), sorted(repeated))


def _leads_up(root: Path, folder: str) -> bool:
    """Whether a folder is, by way of links, the root or one that the root lies in."""
    real, real_root = os.path.realpath(root / folder), os.path.realpath(root)
    return os.path.commonpath((real, real_root)) == real


def _visible(root: Path, folder: str) -> tuple[list[str], list[str]]:
    """Folders and files directly in a folder, relative to the root."""
    folders, files = [], []
    with os.scandir(root / folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = f"{folder}/{entry.name}" if folder else entry.name
            if entry.name.startswith("."):
                continue
            if _is_folder(entry):
                if not entry.name.startswith("__"):
                    folders.append(path)
            elif entry.name.lower() not in _JUNK:
                files.append(path)
    return folders, files


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads to itself
        return False
