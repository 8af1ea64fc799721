"""Average precision against pycocotools, a slow oracle of its own, and by hand."""

import contextlib
import functools
import io
import time
from typing import Any

import numpy as np
import pytest
import shapely
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cram_jax.geometry.average_precision import average_precision
from cram_jax.geometry.matching import join_matches, match_detections
from tests.checks import assert_close
from tests.cram_jax.geometry.test_overlap import polygons
from tests.cram_jax.geometry.test_pairwise import coco_boxes, pixel_boxes

CLASSES = 4
# The last class has neither truths nor detections.
USED = 3
RECALLS = np.linspace(0, 1, 101)


def near_boxes(rng, boxes):
    """The boxes with some edges one pixel off, never of no size."""
    center, half = boxes[:, :2], boxes[:, 2:4]
    first = center - half + rng.integers(-1, 2, center.shape) * (half > 1)
    last = center + half + rng.integers(0, 2, center.shape)
    return np.concatenate([(first + last) / 2, (last - first) / 2, boxes[:, 4:]], 1)


def any_rectangles(rng, count):
    center, half = rng.uniform(0, 10, (count, 2)), rng.uniform(0.5, 4, (count, 2))
    return np.concatenate([center, half, rng.uniform(-7, 7, (count, 1))], axis=1)


def near_rectangles(rng, rectangles):
    noise = rng.normal(0, 0.25, rectangles.shape) * [1, 1, 1, 1, 0.4]
    moved = rectangles + noise * rng.choice([0, 0.3, 1], (len(rectangles), 1))
    moved[:, 2:4] = np.maximum(moved[:, 2:4], 0.2)
    # The same region under another name.
    turned = rng.random(len(moved)) < 0.5
    moved[turned, 2:4] = moved[turned, 3:1:-1]
    moved[turned, 4] += np.pi / 2
    return moved


def random_image(rng, new, near, *, ties=True):
    """Arguments of `match_detections`: few or no truths and detections."""
    true = new(rng, rng.integers(0, 6))
    true = np.concatenate([true, true[: rng.integers(0, 2)]])
    found = [near(rng, true[rng.random(len(true)) < 0.7]) for _ in range(2)]
    found = np.concatenate([*found, new(rng, rng.integers(0, 4))])
    found = rng.permutation(found)
    count = len(found)
    scores = rng.integers(0, 5, count) / 4 if ties else rng.permutation(count) / count
    labels = rng.integers(0, USED, count) * rng.integers(0, 2, count)
    true_labels = rng.integers(0, USED, len(true)) * rng.integers(0, 2)
    return {
        "rectangles": found,
        "scores": scores + (0 if ties else rng.random()),
        "labels": labels,
        "true_rectangles": true,
        "true_labels": true_labels,
        "ignored": rng.random(len(true)) < 0.2,
        "crowd": rng.random(len(true)) < 0.2,
    }


def random_set(seed, new=any_rectangles, near=near_rectangles, **settings):
    rng = np.random.default_rng(seed)
    return [random_image(rng, new, near, **settings) for _ in range(rng.integers(1, 6))]


def score(images, max_detections=100):
    match = functools.partial(match_detections, max_detections=max_detections)
    return average_precision((match(**image) for image in images), CLASSES)


def coco_annotations(image, number, boxes, labels):
    return [
        {
            "image_id": number,
            "category_id": int(label) + 1,
            "bbox": box.tolist(),
            "area": box[2] * box[3],
            "iscrowd": 0,
        }
        for box, label in zip(coco_boxes(image[boxes]), image[labels], strict=True)
    ]


def coco_index(images, annotations):
    index: Any = COCO()
    for identifier, each in enumerate(annotations):
        each["id"] = identifier + 1
    index.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "annotations": annotations,
        "categories": [{"id": label + 1} for label in range(CLASSES)],
    }
    index.createIndex()
    return index


def coco_scores(images, max_detections):
    """Precision `[K, T, 101]` and recall `[K, T]` of pycocotools; -1 becomes NaN."""
    true, found = [], []
    for number, image in enumerate(images):
        truths = coco_annotations(image, number, "true_rectangles", "true_labels")
        for each, ignored, crowd in zip(
            truths, image["ignored"], image["crowd"], strict=True
        ):
            each["iscrowd"] = int(crowd)
            # Pycocotools ignores truths whose area is out of a range.
            each["area"] = -1 if ignored else each["area"]
        detections = coco_annotations(image, number, "rectangles", "labels")
        for each, value in zip(detections, image["scores"], strict=True):
            each["score"] = value
        true, found = true + truths, found + detections
    with contextlib.redirect_stdout(io.StringIO()):
        judge = COCOeval(coco_index(images, true), coco_index(images, found), "bbox")
        judge.params.maxDets = [max_detections]
        judge.params.areaRng, judge.params.areaRngLbl = [[0, 1e10]], ["all"]
        judge.evaluate()
        judge.accumulate()
    precision = np.moveaxis(judge.eval["precision"][..., 0, 0], -1, 0)
    recall = judge.eval["recall"][..., 0, 0].T
    return tuple(np.where(each < 0, np.nan, each) for each in (precision, recall))


