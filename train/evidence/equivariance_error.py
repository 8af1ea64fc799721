"""How well the masks of a trained network move with the image.

Fixed images are moved by fixed similarities. For each layer, the mask found in the
image is moved too and compared with the one found in the moved image:

* `equivariance_mask_iou`: IoU of the two soft masks, for any layer; only what came
  from inside the image is compared.
* `equivariance_iou`: rotated IoU of the two rectangles, where there are rectangles; of
  several, the mean over them, each with the one of its own number.
* The same with `_still` at the end: what a layer would score whose mask stayed where
  it was. A mask open everywhere scores high without seeing anything; only the
  distance to this figure says that a mask moves.

A pair counts if at least half of the moved true rectangle (where the truth is known)
lies inside the frame: the network cannot find what it cannot see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.attention.evidence import shows_several
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.overlap import visible_fraction
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import (
    Similarity,
    sample_similarity,
    transform_rectangle,
)
from cram_jax.geometry.warping import warp_image
from cram_jax.losses.equivariance_scores import (
    equivariance_iou,
    mask_equivariance_iou,
)
from train.data.preparation import unit_range
from train.tasks.sums import Sums, finite_record, weighted_sum

# How many pairs of an image and a moved image the scores are means over.
PAIRS = "images_in_sight"
# The ranges of the mixed set and of the curves: angle in radians, shift where the
# longer side of the image spans 2, so that 0.5 is a quarter of it.
MAX_ANGLE, MAX_SCALE, MAX_SHIFT = np.pi / 4, 1.25, 0.5
MIN_INSIDE = 0.5
_POINTS = 7
# Movements along one axis each, by what the axis shows: label, values, as Similarity.
_CURVES: dict[str, tuple[str, np.ndarray, Callable[[jax.Array], Similarity]]] = {
    "angle": (
        "rotation (degrees)",
        np.linspace(-45.0, 45.0, _POINTS),
        lambda degrees: Similarity(jnp.radians(degrees)),
    ),
    "scale": (
        "scale",
        np.geomspace(0.8, 1.25, _POINTS),
        lambda scale: Similarity(jnp.zeros_like(scale), scale),
    ),
    "shift": (
        "shift to the right (share of the side)",
        np.linspace(-0.25, 0.25, _POINTS),
        lambda share: Similarity(jnp.zeros_like(share), shift_x=2 * share),
    ),
}

Batch = Mapping[str, Any]
Scores = dict[str, float]
Show = Callable[[jax.Array], Mapping[str, Mapping[str, Any]]]


def _layer_scores(
    layer: Mapping[str, Any], moved: Mapping[str, Any], similarity: Similarity
) -> dict[str, jax.Array]:
    """Scores `[B]` of one layer on images and moved images."""
    mask = layer["mask"].astype(jnp.float32)
    found = {"": moved["mask"].astype(jnp.float32), "_still": mask}
    scores = {
        f"equivariance_mask_iou{name}": mask_equivariance_iou(mask, other, similarity)
        for name, other in found.items()
    }
    if "rectangle" in layer:
        first, second = jax.tree.map(
            lambda leaf: leaf.astype(jnp.float32),
            (layer["rectangle"], moved["rectangle"]),
        )
        for name, other in (("", second), ("_still", first)):
            iou = equivariance_iou(first, other, similarity)
            iou = jnp.mean(iou, axis=1) if shows_several(layer) else iou
            scores[f"equivariance_iou{name}"] = iou
    return scores


def _pair_weight(truth: str, batch: Mapping[str, Any], similarity: Similarity):
    """Which images count: those whose moved object is in sight."""
    weight = batch["weight"]
    if truth == "none":
        return weight
    moved = transform_rectangle(similarity, Rectangle.from_array(batch["rectangle"]))
    inside = visible_fraction(moved, *map_extents(*batch["image"].shape[1:3]))
    unknown = batch["rectangle_weight"] == 0
    return weight * ((inside >= MIN_INSIDE) | unknown)


def _sums(show: Show, truth: str, fill: float, batch, similarity: Similarity) -> Sums:
    """Weighted sums over a batch, each image moved by its own similarity `[B]`."""
    images = unit_range(batch["image"])
    moved = warp_image(similarity, images, fill=fill)
    moved = jnp.round(moved * 255).astype(jnp.uint8)
    both = jnp.concatenate([batch["image"], moved])
    evidence = show(both)
    count, weight = images.shape[0], _pair_weight(truth, batch, similarity)
    sums: Sums = {"weight": jnp.sum(weight)}
    for path, layer in evidence.items():
        first = jax.tree.map(lambda leaf: leaf[:count], layer)
        second = jax.tree.map(lambda leaf: leaf[count:], layer)
        for name, value in _layer_scores(first, second, similarity).items():
            sums[f"{path}/{name}"] = weighted_sum(weight, value)
    return sums


def _mixed(positions: jax.Array) -> Similarity:
    """An image's movement among all is a function of its place, not of its batch."""

    def sample(position: jax.Array) -> Similarity:
        return sample_similarity(
            jax.random.fold_in(jax.random.key(0), position),
            max_angle=MAX_ANGLE,
            max_scale=MAX_SCALE,
            max_shift=MAX_SHIFT,
        )

    return jax.vmap(sample)(positions)


