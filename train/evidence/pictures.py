"""Pictures of where the network looks: one grid per evaluation."""

from __future__ import annotations

import itertools
import operator
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import numpy as np

from cram_jax.drawing import PALETTE, draw_rectangles, image_grid, overlay_mask
from cram_jax.geometry.rectangle import Rectangle
from train.tasks.task import Outputs

_TRUTH_COLOR = "#ffffff"
_SHOWN_SIDE = 144
_COLUMNS = 8


class Compares(Protocol):
    """What a grid asks of a task; see `train.tasks.task.Task`."""

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Says names of the truth."""
        ...

    def compared(
        self, picture: np.ndarray, outputs: Outputs, truth: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """A picture with outputs beside the truth."""
        ...


def picture_of(
    image: np.ndarray,
    evidence: Mapping[str, Mapping[str, Any]],
    index: int,
    truth: np.ndarray | None,
) -> np.ndarray:
    """One image with the rectangles (or tinted mask) of each layer.

    Args:
      image: uint8 `[H, W, C]`.
      evidence: fetched, of a batch; see `cram_jax.attention.evidence.layer_evidence`.
      index: which image of that batch.
      truth: five numbers of the true rectangle, drawn in white; or None.
    """
    upscale = _upscale(image.shape[:2])
    picture = image.repeat(upscale, axis=0).repeat(upscale, axis=1)
    for layer in evidence.values():
        if "rectangle" not in layer:
            mask = np.clip(np.asarray(layer["mask"][index], np.float32), 0.0, 1.0)
            picture = overlay_mask(picture, mask)
    if truth is not None:
        true = Rectangle.from_array(truth)
        picture = draw_rectangles(picture, true, color=_TRUTH_COLOR, width=1.5)
    found = [layer["rectangle"] for layer in evidence.values() if "rectangle" in layer]
    for rectangle, color in zip(found, itertools.cycle(PALETTE), strict=False):
        one = jax.tree.map(lambda leaf: np.asarray(leaf[index], np.float32), rectangle)
        picture = draw_rectangles(picture, one, color=color)
    return picture


def _upscale(size: tuple[int, ...]) -> int:
    return max(1, _SHOWN_SIDE // max(size))


def picture_width(size: tuple[int, int]) -> int:
    """Pixels across the picture of an image (height, width)."""
    return size[1] * _upscale(size)


def grid_of(
    batch: Mapping[str, np.ndarray],
    outputs: Outputs,
    evidence: Mapping[str, Mapping[str, Any]],
    truth: str,
    task: Compares,
) -> np.ndarray:
    """A grid of all images of a batch, uint8 `[H, W, 3]`.

    Args:
      batch: the images, and what is known of them.
      outputs: what the network made of them, fetched; None where there is none.
      evidence: what its layers showed, fetched.
      truth: what the set knows of the object; see `DatasetInfo`.
      task: draws outputs and truth.
    """
    pictures, size = [], batch["image"].shape[1:3]
    for index in np.flatnonzero(np.asarray(batch["weight"]) > 0):
        known = truth != "none" and batch["rectangle_weight"][index] > 0
        true = batch["rectangle"][index] if known else None
        picture = picture_of(batch["image"][index], evidence, int(index), true)
        own = {name: batch[name][index] for name in task.blank_truth(size)}
        its = jax.tree.map(operator.itemgetter(index), outputs)
        pictures.append(task.compared(picture, its, own))
    beside = pictures[0].shape[1] // picture_width(size) if pictures else 1
    return image_grid(pictures, columns=max(1, _COLUMNS // beside))
