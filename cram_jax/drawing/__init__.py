"""Rectangles, masks and regions drawn on images; needs Pillow (the extra `viz`).

Files, each built on those before it: fonts, images, overlays, regions.
"""

from cram_jax.drawing.images import image_grid
from cram_jax.drawing.overlays import (
    PALETTE,
    draw_rectangles,
    overlay_mask,
    rectangle_pixel_corners,
)
from cram_jax.drawing.regions import overlay_regions, region_colors

__all__ = [
    "PALETTE",
    "draw_rectangles",
    "image_grid",
    "overlay_mask",
    "overlay_regions",
    "rectangle_pixel_corners",
    "region_colors",
]
