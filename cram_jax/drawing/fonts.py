"""A font that has the letters of a text, in any script.

Pillow's own font has western letters only, and draws an empty box for each other.
Matplotlib knows the fonts of the system; without it, western letters are all there is.
"""

from __future__ import annotations

import functools
import unicodedata
import warnings
from pathlib import Path
from typing import Any

# It has a glyph for every character: a box.
_EMPTY_FONT = "LastResort"
# Formats and marks that fonts need not have: joiners, selectors of variants.
_UNSEEN = ("Cf", "Cc", "Zl", "Zp", "Zs")
_PROBE_SIZE = 16


@functools.cache
def font_file(text: str) -> Path | None:
    """The file of a system font with all letters of a text.

    Returns:
      None where Pillow's own font has them, or where no font does: `has_font` tells
      these two apart.
    """
    if not _needed(text) or _in_default_font(text):
        return None
    return next((file for file in _system_fonts() if _has_all(file, text)), None)


def has_font(text: str) -> bool:
    """Whether any font of this system has all letters of the text."""
    return _in_default_font(text) or font_file(text) is not None


def load_font(text: str, size: int) -> Any:
    """A Pillow font for a text.

    Warns (UserWarning) if no font has its letters; they come out as boxes then.

    Args:
      text: what is to be drawn.
      size: height of the letters in pixels, about.
    """
    from PIL import ImageFont

    file = font_file(text)
    if file is not None:
        return ImageFont.truetype(str(file), size)
    if not _in_default_font(text):
        warnings.warn(
            f"No font of this system has all letters of {text!r}; those it lacks are"
            " drawn as boxes. Install a font of that script.",
            stacklevel=3,
        )
    return ImageFont.load_default(size)


def _needed(text: str) -> set[str]:
    """The characters that must have a glyph."""
    return {
        letter
        for letter in unicodedata.normalize("NFC", text)
        if unicodedata.category(letter) not in _UNSEEN
        and not 0xFE00 <= ord(letter) <= 0xFE0F
    }


def _in_default_font(text: str) -> bool:
    """Whether Pillow's own font has all letters: none looks like a missing one."""
    from PIL import ImageFont

    font = ImageFont.load_default(_PROBE_SIZE)
    missing = _shape(font, "\U0010ffff")
    return all(_shape(font, letter) != missing for letter in _needed(text))


def _shape(font: Any, letter: str) -> tuple[tuple[int, int], bytes]:
    mask = font.getmask(letter)
    return mask.size, bytes(mask)


@functools.cache
def _system_fonts() -> tuple[Path, ...]:
    """Upright fonts of normal weight first: a bold one is better than a box."""
    try:
        from matplotlib import font_manager
    except ImportError:
        return ()

    def plainness(entry: Any) -> tuple:
        weight = entry.weight if isinstance(entry.weight, int) else 400
        serif = "Sans" not in entry.name
        return (entry.style != "normal", abs(weight - 400), serif, entry.fname)

    entries = sorted(font_manager.fontManager.ttflist, key=plainness)
    # The list is kept from an earlier day; fonts may have been installed since.
    found = [entry.fname for entry in entries] + sorted(font_manager.findSystemFonts())
    files = dict.fromkeys(Path(name) for name in found)
    return tuple(file for file in files if _EMPTY_FONT not in file.name)


def _has_all(file: Path, text: str) -> bool:
    from matplotlib.ft2font import FT2Font
    from PIL import ImageFont

    try:
        font = FT2Font(str(file))
        # Fonts of coloured pictures have one size only, which Pillow refuses.
        ImageFont.truetype(str(file), _PROBE_SIZE)
        return all(font.get_char_index(ord(letter)) for letter in _needed(text))
    except (OSError, RuntimeError):
        return False