def _first_of(images: Iterable[Batch], count: int) -> Iterator[tuple[Batch, jax.Array]]:
    """Batches with their images' places, until `count`; what lies beyond is padding."""
    first = 0
    for batch in images:
        if first >= count:
            return
        positions = first + jnp.arange(batch["weight"].shape[0])
        yield {**batch, "weight": batch["weight"] * (positions < count)}, positions
        first += len(positions)


def _scores(
    score: Callable,
    images: Sequence[tuple[Batch, jax.Array]],
    movement: Callable[[jax.Array], Similarity],
) -> Scores:
    """Means over all pairs in sight, and how many there are, under PAIRS.

    `movement(places)` gives the similarities of the images at these places. Without a
    pair in sight there is no score.
    """
    sums = [
        jax.device_get(score(batch, movement(positions))) for batch, positions in images
    ]
    total = jax.tree.map(lambda *leaves: float(np.sum(leaves)), *sums)
    weight = total.pop("weight")
    means = {name: value / weight for name, value in total.items()} if weight else {}
    return {PAIRS: weight} | finite_record(means)


def equivariance_scores(
    show: Show, images: Iterable[Batch], *, truth: str, fill: float, count: int
) -> tuple[Scores, dict[str, list[dict[str, float]]]]:
    """Scores under mixed movements, and along angle, scale and shift.

    The first `count` images count, each moved by its own similarities, whatever the
    batch that it lies in.

    Args:
      show: from uint8 images `[B, H, W, C]` to the evidence of the network's layers,
        in coordinates of their maps.
      images: batches of equal size with their truth, of which the last is padded.
      truth: what the data set knows of the object: rotated, box, mask, or none.
      fill: brightness, from 0 to 1, of what comes from outside of a moved image.
      count: the number of images, or of those there are if they are fewer.

    Returns:
      The mean scores by `LAYER/NAME` where each image is moved by its own random
      similarity (always the same ones), and for each of `angle`, `scale` and `shift`
      the scores at each value, which is under the axis's own name. Both come with
      the number of pairs in sight, "images_in_sight"; without any they hold no score.
    """
    score = jax.jit(partial(_sums, show, truth, fill))
    chosen = list(_first_of(images, count))
    curves = {}
    for axis, (_, values, movement) in _CURVES.items():
        curves[axis] = []
        for value in values:

            def same(positions: jax.Array, value=value, movement=movement):
                return movement(jnp.full(positions.shape, value, jnp.float32))

            point = {axis: float(value)} | _scores(score, chosen, same)
            curves[axis].append(point)
    return _scores(score, chosen, _mixed), curves


def draw_curves(curves: Mapping[str, Sequence[Scores]], file: Path | IO[bytes]) -> None:
    """One panel per axis: each layer's score solid, of a mask that stayed dotted.

    Args:
      curves: by axis, the scores at each of its values; see `equivariance_scores`. A
        score that some value lacks leaves a gap.
      file: to which a PNG is written.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 4), layout="constrained")
    panels = figure.subplots(1, len(curves), sharey=True, squeeze=False)[0]
    for panel, (axis, points) in zip(panels, curves.items(), strict=True):
        _draw_panel(panel, axis, points)
        panel.set_xlabel(_CURVES[axis][0])
        panel.set_ylim(0, 1)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("IoU: moved mask, mask of moved image")
    if panels[-1].lines:
        panels[-1].legend(fontsize="small")
    figure.savefig(file, format="png", dpi=120)


def _draw_panel(panel: Any, axis: str, points: Sequence[Scores]) -> None:
    places = [point[axis] for point in points]
    names = dict.fromkeys(
        name
        for point in points
        for name in point
        if "/" in name and not name.endswith("_still")
    )
    for index, name in enumerate(names):
        color, label = f"C{index % 10}", name.replace("equivariance_", "")
        values = _values(points, name)
        still = _values(points, f"{name}_still")
        panel.plot(places, values, color=color, marker="o", label=label)
        panel.plot(places, still, ":", color=color, label=f"{label}, if it stayed")


def _values(points: Sequence[Scores], name: str) -> np.ndarray:
    """One score at all points; NaN, which leaves a gap, where there is none."""
    return np.array([point.get(name) for point in points], np.float64)
