"""Images of any kind as pictures (uint8 RGB), and pictures in a grid.

Pillow is needed only when something is drawn (`pip install "cram-jax[viz]"`). Images
go in as numpy or jax arrays `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8 or floating
in [0, 1]; pictures are uint8 `[H, W, 3]`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import jax
import numpy as np

from cram_jax.drawing.fonts import load_font

__all__ = ["image_grid"]

_BAND_PIXELS = 2**18


def load_pillow():
    """The module PIL, imported when first needed: the library does without it."""
    try:
        import PIL.Image
        import PIL.ImageColor
        import PIL.ImageDraw
        import PIL.ImageFont
    except ImportError as error:
        raise ImportError(
            'Drawing needs Pillow: pip install "cram-jax[viz]".'
        ) from error
    return PIL


def check_unit_interval(values: np.ndarray, name: str) -> None:
    """Raises ValueError unless all values are in [0, 1], up to rounding."""
    low, high = values.min(), values.max()
    if not (low >= -1e-3 and high <= 1 + 1e-3):
        raise ValueError(
            f"A floating {name} must lie in [0, 1], got values from {low:g} to "
            f"{high:g}; undo the normalisation, or pass uint8."
        )


def as_picture(image: jax.typing.ArrayLike) -> np.ndarray:
    """uint8 `[H, W, 3]` of an image."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3) or array.size == 0:
        raise ValueError(
            "An image has the shape [H, W], [H, W, 1] or [H, W, 3], got "
            f"{np.shape(image)}; draw the images of a batch one by one."
        )
    if jax.dtypes.issubdtype(array.dtype, np.floating):
        array = _eight_bits(array)
    if array.dtype != np.uint8:
        raise ValueError(f"An image is uint8 or floating, got {array.dtype}.")
    return np.broadcast_to(array, (*array.shape[:2], 3))


def row_bands(height: int, width: int) -> Iterator[slice]:
    """Slices of rows, so that a large picture is worked on a piece at a time."""
    rows = max(1, _BAND_PIXELS // width)
    for first in range(0, height, rows):
        yield slice(first, first + rows)


def _eight_bits(array: np.ndarray) -> np.ndarray:
    """uint8 of floating values in [0, 1], `[H, W, C]`."""
    result = np.empty(array.shape, np.uint8)
    for band in row_bands(*array.shape[:2]):
        values = array[band].astype(np.float32)
        check_unit_interval(values, "image")
        result[band] = np.rint(np.clip(values, 0, 1) * 255)
    return result


def enlarged(picture: np.ndarray, upscale: int) -> np.ndarray:
    """The picture with every pixel repeated `upscale` times in both directions."""
    if upscale < 1 or int(upscale) != upscale:
        raise ValueError(f"upscale is a whole factor of at least 1, got {upscale}.")
    if upscale == 1:
        return picture
    return picture.repeat(upscale, axis=0).repeat(upscale, axis=1)


def image_grid(
    images: Sequence[jax.typing.ArrayLike] | jax.Array | np.ndarray,
    *,
    columns: int,
    captions: Sequence[str] | None = None,
    padding: int = 4,
    upscale: int = 1,
) -> np.ndarray:
    """Puts images side by side on white, row by row, each with its caption below.

    Args:
      images: a batch `[n, H, W, C]`, or images of any sizes, each as in
        `draw_rectangles`. All cells are as large as the largest image.
      columns: images in a row.
      captions: a short text for each image; longer than its image, it is cut off.
      padding: pixels between images and round the grid.
      upscale: whole factor by which every image is enlarged first.

    Returns:
      uint8 `[height, width, 3]`.

    Raises:
      ImportError: if Pillow is missing.
      ValueError: if there is no image, or a number that does not fit.
    """
    if len(images) == 0 or columns < 1:
        raise ValueError(
            "A grid needs at least one image and one column, got "
            f"{len(images)} images and columns={columns}."
        )
    if captions is not None and len(captions) != len(images):
        raise ValueError(
            f"Each image needs one caption, got {len(captions)} captions for "
            f"{len(images)} images."
        )
    pictures = [enlarged(as_picture(image), upscale) for image in images]
    return _sheet(pictures, columns, captions, padding)


def _sheet(
    pictures: list[np.ndarray],
    columns: int,
    captions: Sequence[str] | None,
    padding: int,
) -> np.ndarray:
    """The pictures on white, uint8 `[height, width, 3]`."""
    cell = np.max([picture.shape[:2] for picture in pictures], axis=0)
    step_y = int(cell[0]) + padding + (0 if captions is None else 16)
    step_x = int(cell[1]) + padding
    rows = -(-len(pictures) // columns)
    sheet = np.full(
        (rows * step_y + padding, columns * step_x + padding, 3), 255, np.uint8
    )
    for index, picture in enumerate(pictures):
        y = padding + index // columns * step_y
        x = padding + index % columns * step_x
        height, width = picture.shape[:2]
        sheet[y : y + height, x : x + width] = picture
        if captions is not None:
            strip = _text_strip(captions[index], int(cell[1]))
            y += int(cell[0])
            sheet[y : y + strip.shape[0], x : x + strip.shape[1]] = strip
    return sheet


def _text_strip(text: str, width: int) -> np.ndarray:
    """Black text on white, uint8 `[16, width, 3]`."""
    pillow = load_pillow()
    strip = pillow.Image.new("RGB", (width, 16), "white")
    font = load_font(text, 11)
    pillow.ImageDraw.Draw(strip).text((0, 1), text, font=font, fill="black")
    return np.asarray(strip)
