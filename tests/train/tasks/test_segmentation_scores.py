"""Scores and losses of label maps against scikit-learn, scipy and numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
from sklearn.metrics import f1_score, jaccard_score

from tests.checks import assert_close, assert_tree_finite
from train.data.sources.base import IGNORED
from train.tasks.losses.segmentation import region_losses
from train.tasks.scores.segmentation import (
    outline_scores,
    predicted_regions,
    segmentation_record,
    segmentation_sums,
)

NAMES = ("background", "cat", "dog", "never seen")
IMAGES, HEIGHT, WIDTH = 7, 13, 17
sums_of = jax.jit(segmentation_sums)


def blobs(generator, count=3):
    """Maps with outlines: smoothed noise, cut into regions; none is the last one."""
    noise = generator.normal(size=(count, IMAGES, HEIGHT, WIDTH))
    smooth = scipy.ndimage.gaussian_filter(noise, (0, 0, 2, 2))
    return smooth.argmax(0).astype(np.uint8)


@pytest.fixture(scope="module")
def maps():
    generator = np.random.default_rng(0)
    truth, predicted = blobs(generator), blobs(generator)
    # One image has no region but the first, one nothing that is known.
    truth[1] = 0
    truth[generator.random(truth.shape) < 0.15] = IGNORED
    truth[2] = IGNORED
    right = generator.random(truth.shape) < 0.7
    predicted = np.where(right & (truth < 3), truth, predicted)
    logits = 3.0 * np.eye(4)[predicted] + generator.normal(size=(*truth.shape, 4)) / 9
    return truth, predicted, logits.astype(np.float32)


def record_of(truth, logits, batch):
    """The record of batches of one size, the last one padded with rubbish."""
    total: Any = None
    for first in range(0, IMAGES, batch):
        rows = slice(first, first + batch)
        count = len(truth[rows])
        padding = ((0, batch - count), (0, 0), (0, 0))
        labels = np.pad(truth[rows], padding, constant_values=99)
        values = np.pad(
            logits[rows], (*padding, (0, 0)), constant_values=np.float32("nan")
        )
        weight = np.arange(batch) < count
        sums = sums_of(values, labels, weight.astype(np.float32))
        sums = jax.tree.map(np.float64, sums)
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    return segmentation_record(total, NAMES)


@pytest.mark.parametrize("batch", [IMAGES, 3, 1])
def test_scores_agree_with_scikit_learn_whatever_the_batch(maps, batch):
    truth, predicted, logits = maps
    known = truth != IGNORED
    record = record_of(truth, logits, batch)
    labels = list(range(3))  # the fourth region is nowhere, so it counts nowhere
    given = truth[known], predicted[known]
    # scikit-learn's stubs do not know that None gives each label's own score.
    each: dict[str, Any] = {"average": None, "labels": labels}
    iou = np.asarray(jaccard_score(*given, **each))
    dice = np.asarray(f1_score(*given, **each))
    for name, value in zip(NAMES[:3], iou, strict=True):
        assert record[f"iou_{name}"] == pytest.approx(value, abs=1e-6)
    assert "iou_never seen" not in record
    assert record["mean_iou"] == pytest.approx(np.mean(iou), abs=1e-6)
    assert record["mean_dice"] == pytest.approx(np.mean(dice), abs=1e-6)
    accuracy = np.mean(given[0] == given[1])
    assert record["pixel_accuracy"] == pytest.approx(accuracy, abs=1e-6)
    assert record["images"] == IMAGES
    assert record["pixels"] == known.sum()
    assert "pixels_not_finite" not in record
    assert 0.3 < record["mean_iou"] < 0.9


def outline_oracle(labels, region, known):
    """Pixels of a region with a known neighbour of another, by scipy's erosion."""
    own = (labels == region) & known
    cross = scipy.ndimage.generate_binary_structure(2, 1)
    inner = scipy.ndimage.binary_erosion(own | ~known, cross, border_value=1)
    return own & ~np.asarray(inner, bool)


def boundary_oracle(truth, predicted, radius):
    """Mean over regions of the mean over images; distances by scipy."""
    scores: dict[int, list[float]] = {}
    for labels, found in zip(truth, predicted, strict=True):
        known = labels != IGNORED
        for region in range(4):
            true = outline_oracle(labels, region, known)
            drawn = outline_oracle(found, region, known)
            if not true.any():
                continue
            recall = precision = 0.0
            if drawn.any():
                to_drawn = np.asarray(scipy.ndimage.distance_transform_edt(~drawn))
                to_true = np.asarray(scipy.ndimage.distance_transform_edt(~true))
                recall = np.mean(to_drawn[true] <= radius)
                precision = np.mean(to_true[drawn] <= radius)
            both = recall + precision
            score = 2 * recall * precision / both if both else 0.0
            scores.setdefault(region, []).append(score)
    mean = np.mean([np.mean(each) for each in scores.values()])
    return mean, sum(map(len, scores.values()))


