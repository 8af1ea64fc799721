"""How well what a layer shows has moved with the image: IoUs, to measure with.

`mask_equivariance_iou` also serves layers whose mask is no rectangle.
"""

from __future__ import annotations

import jax

from cram_jax.geometry.overlap import mask_iou, rotated_iou
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import Similarity, transform_rectangle
from cram_jax.geometry.warping import inside_mask, warp_image
from cram_jax.losses.alignment import common_shape, moves_of_images

__all__ = ["equivariance_iou", "mask_equivariance_iou"]


def equivariance_iou(
    rectangles: Rectangle, moved_rectangles: Rectangle, similarities: Similarity
) -> jax.Array:
    """Rotated IoU of moved rectangles with those found in the moved images.

    Args:
      rectangles: found in the images, `[...]`.
      moved_rectangles: found in the moved images, `[...]`.
      similarities: what moved the images, `[...]`.

    Returns:
      `[...]` in [0, 1]; 1 means perfect equivariance.
    """
    moves = moves_of_images(similarities, common_shape(rectangles, moved_rectangles))
    return rotated_iou(transform_rectangle(moves, rectangles), moved_rectangles)


def mask_equivariance_iou(
    masks: jax.Array, moved_masks: jax.Array, similarities: Similarity
) -> jax.Array:
    """IoU of moved masks with those found in the moved images, for any mask.

    Only what came from inside the image is compared.

    Args:
      masks: found in the images, `[..., H, W]`, floating point, in [0, 1].
      moved_masks: found in the moved images, `[..., H, W]`.
      similarities: what moved the images, `[...]`.

    Returns:
      `[...]` in [0, 1], by `mask_iou`.
    """
    moves = moves_of_images(similarities, masks.shape[:-2])
    inside = inside_mask(moves, *masks.shape[-2:])
    moved = warp_image(moves, masks[..., None])[..., 0]
    return mask_iou(moved * inside, moved_masks * inside)
