"""Names and sentences on the terminal, whatever characters are in them."""

from __future__ import annotations

import io
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
    """Prints a line at once, on standard error if it is one."""
    print(text, file=sys.stderr if error else sys.stdout, flush=True)


def escape_what_cannot_be_printed() -> None:
    """Lets the terminal's encoding lack a letter: it is escaped, and nothing fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
