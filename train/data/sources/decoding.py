"""Image files to arrays: every kind of file gives the right pixels or one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from train.data.sources.base import UnreadableImageError

# What Pillow lists beside images: documents, weather, films, and what it cannot decode.
_NO_IMAGES = frozenset(("BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"))


def image_endings() -> frozenset[str]:
    """Endings (".jpg") of the image files that Pillow reads, as installed here."""
    Image.init()
    # Its JPEG reader opens MPO, the JPEG of phones with two lenses, too.
    readable = (Image.OPEN.keys() | {"MPO"}) - _NO_IMAGES
    endings = Image.registered_extensions().items()
    return frozenset(ending for ending, kind in endings if kind in readable)


def decode_image(
    file: str | Path | IO[bytes], *, channels: int = 3, name: str | None = None
) -> np.ndarray:
    """One image file as uint8 [H, W, channels], turned upright by its EXIF tag.

    An animation gives its first frame; transparency is laid over white, 16 bits are
    scaled to 8, and CMYK, palette and grey are converted.

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


def decode_values(file: Path, height: int, width: int, *, stored: bool) -> np.ndarray:
    """The pixels of a mask file, integers [height, width].

    Args:
        file: the mask.
        height: its image's, in pixels.
        width: its image's, in pixels.
        stored: the numbers as they are stored, of palettes too; else grey levels.

    Raises:
        UnreadableImageError: broken, or not of the size of its image.
    """
    try:
        with Image.open(file) as image:
            values = np.asarray(image) if stored else mask_levels(image)
    except Exception as error:
        raise UnreadableImageError(f"{file} {_reason(file, error)}") from error
    check_mask_size(values, height, width, name=str(file))
    return values


def marked_object(values: np.ndarray, file: Path, *, trimap: bool) -> np.ndarray:
    """The object of a mask as uint8 [H, W] of 0 and 1.

    Args:
        values: its pixels.
        file: that they come from.
        trimap: the object has the value 1; else it is white (128 and more of 255).

    Raises:
        UnreadableImageError: there is no object.
    """
    mask = (values == 1 if trimap else values > 127).astype(np.uint8)
    if not mask.any():
        wanted = "1 (the object)" if trimap else "255 (white, the object)"
        found = ", ".join(str(int(value)) for value in np.unique(values)[:5])
        raise UnreadableImageError(
            f"{file} marks no object: it must have pixels of value {wanted}, and has "
            f"{found}; correct or remove it."
        )
    return mask


def mask_levels(image: Image.Image) -> np.ndarray:
    """Grey levels 0 to 255 of a mask of any mode; what is transparent is black."""
    if image.has_transparency_data:
        black = Image.new("RGBA", image.size, "black")
        image = Image.alpha_composite(black, image.convert("RGBA"))
    return np.asarray(_eight_bits(image, "L"))


def check_mask_size(values: np.ndarray, height: int, width: int, *, name: str) -> None:
    """Refuses a mask of another size than its image's."""
    if values.shape != (height, width):
        raise UnreadableImageError(
            f"{name} must have the {height}x{width} pixels of its image, "
            f"got shape {values.shape}."
        )


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