@pytest.mark.parametrize("batch", [IMAGES, 3])
def test_the_score_of_outlines_agrees_with_scipy(maps, batch):
    truth, predicted, logits = maps
    record = record_of(truth, logits, batch)
    score, count = boundary_oracle(truth, predicted, 1.0)
    assert record["boundary_f"] == pytest.approx(score, abs=1e-6)
    assert record["outlines"] == count
    assert 0.1 < score < 0.99


def test_the_tolerance_of_outlines_grows_with_the_image():
    truth = np.zeros((1, 300, 400), np.uint8)
    truth[:, :, 200:] = 1
    radius = 0.0075 * 500  # of the diagonal: 3.75 pixels
    for moved, expected in ((3, 1.0), (4, 0.0)):
        found = np.zeros_like(truth)
        found[:, :, 200 + moved :] = 1
        scores, present = jax.jit(outline_scores, static_argnums=2)(found, truth, 3)
        assert_close(scores[0], [expected, expected, 0.0])
        assert present.tolist() == [[True, True, False]]
        assert moved <= radius or not expected


def test_pixels_without_a_finite_answer_count_as_wrong(maps):
    truth, _, logits = maps
    broken = logits.copy()
    broken[0, :, :4] = np.nan
    record, whole = record_of(truth, broken, 3), record_of(truth, logits, 3)
    bad = np.sum(truth[0, :, :4] != IGNORED)
    assert record["pixels_not_finite"] == bad > 0
    assert record["pixels"] == whole["pixels"]
    right = predicted_regions(jnp.asarray(logits)) == truth
    lost = np.sum(np.asarray(right)[0, :, :4])
    less = whole["pixel_accuracy"] - lost / whole["pixels"]
    assert record["pixel_accuracy"] == pytest.approx(less, abs=1e-6)
    assert record["mean_iou"] < whole["mean_iou"]


def test_without_a_known_pixel_there_is_no_score():
    truth = np.full((2, 4, 5), IGNORED, np.uint8)
    sums = sums_of(np.zeros((2, 4, 5, 4), np.float32), truth, np.ones(2, np.float32))
    assert segmentation_record(jax.device_get(sums), NAMES) == {"images": 2.0}


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_losses_agree_with_numpy_and_ignored_pixels_cost_nothing(maps, smoothing):
    truth, _, logits = maps
    weight = jnp.array([1, 1, 1, 0, 1, 1, 1], jnp.float32)

    def losses(logits):
        pairs = region_losses(logits, truth, weight, smoothing=smoothing)
        return jnp.stack([value / total for value, total in pairs])

    entropy, dice = jax.jit(losses)(logits)
    wide = logits.astype(np.float64)
    shares = np.exp(wide) / np.exp(wide).sum(-1, keepdims=True)
    known = (truth != IGNORED) & np.asarray(weight > 0)[:, None, None]
    target = np.eye(256)[truth][..., :4] * (1 - smoothing) + smoothing / 4
    assert_close(entropy, np.mean(-(target * np.log(shares)).sum(-1)[known]))
    overlaps = []
    for image in np.flatnonzero(weight):
        inside = truth[image] != IGNORED
        own = [
            (2 * shares[image, truth[image] == region, region].sum() + 1)
            / ((truth[image] == region).sum() + shares[image, inside, region].sum() + 1)
            for region in range(4)
            if (truth[image] == region).any()
        ]
        if own:
            overlaps.append(np.mean(own))
    assert len(overlaps) == 5
    assert_close(dice, 1 - np.mean(overlaps))
    gradient = jax.jit(jax.grad(lambda logits: losses(logits).sum()))(logits)
    assert_tree_finite(gradient)
    assert (np.asarray(gradient)[~known] == 0).all()
    assert (np.abs(gradient).max(-1)[known] > 0).all()


def test_a_number_that_is_no_region_is_no_free_lunch(maps):
    truth, _, logits = maps
    wrong = truth.copy()
    wrong[0, 0, 0] = 4
    weight = jnp.ones(IMAGES)
    assert np.isnan(region_losses(logits, wrong, weight)[0][0])
    less = weight.at[0].set(0.0)
    assert np.isfinite(region_losses(logits, wrong, less)[0][0])
