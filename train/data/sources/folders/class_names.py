"""Names of classes: one spelling each, and no two alike."""

from __future__ import annotations

import csv
import unicodedata
from collections.abc import Iterable
from pathlib import Path


def class_name(folder: str, where: Path) -> str:
    """The name of a class folder, composed (NFC), so that one name has one spelling.

    Args:
        folder: its name on disk.
        where: the folder it lies in, for the message.

    Raises:
        ValueError: the name is no text.
    """
    try:
        folder.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"The class folder {folder!a} in {where} has a name that is not UTF-8;"
            " rename it."
        ) from None
    return unicodedata.normalize("NFC", folder)


def check_spelling(folders: Iterable[str], where: Path) -> None:
    """Refuses two class folders whose names are one text in two of Unicode's ways.

    Raises:
        ValueError: names both.
    """
    known: dict[str, str] = {}
    for folder in folders:
        other = known.setdefault(class_name(folder, where), folder)
        if other != folder:
            raise ValueError(
                f"{where} has the class folder {folder!r} twice, with accents spelled "
                f"in two ways ({other!a} and {folder!a}); join the two."
            )


def displayed_names(root: Path, classes: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the classes: their folders', or what classes.csv calls them.

    Raises:
        ValueError: classes.csv is no CSV, or leaves two classes with one name.
    """
    file = root / "classes.csv"
    given = _read(file) if file.exists() else {}
    names = tuple(given.get(folder) or folder for folder in classes)
    first: dict[str, str] = {}
    for folder, name in zip(classes, names, strict=True):
        other = first.setdefault(name, folder)
        if other != folder:
            raise ValueError(
                f"{file} leaves the class folders {other} and {folder} with one name, "
                f"{name!r}; give each its own."
            )
    return names


def _read(file: Path) -> dict[str, str]:
    """Names by folder, both composed."""
    names: dict[str, str] = {}
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            for row in csv.reader(lines):
                if len(row) < 2:
                    continue
                folder, name = (
                    unicodedata.normalize("NFC", cell.strip()) for cell in row[:2]
                )
                if names.setdefault(folder, name) != name:
                    raise ValueError(
                        f"{file} gives {folder!r} two names, {names[folder]!r} and "
                        f"{name!r}; keep one."
                    )
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} must be a CSV of UTF-8 text: {error}.") from error
    return names
