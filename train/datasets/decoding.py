"""Image files to arrays: every kind of file gives the right pixels or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from train.datasets.base import UnreadableImageError

EXTENSIONS = frozenset(
    (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)


def decode_image(
    file: str | Path | IO[bytes], *, channels: int = 3, name: str | None = None
) -> np.ndarray:
    """One image file as uint8 [H, W, channels], turned upright by its EXIF tag.

    Of an animation the first frame; transparency over white; 16 bits scaled to 8;
    CMYK, palette and grey converted.

    Args:
        file: path, or a file object with the encoded bytes.
        channels: 3 (RGB) or 1 (grey).
        name: what messages call it; default the path.

    Raises:
        UnreadableImageError: names the file and says what is wrong with it.
    """
    name = str(file) if name is None else name
    try:
        with Image.open(file) as image:
            image.load()
            upright = ImageOps.exif_transpose(image)
        converted = _eight_bits(upright, "RGB" if channels == 3 else "L")
    except UnreadableImageError as error:
        raise UnreadableImageError(f"{name} {error}") from None
    # Pillow's decoders raise nearly anything on a broken file.
    except Exception as error:
        raise UnreadableImageError(f"{name} {_reason(file, error)}") from error
    return np.asarray(converted).reshape(converted.height, converted.width, channels)


def decode_trimap(file: Path, height: int, width: int) -> np.ndarray:
    """The object of a trimap (value 1) as uint8 [height, width] of 0 and 1.

    Raises:
        UnreadableImageError: broken, or not of the size of its image.
    """
    try:
        with Image.open(file) as image:
            values = np.asarray(image)
    except Exception as error:
        raise UnreadableImageError(f"{file} {_reason(file, error)}") from error
    return object_mask(values == 1, height, width, name=str(file))


def object_mask(present: np.ndarray, height: int, width: int, *, name: str):
    """Checks a mask's size; bool [height, width] to uint8 of 0 and 1."""
    if present.shape != (height, width):
        raise UnreadableImageError(
            f"{name} must have the {height}x{width} pixels of its image, "
            f"got shape {present.shape}."
        )
    return present.astype(np.uint8)


def stored_size(file: str | Path) -> tuple[int, int] | None:
    """(height, width) from the file's header alone; None where it cannot be read."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Exception:  # a broken file is reported when it is decoded
        return None


def _eight_bits(image: Image.Image, mode: str) -> Image.Image:
    """Converts any Pillow mode to RGB or L, with 8 bits a channel."""
    if image.mode.startswith("I"):
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise UnreadableImageError(
                f"has 32-bit values from {values.min()} to {values.max()}; "
                "save it with 8 or 16 bits."
            )
        image = Image.fromarray(np.round(values / 257.0).astype(np.uint8))
    if image.mode == "F":
        raise UnreadableImageError(
            "has floating-point pixels, whose range is unknown; save it with 8 bits."
        )
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert(mode)


def _reason(file: str | Path | IO[bytes], error: Exception) -> str:
    """What is wrong, as the end of a sentence that begins with the file's name."""
    if isinstance(error, FileNotFoundError):
        return "does not exist."
    if isinstance(error, (IsADirectoryError, PermissionError)):
        return f"cannot be opened: {error.strerror}."
    if isinstance(error, Image.DecompressionBombError):
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        return f"has more than {limit:,} pixels, too many to decode; make it smaller."
    if isinstance(file, (str, Path)) and Path(file).stat().st_size == 0:
        return "is empty (zero bytes)."
    if isinstance(error, UnidentifiedImageError):
        return "is not an image, or of a format that Pillow does not know."
    return f"is damaged: {error}."
