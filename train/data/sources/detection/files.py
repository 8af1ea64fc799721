"""Where the files of a set lie, and what stands in them: JSON, or one sentence."""

from __future__ import annotations

import glob
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.config.places import expanded
from train.data.sources.base import NoSplitError
from train.data.sources.folders.tree import SPLIT_FOLDERS


def folder_of_set(name: str, kind: str) -> Path:
    """The folder of a set that is called KIND:PATH.

    Raises:
        ValueError: there is none.
    """
    root = Path(expanded(name.removeprefix(f"{kind}:")))
    if not root.is_dir():
        what = "is a file; name the folder it lies in" if root.exists() else ""
        raise ValueError(f"The folder {root} of {name} {what or 'does not exist'}.")
    return root


def split_names(split: str) -> tuple[str, ...]:
    """How the files or folders of a split may be called; "test" may be "val", too."""
    return SPLIT_FOLDERS.get(split, (split,))


def file_of_split(root: Path, split: str, forms: Sequence[str]) -> Path:
    """The file of a split.

    Args:
        root: the set's folder.
        split: its name.
        forms: paths below the folder where it may lie, with {split} for one of
            `split_names` and * for anything, the likeliest first.

    Raises:
        NoSplitError: there is none.
        ValueError: two of them may be meant.
    """
    for name in split_names(split):
        for form in forms:
            pattern = form.format(split=glob.escape(name))
            found = sorted(root.glob(pattern))
            if len(found) > 1:
                raise ValueError(
                    f"{root} has {len(found)} files of the split {split!r},"
                    f" {' and '.join(str(each.relative_to(root)) for each in found)};"
                    " name one by --data.train-split or --data.eval-split, as in"
                    f" {_distinct(found[0], form)}."
                )
            if found:
                return found[0]
    wanted = ", ".join(form.format(split=split_names(split)[0]) for form in forms)
    raise NoSplitError(
        f"{root} has no split {split!r}: expected {wanted}. Training images can be held"
        " out instead, by --data.validation 0.2."
    )


def _distinct(file: Path, form: str) -> str:
    """The name that finds a file by its form alone."""
    before = Path(form).name.partition("{split}")[0]
    return file.stem.removeprefix(before)


def read_json(file: Path) -> dict[str, Any]:
    """The fields of a JSON file.

    Raises:
        ValueError: it is none, and where it stops being one; or it holds no fields.
    """
    try:
        values = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{file} is no JSON from line {error.lineno}, column {error.colno} on:"
            f" {error.msg}."
        ) from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} must be UTF-8 text: {error}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} must hold an object {{...}}, got {_kind(values)}.")
    return values


_KINDS = {list: "a list", str: "a text", dict: "an object", int: "a whole number"}


def field(values: Any, name: str, kind: type, where: str) -> Any:
    """One field of a JSON object.

    Args:
        values: the object.
        name: the field's.
        kind: list, str, dict or int.
        where: what messages call the object.

    Raises:
        ValueError: it is missing, or of another kind.
    """
    if not isinstance(values, dict):
        raise ValueError(f"{where} must be an object {{...}}, got {_kind(values)}.")
    if name not in values:
        raise ValueError(
            f"{where} has no field {name!r}; it has {', '.join(values) or 'none'}."
        )
    value = values[name]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(
            f"{where} must have {_KINDS[kind]} as {name!r}, got {_kind(value)}."
        )
    return value


def size_of(values: Any, where: str) -> tuple[int, int]:
    """(height, width) of an image, from the fields of its JSON object."""
    height, width = (field(values, name, int, where) for name in ("height", "width"))
    if height < 1 or width < 1:
        raise ValueError(
            f"{where} must have a height and a width of 1 pixel or more, got {height}"
            f" and {width}."
        )
    return height, width


def _kind(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:40]!r}"