def upright(rng, count):
    return any_rectangles(rng, count) * [1, 1, 1, 1, 0]


def near_upright(rng, rectangles):
    noise = rng.normal(0, 0.25, rectangles.shape) * [1, 1, 0.2, 0.2, 0]
    return rectangles + noise


@pytest.mark.parametrize("max_detections", [100, 2])
@pytest.mark.parametrize(
    ("new", "near"),
    [(pixel_boxes, near_boxes), (upright, near_upright)],
    ids=["pixel boxes", "boxes"],
)
def test_at_angle_zero_it_is_pycocotools(new, near, max_detections):
    without_truth, means = 0, []
    for seed in range(250):
        images = random_set(seed, new, near)
        scores = score(images, max_detections)
        precision, recall = coco_scores(images, max_detections)
        np.testing.assert_allclose(scores.precision, precision, atol=1e-12, rtol=0)
        np.testing.assert_allclose(scores.recall, recall, atol=1e-12, rtol=0)
        known = precision[np.isfinite(precision)]
        if known.size:
            assert scores.mean == pytest.approx(known.mean(), abs=1e-12)
            at_half = precision[:, 0][np.isfinite(precision[:, 0])].mean()
            assert scores.at(0.5) == pytest.approx(at_half, abs=1e-12)
            means.append(scores.mean)
        else:
            assert np.isnan(scores.mean)
            assert np.isnan(scores.at(0.75))
            without_truth += 1
    # The sets are neither trivial nor hopeless, and some have no truth at all.
    assert 0.1 < np.mean(means) < 0.9
    assert np.std(means) > 0.05
    assert without_truth > 0


def oracle(images, max_detections=100):
    """The definition, one detection at a time; overlaps are shapely's. `[K, T]`."""
    limits = np.linspace(0.5, 0.95, 10)
    truths = np.zeros(CLASSES, int)
    lists = {(label, limit): [] for label in range(CLASSES) for limit in limits}
    for image in images:
        wanted = ~(image["ignored"] | image["crowd"])
        np.add.at(truths, image["true_labels"][wanted], 1)
        overlaps = shapely_overlaps(image)
        assert np.abs(overlaps[..., None] - limits).min(initial=1) > 1e-9
        for (label, limit), entries in lists.items():
            entries += fates(image, label, limit, wanted, overlaps, max_detections)
    values = [area_under(lists[key], truths[key[0]]) for key in lists]
    return np.asarray(values, np.float64).reshape(CLASSES, len(limits))


def shapely_overlaps(image):
    found = np.asarray(polygons(image["rectangles"]))[:, None]
    true = np.asarray(polygons(image["true_rectangles"]))
    shared = shapely.area(shapely.intersection(found, true))
    areas = shapely.area(found)
    union = areas + shapely.area(true) - shared
    return shared / np.where(image["crowd"], areas, union)


def fates(image, label, limit, wanted, overlaps, max_detections):
    """(score, "right", "wrong" or "ignored") of detections of a class in an image."""
    rows = np.flatnonzero(image["labels"] == label)
    rows = sorted(rows, key=lambda row: -image["scores"][row])[:max_detections]
    free = set(np.flatnonzero(image["true_labels"] == label))
    entries = []
    for row in rows:
        choices = [(wanted[i], overlaps[row, i], i) for i in free]
        choices = [choice for choice in choices if choice[1] >= limit]
        fate = "wrong"
        if choices:
            is_wanted, _, taken = max(choices)
            fate = "right" if is_wanted else "ignored"
            free -= set() if image["crowd"][taken] else {taken}
        entries.append((image["scores"][row], fate))
    return entries


def area_under(entries, truths):
    """The average precision of detections in the order of the images."""
    if truths == 0:
        return np.nan
    entries = sorted(entries, key=lambda entry: -entry[0])
    counted = [fate for _, fate in entries if fate != "ignored"]
    points = []
    for count in range(1, len(counted) + 1):
        right = counted[:count].count("right")
        points.append((right / truths, right / count))
    return np.mean(
        [max([p for r, p in points if r >= least], default=0) for least in RECALLS]
    )


