"""Where layers looked, against hand-made cases and independent implementations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely

from cram_jax.geometry.rectangle import Rectangle
from train.evidence.answers import Shown
from train.evidence.localization import localization_record, localization_sums
from train.evidence.yardsticks import yardstick_scores


def batch_with(rectangle, side=48, **more):
    count = len(rectangle)
    return {
        "image": jnp.zeros((count, side, side, 1), jnp.uint8),
        "weight": jnp.ones(count),
        "rectangle": jnp.asarray(rectangle, jnp.float32),
        "rectangle_weight": jnp.ones(count),
        **more,
    }


def localization(layer, batch, truth):
    sums = localization_sums(layer, batch, truth)
    return localization_record(jax.device_get(sums))


def rectangular(rectangle, mask):
    values = jnp.asarray(rectangle, jnp.float32)
    return {"rectangle": Rectangle.from_array(values), "mask": jnp.asarray(mask)}


def polygon(rectangle):
    x, y, w, h, angle = rectangle
    box = shapely.box(-w, -h, w, h)
    turned = shapely.affinity.rotate(box, angle, origin=(0, 0), use_radians=True)
    return shapely.affinity.translate(turned, x, y)


def test_rotated_truth_is_scored_by_exact_overlap():
    found, true = [[0.1, 0.0, 0.5, 0.3, 0.4]], [[0.0, 0.1, 0.4, 0.4, -0.2]]
    scores = localization(
        rectangular(found, np.ones((1, 6, 6))), batch_with(true), "rotated"
    )
    a, b = polygon(found[0]), polygon(true[0])
    expected = a.intersection(b).area / a.union(b).area
    assert scores["iou"] == pytest.approx(expected, abs=1e-5)
    assert scores["corloc"] == (expected >= 0.5)
    # 0.1 of a half side of 24 pixels in both directions.
    assert scores["center_error"] == pytest.approx(2.4 * 2**0.5, abs=1e-4)
    a, b = a.envelope, b.envelope
    expected = a.intersection(b).area / a.union(b).area
    assert scores["hull_iou"] == pytest.approx(expected, abs=1e-5)


def test_box_truth_is_scored_by_the_hull():
    found, true = [[0.0, 0.0, 0.5, 0.5, np.pi / 4]], [[0.0, 0.0, 0.5, 0.5, 0.0]]
    scores = localization(
        rectangular(found, np.ones((1, 6, 6))), batch_with(true), "box"
    )
    assert scores["iou"] == scores["hull_iou"] == pytest.approx(0.5, abs=1e-5)


# Rectangles wider than the picture, half out of it, beside it, and turned.
BEYOND = [
    [0.0, 0.0, 1.6, 1.4, 0.3],
    [0.9, -0.8, 0.5, 0.4, 0.0],
    [1.8, 0.0, 0.3, 0.3, 0.0],
    [-0.7, 0.6, 0.6, 0.3, 0.8],
    [0.1, 0.1, 0.3, 0.2, 0.5],
]


@pytest.mark.parametrize("size", [(48, 48), (24, 48), (48, 30)])
@pytest.mark.parametrize("found", BEYOND)
def test_boxes_end_at_the_edges_of_the_picture(found, size):
    true = [0.1, 0.2, 0.4, 0.3, 0.0]
    height, width = size
    picture = shapely.box(-width, -height, width, height)
    picture = shapely.affinity.scale(picture, *[1 / max(size)] * 2, origin=(0, 0))
    batch = batch_with([true]) | {"image": jnp.zeros((1, *size, 1), jnp.uint8)}
    layer = rectangular([found], np.ones((1, 6, 6)))
    a, b = (polygon(each).envelope & picture for each in (found, true))
    expected = (a & b).area / (a | b).area
    for truth in ("box", "rotated"):
        scores = localization(layer, batch, truth)
        assert scores["hull_iou"] == pytest.approx(expected, abs=1e-5)
    assert localization(layer, batch, "box")["iou"] == scores["hull_iou"]
    # The exact overlap of rotated rectangles knows no picture.
    a, b = polygon(found), polygon(true)
    assert scores["iou"] == pytest.approx((a & b).area / (a | b).area, abs=1e-5)


@pytest.mark.parametrize("truth", ["box", "rotated", "mask"])
def test_the_same_overlap_stands_in_the_table_of_yardsticks(truth):
    true = [[0.1, 0.2, 0.4, 0.3, 0.2 if truth == "rotated" else 0.0]] * len(BEYOND)
    batch = batch_with(true)
    layer = rectangular(BEYOND, np.ones((len(BEYOND), 48, 48)))
    shown = Shown(layers={"layer": layer}, class_maps={})
    rows = yardstick_scores(lambda _: shown, [batch], truth, None)
    scores = localization(layer, batch, truth)
    for name in ("iou", "corloc", "pointing"):
        expected = rows["layer: rectangle"][name]
        assert scores[name] == pytest.approx(expected, abs=1e-5), name


def test_mask_truth_is_scored_by_filled_pixels_and_pointing_by_the_centre():
    mask = np.zeros((2, 8, 8), np.uint8)
    mask[:, 2:6, 2:6] = 1
    true = [[0.0, 0.0, 0.5, 0.5, 0.0]] * 2
    found = [[0.0, 0.0, 0.5, 0.25, 0.0], [0.9, 0.9, 0.05, 0.05, 0.0]]
    batch = batch_with(true, side=8, object_mask=jnp.asarray(mask))
    scores = localization(rectangular(found, np.ones((2, 8, 8))), batch, "mask")
    assert scores["iou"] == pytest.approx((0.5 + 0.0) / 2, abs=1e-6)
    assert scores["corloc"] == 0.5
    assert scores["pointing"] == 0.5
    assert scores["mass_on_object"] == pytest.approx(16 / 64)


def test_a_position_wise_mask_is_scored_without_a_rectangle():
    mask = np.full((1, 8, 8), 0.2, np.float32)
    mask[0, 2:6, 2:6] = 0.8
    batch = batch_with([[0.0, 0.0, 0.5, 0.5, 0.0]], side=8)
    scores = localization({"mask": jnp.asarray(mask)}, batch, "rotated")
    assert "iou" not in scores
    assert scores["mask_iou"] == scores["pointing"] == 1.0
    expected = 0.8 * 16 / (0.8 * 16 + 0.2 * 48)
    assert scores["mass_on_object"] == pytest.approx(expected, abs=1e-6)
    assert scores["mask_area"] == pytest.approx(mask.mean(), abs=1e-6)


def test_images_without_truth_or_weight_do_not_count_in_localization():
    true = [[0.0, 0.0, 0.5, 0.5, 0.0]] * 2 + [[np.nan] * 5]
    found = [[0.0, 0.0, 0.5, 0.5, 0.0], [0.9, 0.9, 0.1, 0.1, 0.0], [0.0] * 5]
    batch = batch_with(
        true, rectangle_weight=jnp.array([1.0, 0.0, 1.0]), weight=jnp.array([1.0, 1, 0])
    )
    scores = localization(rectangular(found, np.ones((3, 6, 6))), batch, "rotated")
    assert scores["iou"] == pytest.approx(1.0, abs=1e-5)


@pytest.mark.parametrize("truth", ["rotated", "box", "mask"])
@pytest.mark.parametrize("known", [0, 1, 2])
def test_scores_are_means_over_images_with_truth_and_absent_without(truth, known):
    true = [[0.0, 0.0, 0.5, 0.5, 0.0]] * 3
    found = [[0.0, 0.0, 0.5, 0.5, 0.0]] * 3
    weight = jnp.array([1.0, 1.0, 0.0])
    has_truth = jnp.float32(jnp.array([known > 0, known > 1, True]))
    outlines = jnp.zeros((3, 48, 48), jnp.uint8).at[:, 12:36, 12:36].set(1)
    batch = batch_with(
        true, weight=weight, rectangle_weight=has_truth, object_mask=outlines
    )
    layer = rectangular(found, np.ones((3, 6, 6)))
    scores = localization(layer, batch, truth)
    assert scores["images_with_truth"] == known
    assert scores["mask_area"] == 1
    if known == 0:
        assert scores.keys() == {"mask_area", "images_with_truth"}
    else:
        assert scores["iou"] == pytest.approx(1.0, abs=1e-4)
        assert scores["center_error"] == 0
    json.dumps(scores, allow_nan=False)


def test_an_object_without_outline_is_not_scored_by_its_outline():
    outlines = jnp.zeros((2, 48, 48), jnp.uint8).at[0, 12:36, 12:36].set(1)
    same = [[0.0, 0.0, 0.5, 0.5, 0.0]] * 2
    batch = batch_with(same, object_mask=outlines)
    scores = localization(rectangular(same, np.ones((2, 6, 6))), batch, "mask")
    assert scores["images_with_truth"] == 1
    assert scores["iou"] == pytest.approx(1.0, abs=1e-4)


def test_without_images_a_layer_has_no_score():
    batch = batch_with([[np.nan] * 5], weight=jnp.zeros(1))
    layer = rectangular([[np.nan] * 5], np.full((1, 6, 6), np.nan))
    assert localization(layer, batch, "box") == {"images_with_truth": 0}
    assert localization(layer, batch, "none") == {}
