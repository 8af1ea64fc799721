"""Maps of regions as colours on an image."""

from __future__ import annotations

import colorsys

import jax
import numpy as np

from cram_jax.drawing.images import as_picture, load_pillow
from cram_jax.drawing.overlays import PALETTE

__all__ = ["overlay_regions", "region_colors"]

_GREY = (128, 128, 128)
_GOLDEN = 0.618033988749895  # turns from one hue to the next, none near another


def region_colors(count: int) -> np.ndarray:
    """Colours of regions, uint8 `[count, 3]`: first the palette's, then other hues."""
    load_pillow()
    from PIL import ImageColor

    # The palette's first is the colour of the first layer's rectangle.
    names = [str(color) for color in (*PALETTE[1:], PALETTE[0])[:count]]
    colors: list[tuple[int, ...]] = [ImageColor.getrgb(name) for name in names]
    for number in range(len(colors), count):
        rgb = colorsys.hsv_to_rgb(number * _GOLDEN % 1.0, 0.75, 0.95)
        colors.append(tuple(round(255 * each) for each in rgb))
    return np.array(colors, np.uint8).reshape(count, 3)


def overlay_regions(
    image: jax.typing.ArrayLike,
    regions: np.ndarray,
    *,
    count: int,
    opacity: float = 0.5,
) -> np.ndarray:
    """Tints the regions of an image.

    Args:
      image: `[H, W]`, `[H, W, 1]` or `[H, W, 3]`, uint8 or floating in [0, 1].
      regions: integers `[h, w]`, stretched over the image. Region 0, the background,
        has no tint; numbers from `count` on, which are no regions, are grey.
      count: number of regions.
      opacity: share of the tint, in [0, 1].

    Returns:
      uint8 `[H, W, 3]`.

    Raises:
      ValueError: for regions of another rank, and an opacity out of range.
    """
    picture = np.asarray(as_picture(image))
    if regions.ndim != 2 or not 0 <= opacity <= 1:
        raise ValueError(
            "Regions are [h, w] and the opacity lies in [0, 1]; got shape"
            f" {regions.shape} and {opacity}."
        )
    # The pixel of the regions in which each pixel's centre lies.
    rows, columns = (
        ((np.arange(side) + 0.5) * shown / side).astype(int)
        for side, shown in zip(picture.shape[:2], regions.shape, strict=True)
    )
    stretched = np.minimum(regions[rows[:, None], columns[None]], count)
    table = np.array([[0, 0, 0], *region_colors(count - 1), _GREY], np.float32)
    tinted = picture + opacity * (table[stretched] - picture)
    is_background = stretched == 0
    return np.where(is_background[..., None], picture, np.round(tinted)).astype(
        np.uint8
    )
