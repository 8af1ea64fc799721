"""Pure losses on what attention layers show: how much they let through, and what not.

Those on what a detector tells are here as well (`boxes`, `heat_maps`).

Every loss is per example, or a sum and a weight. The mean of the whole batch is the sum
over the weight, whoever adds them up: one device or many, all at once or in parts.

Files, each built on those before it: alignment, relative_distances, equivariance,
equivariance_scores, budget, prices, second_pass, outside, boxes, heat_maps.
"""

from cram_jax.losses.budget import (
    area_price_loss,
    area_sums,
    area_target_loss,
    mask_areas,
    ramped_weight,
)
from cram_jax.losses.outside import apply_with_outside, ignorance_loss, outside_loss
from cram_jax.losses.prices import ascended_price, moving_area, target_price

__all__ = [
    "apply_with_outside",
    "area_price_loss",
    "area_sums",
    "area_target_loss",
    "ascended_price",
    "ignorance_loss",
    "mask_areas",
    "moving_area",
    "outside_loss",
    "ramped_weight",
    "target_price",
]
