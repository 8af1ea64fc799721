"""Does a layer look at the object? Sums over a batch, against the data set's truth.

Masks are compared at the resolution of the network's input: a layer's map is resized
to it (bilinear, each of its pixels where the network looks; see
`cram_jax.backbones.alignment`), so that layers of all stages are judged alike. With a
rectangle and a known object (`truth` "rotated", "box" or "mask"):

* `iou`: the predicted with the true rotated rectangle; where the truth is a box, the
  rectangle's axis-aligned hull, cut at the edges of the picture, with the box; where it
  is a mask, the filled rectangle with the mask. `corloc`: share of images with at least
  0.5.
* `hull_iou`: the IoU between the two axis-aligned hulls, both cut there.
* `center_error`: pixels of the network's input between the two centres.

A layer of several rectangles has `best_iou`, `best_corloc`, `best_hull_iou` and
`best_center_error` instead: of that one of them which scores best by each. Who chose it
knew the truth, so these are no scores to set beside those of one rectangle; those
below, of the union that is its mask, are.

For every layer with a mask, position-wise ones included:

* `mask_iou`: of the object with the mask cut half way between its least and its
  largest value. `mask_corloc`: share of images with at least 0.5.
* `mass_on_object`: share of the mask's sum that lies on the object.
* `pointing`: share of images whose rectangle's centre (for a position-wise mask, and
  for several rectangles: the mask's largest value) lies on the object.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.attention.evidence import shows_several
from cram_jax.geometry.overlap import mask_iou, rotated_iou
from cram_jax.geometry.pixels import rectangle_from_pixel_box, rectangle_pixel_box
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask
from cram_jax.numerics import at_least_float32
from train.tasks.sums import Sums, finite_record, weighted_sum


def _hull_in_picture(rectangle: Rectangle, height: int, width: int) -> Rectangle:
    """The hull as far as it lies in the picture: of no area where it lies beside it."""
    size = height, width
    box = rectangle_pixel_box(rectangle, *size, picture=size)
    return rectangle_from_pixel_box(box, *size)


def object_mask(batch: Mapping[str, Any], truth: Rectangle) -> jax.Array:
    """The objects of a batch as bool `[B, H, W]`; without masks the filled `truth`."""
    height, width = batch["image"].shape[1:3]
    if "object_mask" in batch:
        return batch["object_mask"] > 0
    return render_hard_mask(truth, height, width)


def _lies_on(mask: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
    """Whether points `[B]` in isotropic coordinates lie on masks `[B, H, W]`."""
    height, width = mask.shape[1:]
    longer = max(height, width)
    column = jnp.floor((x * longer + width) / 2).astype(jnp.int32)
    row = jnp.floor((y * longer + height) / 2).astype(jnp.int32)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = jnp.clip(column, 0, width - 1), jnp.clip(row, 0, height - 1)
    return inside & mask[jnp.arange(mask.shape[0]), row, column]


def _mask_scores(mask: jax.Array, target: jax.Array) -> dict[str, jax.Array]:
    """Scores of soft masks `[B, h, w]` against objects `[B, H, W]`."""
    shape = target.shape
    mask = jax.image.resize(at_least_float32(mask), shape, "linear")
    low = jnp.min(mask, axis=(1, 2), keepdims=True)
    high = jnp.max(mask, axis=(1, 2), keepdims=True)
    total = jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1e-9)
    flat = mask.reshape(shape[0], -1)
    peak = jnp.argmax(flat, axis=-1)
    pointed = jnp.take_along_axis(target.reshape(shape[0], -1), peak[:, None], axis=1)
    iou = mask_iou(mask >= (low + high) / 2, target)
    return {
        "mask_iou": iou,
        "mask_corloc": (iou >= 0.5).astype(jnp.float32),
        "mass_on_object": jnp.sum(mask * target, axis=(1, 2)) / total,
        "pointing": pointed[:, 0].astype(jnp.float32),
    }


def _rectangle_scores(
    found: Rectangle, true: Rectangle, target: jax.Array, truth: str
) -> dict[str, jax.Array]:
    """Scores of rectangles `[B]` against true ones and objects `[B, H, W]`."""
    hulls = (_hull_in_picture(each, *target.shape[1:]) for each in (found, true))
    hull_iou = rotated_iou(*hulls)
    if truth == "rotated":
        iou = rotated_iou(found, true)
    elif truth == "box":
        iou = hull_iou
    else:
        iou = mask_iou(render_hard_mask(found, *target.shape[1:]), target)
    offset = jnp.hypot(found.center_x - true.center_x, found.center_y - true.center_y)
    return {
        "iou": iou,
        "corloc": (iou >= 0.5).astype(jnp.float32),
        "hull_iou": hull_iou,
        "center_error": offset * max(target.shape[1:]) / 2,
        "pointing": _lies_on(target, found.center_x, found.center_y).astype(iou.dtype),
    }


def _best_of_several(
    found: Rectangle, true: Rectangle, target: jax.Array, truth: str
) -> dict[str, jax.Array]:
    """The scores `[B]` of the best of rectangles `[B, K]`, by each score."""
    # One number after the other: K of an image never meet B images.
    scores = jax.vmap(_rectangle_scores, in_axes=(1, None, None, None), out_axes=1)(
        found, true, target, truth
    )
    best = {"center_error": jnp.min}
    names = ("iou", "corloc", "hull_iou", "center_error")
    return {
        f"best_{name}": best.get(name, jnp.max)(scores[name], axis=1) for name in names
    }


def localization_sums(
    layer: Mapping[str, Any], batch: Mapping[str, Any], truth: str
) -> Sums:
    """Sums over a batch for one layer.

    Args:
      layer: "mask" `[B, h, w]` and, for a rectangular layer, "rectangle" of `[B]`, or
        several of `[B, K]`.
      batch: "image", "weight", "rectangle", "rectangle_weight", maybe "object_mask".
      truth: "rotated", "box", "mask" or "none".

    Returns:
      Sums by name, with "weight" (images) and "truth_weight" (images with truth).
    """
    weight = batch["weight"]
    area = jnp.mean(at_least_float32(layer["mask"]), axis=(1, 2))
    sums = {"weight": jnp.sum(weight), "mask_area": weighted_sum(weight, area)}
    if truth == "none":
        return sums
    true = Rectangle.from_array(batch["rectangle"])
    target = object_mask(batch, true)
    scores = _mask_scores(layer["mask"], target)
    if "rectangle" in layer:
        found = jax.tree.map(at_least_float32, layer["rectangle"])
        judge = _best_of_several if shows_several(layer) else _rectangle_scores
        scores |= judge(found, true, target, truth)
    known = weight * batch["rectangle_weight"]
    if truth == "mask":
        # An empty mask is of an object that nobody outlined, or out of the view.
        known = jnp.where(jnp.any(target, axis=(1, 2)), known, 0.0)
    sums |= {name: weighted_sum(known, value) for name, value in scores.items()}
    return sums | {"truth_weight": jnp.sum(known)}


def localization_record(sums: Sums) -> dict[str, float]:
    """Means from the fetched sums of one layer.

    Where the data set may know objects, "images_with_truth" says of how many images it
    does; the scores against the truth are means over those, and left out if it is 0.
    """
    weight, known = float(sums["weight"]), float(sums.get("truth_weight", 0.0))
    record = {"mask_area": sums["mask_area"] / weight} if weight else {}
    if "truth_weight" in sums:
        record["images_with_truth"] = known
    if known:
        record |= {
            name: value / known
            for name, value in sums.items()
            if name not in ("weight", "truth_weight", "mask_area")
        }
    return finite_record(record)