@pytest.mark.parametrize("max_detections", [100, 2])
def test_at_any_angle_it_is_the_definition_with_shapelys_polygons(max_detections):
    values = []
    for seed in range(60):
        images = random_set(seed, ties=seed % 2 == 0)
        scores = score(images, max_detections)
        expected = oracle(images, max_detections)
        np.testing.assert_allclose(scores.per_class, expected, atol=1e-12, rtol=0)
        values.append(expected)
    assert 0.2 < np.nanmean(np.asarray(values)[..., 0]) < 0.9


def assert_same_scores(scores, expected):
    for one, other in zip(scores, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("seed", range(20))
def test_order_and_division_of_images_and_unit_do_not_matter(seed):
    images = [
        image
        for part in range(5)
        for image in random_set(seed + 100 * part, ties=False)
    ]
    expected = score(images)
    rng = np.random.default_rng(seed)
    mixed = [images[i] for i in rng.permutation(len(images))]
    for image in mixed:
        order = rng.permutation(len(image["scores"]))
        for name in ("rectangles", "scores", "labels"):
            image[name] = image[name][order]
        for name in ("rectangles", "true_rectangles"):
            image[name] = image[name] * [37.3, 37.3, 37.3, 37.3, 1]
    assert_same_scores(score(mixed), expected)
    half = len(images) // 2
    matches = [match_detections(**image) for image in mixed]
    parts = [join_matches(matches[:half]), join_matches(matches[half:])]
    assert_same_scores(average_precision(parts, CLASSES), expected)
    assert_same_scores(average_precision(join_matches(parts), CLASSES), expected)


def test_a_score_that_fits_on_paper():
    true = np.array([[0, 0, 1, 1, 0.3], [9, 9, 1, 1, 0.3]])
    found = np.concatenate([true[:1], true[:1] + 4, true[1:]])
    matches = match_detections(
        found, [0.9, 0.8, 0.7], [1, 1, 1], true, [1, 1], thresholds=(0.5, 0.8)
    )
    scores = average_precision(matches, 3, thresholds=(0.5, 0.8))
    # Precision is 1 up to half of the truths, then 2/3.
    curve = np.where(scores.recalls <= 0.5, 1, 2 / 3)
    assert_close(scores.precision[1], [curve, curve], atol=1e-12)
    assert_close(scores.per_class[1], [(51 + 50 * 2 / 3) / 101] * 2, atol=1e-12)
    assert scores.mean == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert scores.at(0.8) == pytest.approx(scores.mean)
    assert scores.truths.tolist() == [0, 2, 0]
    assert scores.recall[1].tolist() == [1, 1]
    assert np.isnan(scores.per_class[[0, 2]]).all()
    with pytest.raises(ValueError, match=r"threshold 0.75, only at \[0.5, 0.8\]"):
        scores.at(0.75)


def test_a_class_that_nothing_found_has_score_zero():
    one = np.array([[0, 0, 1, 1, 0.3]])
    matches = match_detections([], [], [], one, [0])
    scores = average_precision(matches, 2)
    assert scores.mean == 0
    np.testing.assert_array_equal(scores.recall, [[0] * 10, [np.nan] * 10])


def test_no_image_is_legal():
    scores = average_precision([], 3)
    assert scores.precision.shape == (3, 10, 101)
    assert np.isnan(scores.precision).all()
    assert np.isnan([scores.mean, scores.at(0.5)]).all()


@pytest.mark.parametrize(
    ("labels", "true_labels", "settings", "message"),
    [
        ([3], [0], {}, "^labels must be classes from 0 to 2, got 3"),
        ([-1], [0], {}, "^labels must be classes from 0 to 2, got -1"),
        ([0], [5], {}, "wanted_labels must be classes from 0 to 2, got 5"),
        ([0], [0], {"thresholds": (0.5,)}, "made for 10 thresholds, got 1"),
        ([0], [0], {"num_classes": 0}, "num_classes must be a whole number"),
    ],
)
def test_refuses_what_does_not_fit(labels, true_labels, settings, message):
    one = np.array([[0, 0, 1, 1, 0.3]])
    matches = match_detections(one, [0.5], labels, one, true_labels)
    with pytest.raises(ValueError, match=message):
        average_precision([matches], **{"num_classes": 3, **settings})


def test_many_images_are_scored_in_seconds():
    rng = np.random.default_rng(0)
    images = []
    for _ in range(300):
        true = any_rectangles(rng, 10) * [3, 3, 1, 1, 1]
        found = np.concatenate([near_rectangles(rng, true), near_rectangles(rng, true)])
        labels = rng.integers(0, 2, 10)
        images.append((found, rng.random(20), [*labels, *labels], true, labels))
    start = time.process_time()
    scores = average_precision((match_detections(*each) for each in images), 2)
    # 3,000 images in 25 seconds at worst; it takes two.
    assert time.process_time() - start < 2.5
    assert scores.mean > 0.3
