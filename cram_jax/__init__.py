"""Convolutional Rectangular Attention Module (CRAM) for JAX and Flax linen.

A spatial attention layer whose mask is one soft rotated rectangle. The conventions are
in `cram_jax.geometry.coordinates`; backbones in `cram_jax.backbones`; pictures, which
need Pillow (the extra `viz`), in `cram_jax.drawing`.
"""

from cram_jax.attention.channel import (
    CoordinateAttention,
    EfficientChannelAttention,
    SqueezeExcite,
)
from cram_jax.attention.evidence import (
    attended_masks,
    attended_rectangles,
    layer_evidence,
    mask_dropout_schedule,
    sharpness_schedule,
)
from cram_jax.attention.gate import Gate, apply_mask, gate
from cram_jax.attention.positionwise import (
    CBAM,
    PositionwiseAttention,
    SpatialChannelSqueezeExcite,
)
from cram_jax.attention.predictors import MomentPredictor, RegressionPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.attention.registry import ATTENTIONS, attention_factory
from cram_jax.attention.trunk import Trunk
from cram_jax.explain import (
    ClassMaps,
    class_activation_maps,
    grad_cam,
    grad_cam_of_split,
)
from cram_jax.geometry.average_precision import DetectionScores, average_precision
from cram_jax.geometry.coordinates import map_extents, pixel_centers
from cram_jax.geometry.coverage import (
    covers_picture,
    is_wider_than_picture,
    rectangle_pixel_area,
    share_of_picture,
)
from cram_jax.geometry.distances import gaussian_distance_squared, rectangle_distance
from cram_jax.geometry.matching import (
    DetectionMatches,
    join_matches,
    match_detections,
)
from cram_jax.geometry.overlap import mask_iou, rectangle_intersection_area, rotated_iou
from cram_jax.geometry.pixels import (
    rectangle_from_pixel_box,
    rectangle_pixel_box,
    rectangle_polygon,
)
from cram_jax.geometry.raw import rectangle_from_raw, rectangle_to_raw
from cram_jax.geometry.rectangle import (
    Rectangle,
    canonical_rectangle,
    rectangle_area,
    rectangle_corners,
    rectangle_covariance,
    rectangle_hull,
)
from cram_jax.geometry.rendering import (
    mask_union,
    relative_sharpness,
    render_hard_mask,
    render_mask,
)
from cram_jax.geometry.similarity import (
    Similarity,
    sample_similarity,
    transform_points,
    transform_rectangle,
)
from cram_jax.geometry.warping import inside_mask, warp_image, warp_labels
from cram_jax.losses import (
    apply_with_outside,
    area_price_loss,
    area_sums,
    area_target_loss,
    ascended_price,
    mask_areas,
    moving_area,
    outside_loss,
    ramped_weight,
    target_price,
)
from cram_jax.losses.equivariance import (
    equivariance_distance,
    equivariance_loss,
)
from cram_jax.losses.equivariance_scores import (
    equivariance_iou,
    mask_equivariance_iou,
)

__all__ = [
    "ATTENTIONS",
    "CBAM",
    "ClassMaps",
    "CoordinateAttention",
    "DetectionMatches",
    "DetectionScores",
    "EfficientChannelAttention",
    "Gate",
    "MomentPredictor",
    "PositionwiseAttention",
    "Rectangle",
    "RectangularAttention",
    "RegressionPredictor",
    "Similarity",
    "SpatialChannelSqueezeExcite",
    "SqueezeExcite",
    "Trunk",
    "apply_mask",
    "apply_with_outside",
    "area_price_loss",
    "area_sums",
    "area_target_loss",
    "ascended_price",
    "attended_masks",
    "attended_rectangles",
    "attention_factory",
    "average_precision",
    "canonical_rectangle",
    "class_activation_maps",
    "covers_picture",
    "equivariance_distance",
    "equivariance_iou",
    "equivariance_loss",
    "gate",
    "gaussian_distance_squared",
    "grad_cam",
    "grad_cam_of_split",
    "inside_mask",
    "is_wider_than_picture",
    "join_matches",
    "layer_evidence",
    "map_extents",
    "mask_areas",
    "mask_dropout_schedule",
    "mask_equivariance_iou",
    "mask_iou",
    "mask_union",
    "match_detections",
    "moving_area",
    "outside_loss",
    "pixel_centers",
    "ramped_weight",
    "rectangle_area",
    "rectangle_corners",
    "rectangle_covariance",
    "rectangle_distance",
    "rectangle_from_pixel_box",
    "rectangle_from_raw",
    "rectangle_hull",
    "rectangle_intersection_area",
    "rectangle_pixel_area",
    "rectangle_pixel_box",
    "rectangle_polygon",
    "rectangle_to_raw",
    "relative_sharpness",
    "render_hard_mask",
    "render_mask",
    "rotated_iou",
    "sample_similarity",
    "share_of_picture",
    "sharpness_schedule",
    "target_price",
    "transform_points",
    "transform_rectangle",
    "warp_image",
    "warp_labels",
]
