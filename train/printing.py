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
    return "".join(map(_shown, text))


def _shown(letter: str) -> str:
    if letter.isprintable():
        return letter
    return letter.encode("unicode_escape").decode("ascii")


def say(text: str, *, error: bool = False) -> None:
    """Prints text at once, on standard error if it is one.

    A name in it may hold anything: what would move the cursor comes out escaped, but
    for line breaks.
    """
    shown = "".join(letter if letter == "\n" else _shown(letter) for letter in text)
    print(shown, file=sys.stderr if error else sys.stdout, flush=True)


def escape_what_cannot_be_printed() -> None:
    """Lets the terminal's encoding lack a letter: it is escaped, and nothing fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
