"""Convolutional Rectangular Attention Module (CRAM) for JAX and Flax linen.

A spatial attention layer whose mask is one soft rotated rectangle. The conventions
are in `cram_jax.coordinates`; backbones in `cram_jax.backbones`; pictures, which need
Pillow (the extra `viz`), in `cram_jax.drawing`.
"""

from cram_jax.attention import (
    RectangularAttention,
    attended_rectangles,
    sharpness_schedule,
)
from cram_jax.baselines import (
    ATTENTIONS,
    CBAM,
    CoordinateAttention,
    EfficientChannelAttention,
    PositionwiseAttention,
    SqueezeExcite,
    attention_factory,
)
from cram_jax.coordinates import map_extents, pixel_centers
from cram_jax.distances import gaussian_distance_squared, rectangle_distance
from cram_jax.equivariance import (
    equivariance_distance,
    equivariance_iou,
    equivariance_loss,
    mask_equivariance_iou,
)
from cram_jax.overlap import mask_iou, rectangle_intersection_area, rotated_iou
from cram_jax.predictors import MomentPredictor, RegressionPredictor
from cram_jax.rectangle import (
    Rectangle,
    canonical_rectangle,
    rectangle_area,
    rectangle_corners,
    rectangle_covariance,
    rectangle_from_raw,
    rectangle_hull,
    rectangle_to_raw,
)
from cram_jax.rendering import (
    apply_mask,
    gate,
    relative_sharpness,
    render_hard_mask,
    render_mask,
)
from cram_jax.similarity import (
    Similarity,
    sample_similarity,
    transform_points,
    transform_rectangle,
)
from cram_jax.trunk import Trunk
from cram_jax.warping import inside_mask, warp_image

__all__ = [
    "ATTENTIONS",
    "CBAM",
    "CoordinateAttention",
    "EfficientChannelAttention",
    "MomentPredictor",
    "PositionwiseAttention",
    "Rectangle",
    "RectangularAttention",
    "RegressionPredictor",
    "Similarity",
    "SqueezeExcite",
    "Trunk",
    "apply_mask",
    "attended_rectangles",
    "attention_factory",
    "canonical_rectangle",
    "equivariance_distance",
    "equivariance_iou",
    "equivariance_loss",
    "gate",
    "gaussian_distance_squared",
    "inside_mask",
    "map_extents",
    "mask_equivariance_iou",
    "mask_iou",
    "pixel_centers",
    "rectangle_area",
    "rectangle_corners",
    "rectangle_covariance",
    "rectangle_distance",
    "rectangle_from_raw",
    "rectangle_hull",
    "rectangle_intersection_area",
    "rectangle_to_raw",
    "relative_sharpness",
    "render_hard_mask",
    "render_mask",
    "rotated_iou",
    "sample_similarity",
    "sharpness_schedule",
    "transform_points",
    "transform_rectangle",
    "warp_image",
]
