"""What a detector found: rectangles with scores and categories.

The peaks of the heat maps are the detections (Zhou et al. 2019, section 4), each with
the box of its cell. Usually no suppression is needed after that; `rotated_nms` takes
off what overlaps too much with something better of its category, by the exact
overlap of rotated rectangles. All shapes are static.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from cram_jax.checks import check_count, check_number
from cram_jax.geometry.cells import BASE, at_cells, cell_grid, rectangle_from_code
from cram_jax.geometry.overlap import rotated_iou
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32

__all__ = ["Detections", "decode_detections", "rotated_nms"]


class Detections(NamedTuple):
    """Detections of each image, the best first; score 0 means that there is none.

    Attributes:
      rectangle: `[..., N]`, in isotropic coordinates of the image.
      score: `[..., N]` in [0, 1].
      label: int32 `[..., N]`, the category; -1 where the score is 0.
    """

    rectangle: Rectangle
    score: jax.Array
    label: jax.Array


def decode_detections(
    outputs: Mapping[str, jax.Array],
    count: int,
    *,
    extents: tuple[float, float] | None = None,
    base: float = BASE,
    max_iou: float | None = None,
) -> Detections:
    """The best peaks of heat maps, with their boxes.

    A peak is no smaller than its eight neighbours in the same category.

    Args:
      outputs: "heat" `[..., h, w, K]`, logits, and "boxes" `[..., h, w, 6]`, codes, as
        `cram_jax.heads.detection.DetectionHead` gives them.
      count: how many detections N each image has, those with score 0 among them.
      extents: see `cram_jax.geometry.cells.cell_grid`.
      base: as in the targets that the network learnt from.
      max_iou: detections that overlap more with a better one of their category get
        score 0, see `rotated_nms`; None leaves all.

    Raises:
      ValueError: for a count below 1, maps of two sizes, and see `cell_grid`.
    """
    check_count("count", count)
    if max_iou is not None:
        _check_limit(max_iou)
    heat = at_least_float32(outputs["heat"])
    boxes = at_least_float32(outputs["boxes"])
    if heat.shape[:-1] != boxes.shape[:-1] or boxes.shape[-1] != 6:
        raise ValueError(
            "A detector's outputs are heat [..., h, w, K] and boxes [..., h, w, 6];"
            f" got shapes {heat.shape} and {boxes.shape}."
        )
    height, width, categories = heat.shape[-3:]
    grid = cell_grid(height, width, extents=extents, base=base)
    peaks = jnp.where(_is_peak(heat), heat, -jnp.inf)
    peaks = peaks.reshape(*heat.shape[:-3], height * width * categories)
    logits, places = jax.lax.top_k(peaks, min(count, peaks.shape[-1]))
    # A small map has fewer places than detections are asked for.
    missing = [(0, 0)] * (logits.ndim - 1) + [(0, count - logits.shape[-1])]
    logits = jnp.pad(logits, missing, constant_values=-jnp.inf)
    places = jnp.pad(places, missing)
    cell, label = places // categories, (places % categories).astype(jnp.int32)
    rectangle = rectangle_from_code(at_cells(boxes, cell), cell, grid)
    score = jax.nn.sigmoid(logits)
    if max_iou is not None:
        kept = rotated_nms(rectangle, score, label, max_iou=max_iou)
        score = jnp.where(kept, score, 0.0)
    return Detections(rectangle, score, jnp.where(score > 0, label, -1))


def _is_peak(heat: jax.Array) -> jax.Array:
    """Where no neighbour is larger, bool `[..., h, w, K]`.

    The cell itself is left out of the maximum: a comparison with it would ask for
    equality, which a compiler that computes it twice need not keep.
    """
    height, width = heat.shape[-3:-1]
    margins = [(0, 0)] * (heat.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
    padded = jnp.pad(heat, margins, constant_values=-jnp.inf)
    peak = jnp.ones(heat.shape, bool)
    for row in range(3):
        for column in range(3):
            if (row, column) != (1, 1):
                shifted = padded[..., row : row + height, column : column + width, :]
                peak = peak & (heat >= shifted)
    return peak


def _check_limit(max_iou: float) -> None:
    check_number("max_iou", max_iou, lambda v: (v >= 0) & (v <= 1), "be in 0 to 1")


def rotated_nms(
    rectangle: Rectangle,
    score: jax.Array,
    label: jax.Array,
    *,
    max_iou: float = 0.5,
) -> jax.Array:
    """Greedy non-maximum suppression of rotated rectangles, in each category.

    The best detection stays and takes off all others of its category that overlap
    with it by more than `max_iou`; so does the best of those that are left. Of equal
    scores the first is better.

    Args:
      rectangle: `[..., N]`.
      score: `[..., N]`, in any order; 0 where there is no detection.
      label: int `[..., N]`.
      max_iou: the largest rotated IoU of two detections that both stay.

    Returns:
      Which detections stay, bool `[..., N]`; one with score 0 never does.

    Raises:
      ValueError: for a limit outside [0, 1].
    """
    _check_limit(max_iou)
    one, other = (
        jax.tree.map(lambda leaf, axis=axis: jnp.expand_dims(leaf, axis), rectangle)
        for axis in (-1, -2)
    )
    overlap = rotated_iou(one, other) > max_iou
    rivals = overlap & (label[..., :, None] == label[..., None, :])
    order = jnp.argsort(-score, axis=-1, stable=True)
    rank = jnp.argsort(order, axis=-1)
    beats = rivals & (rank[..., :, None] < rank[..., None, :])

    def take_off(place, kept):
        """What the detection at this place of the order beats, if it stays itself."""
        best = jax.lax.dynamic_index_in_dim(order, place, axis=-1)
        stays = jnp.take_along_axis(kept, best, axis=-1)
        beaten = jnp.take_along_axis(beats, best[..., None], axis=-2)[..., 0, :]
        return kept & ~(stays & beaten)

    return jax.lax.fori_loop(0, score.shape[-1], take_off, score > 0)
