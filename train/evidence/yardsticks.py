"""Scores of the layers beside those of what no layer has learnt.

One row for each answer to "where is the object?": the rectangle or mask of each layer;
the whole image; the centre of the image (a point only); one constant box for all
images; the best rectangle for each image's own object (the oracle: what a rectangle can
reach); class activation maps of the same network. The columns, all of them means over
the images whose object is known:

* `box_accuracy_0.3`, `..._0.5`, `..._0.7`, each also as `top1_...`, and
  `pixel_average_precision`: see `train.evidence.box_accuracy`.
* `iou`: with the object, in the form in which it is known: its mask, rotated rectangle
  or box, as in `train.evidence.localization`. `corloc`: share of images with an IoU of
  at least 0.5.
* `pointing`: share of images in which the rectangle's centre, or the map's largest
  value, lies on the object.
* `mass_on_object`: share of the map's sum that lies on the object; the map of a
  layer's rectangle is its soft mask.
* `area`: share of the image inside the rectangle, or in the map's region.

A rectangle needs no threshold. A map needs two, and the constant box needs boxes:
without held-out training images (`Choices`) those scores are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from train.evidence.answers import (
    Answer,
    Batch,
    Objects,
    Shown,
    answers_of,
    maps_of,
    objects_of,
)
from train.evidence.box_accuracy import (
    BOX_IOUS,
    average_precision,
    box_iou,
    pixel_counts,
    region_iou,
)
from train.evidence.choices import (
    Choices,
    best_thresholds,
    constant_candidates,
    constant_values,
    threshold_values,
)
from train.tasks.sums import finite_record

Scores = dict[str, float]
Look = Callable[[Batch], Shown]


def choose(look: Look, batches: Iterable[Batch], truth: str) -> Choices | None:
    """Thresholds of all maps and the constant box, from held-out training images.

    Args:
      look: from a batch to what the network shows of it.
      batches: with their truth, padded.
      truth: rotated, box, or mask.

    Returns:
      None if no object is known.
    """
    worth: dict[str, Any] = {}
    known_objects: list[Objects] = []
    for batch in batches:
        objects, known = objects_of(batch, truth)
        for name, values in maps_of(look(batch)):
            found = threshold_values(values[known], *objects)
            worth[name] = worth.get(name, 0) + found
        known_objects.append(objects)
    images = sum(len(objects.box) for objects in known_objects)
    if not images:
        return None
    thresholds = {name: best_thresholds(found) for name, found in worth.items()}
    boxes = np.concatenate([objects.box for objects in known_objects])
    candidates = constant_candidates(boxes)
    values = sum(constant_values(candidates, *objects) for objects in known_objects)
    best = candidates[np.argmax(values, axis=0)]
    return Choices(images, thresholds, constant_box=best[0], constant_region=best[1])


def yardstick_scores(
    look: Look, batches: Iterable[Batch], truth: str, choices: Choices | None
) -> dict[str, Scores]:
    """The scores of each row, by its name; no rows if no object is known.

    Args:
      look: from a batch to what the network shows of it.
      batches: with their truth, padded.
      truth: rotated, box, or mask.
      choices: see `choose`; None leaves out what needs them.
    """
    found: dict[str, list[dict[str, np.ndarray]]] = {}
    counts: dict[str, np.ndarray] = {}
    for batch in batches:
        shown = look(batch)
        objects, known = objects_of(batch, truth)
        right = None if shown.correct is None else np.asarray(shown.correct)[known]
        for name, whole in answers_of(shown, batch, truth, choices):
            answer = Answer(*(None if e is None else e[known] for e in whole))
            scores = _scores(answer, objects, truth, right)
            found.setdefault(name, []).append(scores)
            if truth == "mask" and answer.values is not None:
                pixels = pixel_counts(answer.values, objects.region)
                counts[name] = counts.get(name, 0) + pixels
    return {
        name: record
        for name, rows in found.items()
        if (record := _record(rows, counts.get(name)))
    }


def _record(rows: list[dict[str, np.ndarray]], counts: np.ndarray | None) -> Scores:
    columns = {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
    means = {name: float(np.mean(each)) for name, each in columns.items() if each.size}
    if counts is not None:
        means["pixel_average_precision"] = average_precision(counts)
    return finite_record(means)


def _scores(
    answer: Answer, objects: Objects, truth: str, correct: np.ndarray | None
) -> dict[str, np.ndarray]:
    """The scores `[N]` of each image."""
    scores = {}
    if answer.box is not None and answer.region is not None:
        overlap = box_iou(answer.box, objects.box)
        for least in BOX_IOUS:
            right = overlap >= least
            scores[f"box_accuracy_{least}"] = right
            if correct is not None:
                scores[f"top1_box_accuracy_{least}"] = right & correct
        iou = overlap if truth == "box" else region_iou(answer.region, objects.region)
        iou = iou if answer.iou is None else answer.iou
        scores |= {"iou": iou, "corloc": iou >= 0.5}
        scores["area"] = answer.region.mean(axis=(1, 2))
    scores["pointing"] = _lies_on(objects.region, answer.point)
    if answer.values is not None:
        total = np.maximum(answer.values.sum(axis=(1, 2)), 1e-9)
        on = np.sum(answer.values, axis=(1, 2), where=objects.region)
        scores["mass_on_object"] = on / total
    return scores


def _lies_on(regions: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Whether points `[N, 2]` in pixels lie on regions `[N, H, W]`."""
    height, width = regions.shape[1:]
    column, row = np.floor(np.nan_to_num(points, nan=-1.0)).astype(int).T
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    column, row = np.clip(column, 0, width - 1), np.clip(row, 0, height - 1)
    return inside & regions[np.arange(len(regions)), row, column]
