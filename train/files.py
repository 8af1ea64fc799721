"""How a file is written: whole or not at all, and JSON that any reader takes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def finite(values: Any) -> Any:
    """The same values without what JSON does not have: NaN and infinity become None."""
    if isinstance(values, Mapping):
        return {str(name): finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    if isinstance(values, float) and not math.isfinite(values):
        return None
    return values


def json_bytes(values: Any) -> bytes:
    """The content of a JSON file."""
    return (json.dumps(finite(values), indent=2, allow_nan=False) + "\n").encode()


def json_line(record: Mapping[str, Any]) -> str:
    """A record as one line of JSON; a number that is not finite is left out."""
    known = {name: value for name, value in finite(record).items() if value is not None}
    return json.dumps(known, allow_nan=False) + "\n"


def write_json(path: Path, values: Any) -> None:
    """Writes a JSON file whole or not at all.

    Raises:
      OSError: if the disk is full, or the directory forbidden.
    """
    write_whole(path, json_bytes(values))


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all, even if the machine stops meanwhile.

    Raises:
      OSError: if the disk is full, or the directory forbidden.
    """
    # A name of its own: the file's name may be as long as a file system allows.
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
