"""Rectangles and masks drawn on images; needs Pillow (the extra `viz`).

Files, each built on those before it: fonts, images, overlays.
"""

from cram_jax.drawing.images import image_grid
from cram_jax.drawing.overlays import (
    PALETTE,
    draw_rectangles,
    overlay_mask,
    rectangle_pixel_corners,
)

__all__ = [
    "PALETTE",
    "draw_rectangles",
    "image_grid",
    "overlay_mask",
    "rectangle_pixel_corners",
]
