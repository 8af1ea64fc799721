"""The answers that a table compares: where is the object in each image of a batch?

Rectangles answer in coordinates of the image, maps at its pixels. Rectangles (those of
layers, the whole image, a constant box, the oracle's) need no threshold; a map is cut
where `train.evidence.choices` says. Several rectangles of one layer are one answer: all
pixels in any of them, the box round them all, and the point where their mask is
largest.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.attention.evidence import shows_several
from cram_jax.explain import unit_map
from cram_jax.geometry.overlap import rotated_iou
from cram_jax.geometry.pixels import rectangle_from_pixel_box, rectangle_pixel_box
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask
from train.evidence.box_accuracy import map_boxes, region_boxes
from train.evidence.choices import Choices
from train.evidence.localization import object_mask
from train.evidence.oracle import oracle_rectangle

WHOLE, CENTER = "whole image", "centre of the image"
CONSTANT, ORACLE = "constant box", "oracle rectangle"

Batch = Mapping[str, Any]


class Shown(NamedTuple):
    """What a network shows of a batch, on the pixels of its images.

    Attributes:
      layers: "mask" `[B, H, W]` and maybe "rectangle" of `[B]`, or several of `[B, K]`,
        by layer.
      class_maps: `[B, H, W]` from 0 to 1, by what they are called.
      correct: bool `[B]`, whether the class is right; None where there are no classes.
    """

    layers: Mapping[str, Mapping[str, Any]]
    class_maps: Mapping[str, Any]
    correct: Any = None


class Answer(NamedTuple):
    """Where the object is in each of N images; None for what is not known.

    Attributes:
      point: `[N, 2]`, (x, y) in pixels.
      box: `[N, 4]`.
      region: bool `[N, H, W]`.
      values: `[N, H, W]` from 0 to 1.
      iou: `[N]` with the object, where it is exact; None: that of box or region.
    """

    point: Any
    box: Any = None
    region: Any = None
    values: Any = None
    iou: Any = None


class Objects(NamedTuple):
    """The objects of N images: boxes `[N, 4]` and bool regions `[N, H, W]`."""

    box: np.ndarray
    region: np.ndarray


def objects_of(batch: Batch, truth: str) -> tuple[Objects, np.ndarray]:
    """The known objects of a batch, and which of its rows they are."""
    objects = Objects(*jax.device_get(_all_objects(dict(batch), truth)))
    known = np.asarray(batch["weight"]) * np.asarray(batch["rectangle_weight"]) > 0
    if truth == "mask":
        # An empty mask is of an object that nobody outlined, or out of the view.
        known &= objects.region.any(axis=(1, 2))
        objects = objects._replace(box=region_boxes(objects.region))
    return Objects(*(each[known] for each in objects)), known


@partial(jax.jit, static_argnames="truth")
def _all_objects(batch: Batch, truth: str) -> tuple[jax.Array, jax.Array]:
    size = batch["image"].shape[1:3]
    true = Rectangle.from_array(batch["rectangle"])
    box = rectangle_pixel_box(true, *size, picture=size)
    return box, object_mask(batch, true)


def maps_of(shown: Shown) -> Iterator[tuple[str, np.ndarray]]:
    """The rows that are maps, `[B, H, W]` from 0 to 1 in each image."""
    for path, layer in shown.layers.items():
        if "rectangle" not in layer:
            yield f"{path}: mask", _finite(unit_map(layer["mask"]))
    for name, values in shown.class_maps.items():
        yield name, _finite(values)


def _finite(values: Any) -> np.ndarray:
    """A network that gave no finite number points nowhere."""
    return np.nan_to_num(np.asarray(values, np.float32), nan=0.0)


def answers_of(
    shown: Shown, batch: Batch, truth: str, choices: Choices | None
) -> Iterator[tuple[str, Answer]]:
    """All rows in the order of the table, for all images of a batch."""
    count, height, width = batch["image"].shape[:3]

    def same(box) -> Rectangle:
        boxes = jnp.broadcast_to(jnp.asarray(box, jnp.float32), (count, 4))
        return rectangle_from_pixel_box(boxes, height, width)

    rectangles = partial(_rectangle_answer, batch=dict(batch), truth=truth)
    for path, layer in shown.layers.items():
        if shows_several(layer):
            several = _rectangles_answer(dict(layer), height, width)
            answer = jax.device_get(several)
            yield f"{path}: rectangles", answer._replace(values=_finite(layer["mask"]))
        elif "rectangle" in layer:
            answer = jax.device_get(rectangles(layer["rectangle"]))
            yield f"{path}: rectangle", answer._replace(values=_finite(layer["mask"]))
    whole = jax.device_get(rectangles(same([0, 0, width, height])))
    yield WHOLE, whole
    yield CENTER, Answer(point=whole.point)
    if choices is not None:
        constant = jax.device_get(rectangles(same(choices.constant_region)))
        boxes = np.tile(choices.constant_box, (count, 1))
        yield CONSTANT, constant._replace(box=boxes)
    yield ORACLE, jax.device_get(rectangles(_oracle(dict(batch), truth)))
    for name, values in maps_of(shown):
        cut = choices.thresholds.get(name) if choices is not None else None
        yield name, _map_answer(values, cut)


@partial(jax.jit, static_argnames="truth")
def _oracle(batch: Batch, truth: str) -> Rectangle:
    """The best rectangles `[B]`: the true ones, where the truth is rectangles."""
    true = Rectangle.from_array(batch["rectangle"])
    if truth != "mask":
        return true
    return oracle_rectangle(object_mask(batch, true))


@partial(jax.jit, static_argnames="truth")
def _rectangle_answer(rectangle: Rectangle, batch: Batch, truth: str) -> Any:
    """What rectangles `[B]`, in coordinates of the images, answer; no threshold."""
    size = batch["image"].shape[1:3]
    center = jnp.stack([rectangle.center_x, rectangle.center_y], axis=-1)
    region = render_hard_mask(rectangle, *size)
    iou = None
    if truth == "rotated":
        iou = rotated_iou(rectangle, Rectangle.from_array(batch["rectangle"]))
    return Answer(
        point=(center * max(size) + jnp.array([size[1], size[0]])) / 2,
        box=rectangle_pixel_box(rectangle, *size, picture=size),
        region=region,
        values=region.astype(jnp.float32),
        iou=iou,
    )


@partial(jax.jit, static_argnums=(1, 2))
def _rectangles_answer(layer: Mapping[str, Any], height: int, width: int) -> Any:
    """What several rectangles `[B, K]`, in coordinates of the images, answer as one."""
    size, rectangle = (height, width), layer["rectangle"]
    boxes = rectangle_pixel_box(rectangle, *size, picture=size)
    low, high = boxes[..., :2].min(axis=1), boxes[..., 2:].max(axis=1)
    peak = jnp.argmax(layer["mask"].reshape(-1, height * width), axis=1)
    return Answer(
        point=jnp.stack([peak % width, peak // width], axis=-1) + 0.5,
        box=jnp.concatenate([low, high], axis=-1),
        region=render_hard_mask(rectangle, *size).any(axis=1),
    )


def _map_answer(values: np.ndarray, cut: tuple[float, float] | None) -> Answer:
    """What maps `[B, H, W]` answer; without thresholds only a point and the ranking."""
    count, _, width = values.shape
    row, column = np.divmod(values.reshape(count, -1).argmax(axis=1), width)
    answer = Answer(point=np.stack([column, row], axis=-1) + 0.5, values=values)
    if cut is None:
        return answer
    return answer._replace(box=map_boxes(values, cut[0]), region=values >= cut[1])
