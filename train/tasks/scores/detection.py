"""The scores of a detector: average precision with rotated IoU, over all images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.geometry.average_precision import DetectionScores, average_precision
from cram_jax.geometry.matching import match_detections
from train.tasks.sums import Sums, finite_record, weighted_sum

THRESHOLDS = {"ap50": 0.5, "ap75": 0.75}


def not_finite(outputs: Any, weight: jax.Array) -> jax.Array:
    """The weight of the images with outputs that are no finite numbers."""

    def of_leaf(leaf: jax.Array) -> jax.Array:
        return jnp.all(jnp.isfinite(leaf), axis=tuple(range(1, leaf.ndim)))

    finite = jnp.stack([of_leaf(leaf) for leaf in jax.tree.leaves(outputs)])
    return weighted_sum(weight, ~jnp.all(finite, axis=0))


def detection_scores(
    rows: Mapping[str, np.ndarray], categories: int
) -> DetectionScores:
    """The scores of all images, whose rows are those of `Detection.rows`.

    Ignored objects are crowds, in the words of COCO: however many detections lie in
    one, they are neither right nor wrong.
    """
    matches = []
    for image in range(len(rows["scores"])):
        found = rows["labels"][image] >= 0
        true = rows["object_labels"][image] >= 0
        matches.append(
            match_detections(
                rows["rectangles"][image][found],
                rows["scores"][image][found],
                rows["labels"][image][found],
                rows["objects"][image][true],
                rows["object_labels"][image][true],
                crowd=rows["object_ignored"][image][true],
            )
        )
    return average_precision(matches, categories)


def detection_record(
    sums: Sums, rows: Mapping[str, np.ndarray] | None, categories: Sequence[str]
) -> dict[str, float]:
    """Average precisions from fetched sums and the rows of all images.

    "ap" is COCO's mean over IoUs of 0.5 to 0.95, "ap50" and "ap75" are those at one;
    all are means over the categories, and "ap50_NAME" is that of one. A category
    without objects has none. "recall50" is the share of objects that any detection
    finds at an IoU of 0.5. Where the network gave some images numbers that are not
    finite, "images_not_finite" says how many; nothing is found in them.
    """
    images, wrong = float(sums["weight"]), float(sums["not_finite"])
    if images == 0 or rows is None:
        return {"images": 0.0}
    scores = detection_scores(rows, len(categories))
    values = {"ap": scores.mean}
    values |= {name: scores.at(threshold) for name, threshold in THRESHOLDS.items()}
    # The first threshold is 0.5.
    recall, found = scores.recall[:, 0], scores.truths > 0
    if found.any():
        truths = scores.truths[found]
        values["recall50"] = float(np.average(recall[found], weights=truths))
    each = zip(categories, scores.per_class[:, 0], strict=True)
    values |= {f"ap50_{name}": value for name, value in each}
    values["objects"] = float(scores.truths.sum())
    if wrong:
        values["images_not_finite"] = wrong
    return finite_record({"images": images} | values)
