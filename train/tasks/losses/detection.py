"""The losses of a detector, each as a sum and its weight: they add up over devices."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.geometry.cells import CellGrid, at_cells, cell_grid, rectangle_from_code
from cram_jax.geometry.coordinates import map_extents
from cram_jax.heads.detection_targets import DetectionTargets, detection_targets
from cram_jax.losses.boxes import (
    gaussian_box_loss,
    iou_box_loss,
    positive_sums,
    smooth_l1_box_loss,
)
from cram_jax.losses.heat_maps import heat_map_loss, heat_map_sums
from train.tasks.sums import weighted_sum

Pair = tuple[jax.Array, jax.Array]


def _smooth_l1(codes: jax.Array, targets: DetectionTargets, grid: CellGrid):
    del grid
    return smooth_l1_box_loss(codes, targets.boxes)


def _gaussian(codes: jax.Array, targets: DetectionTargets, grid: CellGrid):
    found = rectangle_from_code(codes, targets.cell, grid)
    return gaussian_box_loss(found, targets.rectangle)


def _iou(codes: jax.Array, targets: DetectionTargets, grid: CellGrid):
    """Where rectangles do not meet, the other loss, which pulls them together."""
    found = rectangle_from_code(codes, targets.cell, grid)
    overlap = iou_box_loss(found, targets.rectangle)
    return overlap + jnp.where(overlap >= 1, _gaussian(codes, targets, grid), 0.0)


BoxLoss = Callable[[jax.Array, DetectionTargets, CellGrid], jax.Array]
BOX_LOSSES: dict[str, BoxLoss] = {
    "smooth-l1": _smooth_l1,
    "gaussian": _gaussian,
    "iou": _iou,
}


def detection_losses(
    outputs: Mapping[str, jax.Array], batch: Mapping[str, Any], *, box_loss: str
) -> tuple[Pair, Pair]:
    """The loss of heat maps and that of boxes, both means over the objects.

    Args:
      outputs: "heat" `[B, h, w, K]` and "boxes" `[B, h, w, 6]`.
      batch: "image" `[B, H, W, C]`, "weight" `[B]` (0 leaves an image out), and the
        rows of `train.data.objects`.
      box_loss: a name of `BOX_LOSSES`.
    """
    height, width, categories = outputs["heat"].shape[1:]
    extents = map_extents(*batch["image"].shape[1:3])
    targets = detection_targets(
        batch["objects"],
        batch["object_labels"],
        batch["object_ignored"],
        height,
        width,
        num_categories=categories,
        extents=extents,
    )
    heat = heat_map_loss(outputs["heat"], targets.heat)
    grid = cell_grid(height, width, extents=extents)
    codes = at_cells(outputs["boxes"], targets.cell)
    boxes = BOX_LOSSES[box_loss](codes, targets, grid)

    def of_batch(sums: Pair) -> Pair:
        weight = batch["weight"]
        return weighted_sum(weight, sums[0]), weighted_sum(weight, sums[1])

    return (
        of_batch(heat_map_sums(heat, targets.heat, targets.counted)),
        of_batch(positive_sums(boxes, targets.positive)),
    )
