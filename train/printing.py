"""Names and sentences on the terminal, whatever characters are in them."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def printable(path: str | Path) -> str:
    """A path for the terminal and for JSON: one line of valid text.

    Line breaks and other unprintable characters, and bytes that are no UTF-8, come
    out as backslash escapes.
    """
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(
        letter
        if letter.isprintable()
        else letter.encode("unicode_escape").decode("ascii")
        for letter in text
    )


def say(text: str, *, error: bool = False) -> None:
    """Prints a line whatever the terminal's encoding; what it lacks is escaped."""
    stream = sys.stderr if error else sys.stdout
    encoding = stream.encoding or "utf-8"
    text = text.encode(encoding, "backslashreplace").decode(encoding)
    print(text, file=stream, flush=True)
