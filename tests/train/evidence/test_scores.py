"""Scores against hand-made cases and independent implementations."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely
from sklearn.metrics import log_loss, top_k_accuracy_score

from cram_jax.geometry.rectangle import Rectangle
from tests.checks import assert_close
from train.evidence.localization import localization_record, localization_sums
from train.learning.window import empty_window, layer_sums, window_record
from train.tasks.classification import (
    classification_record,
    classification_sums,
    label_rank,
)
from train.tasks.sums import weighted_sum


def scores_of(logits, labels, weight=None):
    weight = np.ones(len(labels), np.float32) if weight is None else weight
    arrays = (jnp.asarray(each) for each in (logits, labels, weight))
    sums = classification_sums(*arrays)
    return classification_record(jax.device_get(sums))


def test_classification_agrees_with_scikit_learn():
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(101, 7)).astype(np.float32)
    labels = generator.integers(0, 7, 101)
    probabilities = np.asarray(jax.nn.softmax(logits), np.float64)
    probabilities /= probabilities.sum(-1, keepdims=True)
    scores = scores_of(logits, labels)
    every = np.arange(7)
    for name, k in (("accuracy", 1), ("top_5", 5)):
        expected = top_k_accuracy_score(labels, logits, k=k, labels=every)
        assert scores[name] == pytest.approx(expected, abs=1e-6)
    expected = log_loss(labels, probabilities, labels=every)
    assert scores["cross_entropy"] == pytest.approx(expected, abs=1e-5)


def test_calibration_error_of_a_worked_case():
    # Two images of confidence 0.9, one right; one of confidence 0.6, right.
    logits = np.log([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]]).astype(np.float32)
    scores = scores_of(logits, np.array([0, 0, 0]))
    expected = (2 * abs(0.5 - 0.9) + abs(1.0 - 0.6)) / 3
    assert scores["calibration_error"] == pytest.approx(expected, abs=1e-6)


def test_padding_changes_no_score_even_if_its_logits_are_not_numbers():
    logits = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    weight = np.array([1, 1, 1, 1, 0, 0], np.float32)
    assert scores_of(logits, labels, weight) == scores_of(logits[:4], labels[:4])


@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("label", [-1, 3, 255, 2**31 - 1])
def test_what_has_no_weight_changes_no_score_whatever_it_holds(junk, label):
    logits = np.random.default_rng(1).normal(size=(6, 3)).astype(np.float32)
    labels = np.array([0, 1, 2, 0, 1, 2])
    expected = scores_of(logits[:4], labels[:4])
    logits[4:], labels[4:] = junk, label
    weight = np.array([1, 1, 1, 1, 0, 0], np.float32)
    assert scores_of(logits, labels, weight) == expected


def test_of_equal_logits_the_first_class_is_the_prediction():
    # A network that says the same of everything is right about one class of three.
    labels = np.array([0, 1, 2, 2])
    logits = np.zeros((4, 3), np.float32)
    assert scores_of(logits, labels)["accuracy"] == np.mean(labels == 0)
    generator = np.random.default_rng(2)
    coarse = generator.integers(0, 3, (200, 9)).astype(np.float32)
    labels = generator.integers(0, 9, 200)
    rank = label_rank(jnp.asarray(coarse), jnp.asarray(labels))
    # A stable sort from the largest on keeps equal ones in their order.
    order = np.argsort(-coarse, axis=-1, kind="stable")
    np.testing.assert_array_equal(rank, np.argmax(order == labels[:, None], -1))
    predicted = np.argmax(coarse, axis=-1)
    assert scores_of(coarse, labels)["accuracy"] == pytest.approx(
        np.mean(predicted == labels), abs=1e-6
    )


@pytest.mark.parametrize("spoilt", [np.nan, np.inf, [0.0, np.nan, 0.0], -np.inf])
def test_logits_that_are_no_numbers_are_wrong_and_counted(spoilt):
    logits = np.float32([[3, 0, 0], [0, 3, 0], [0, 0, 3]])
    logits[0] = spoilt
    scores = scores_of(logits, np.array([0, 1, 2]))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["images_not_finite"] == 1
    assert "cross_entropy" not in scores
    assert "calibration_error" not in scores
    json.dumps(scores, allow_nan=False)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_never_right(label):
    scores = scores_of(np.float32([[0, 0, 3], [0, 3, 0]]), np.array([label, 1]))
    assert scores["accuracy"] == 0.5
    assert scores["images_not_finite"] == 1


@pytest.mark.parametrize(("classes", "given"), [(2, False), (5, False), (6, True)])
def test_the_best_five_of_five_classes_are_no_score(classes, given):
    logits = np.random.default_rng(3).normal(size=(8, classes)).astype(np.float32)
    assert ("top_5" in scores_of(logits, np.zeros(8, int))) == given


def test_without_images_there_is_no_score():
    logits = np.full((2, 3), np.nan, np.float32)
    assert scores_of(logits, np.zeros(2, int), np.zeros(2)) == {"images": 0}
    layer = rectangular([[0.0, 0.0, 0.5, 0.5, 0.0]], np.ones((1, 6, 6)))
    window = jax.device_get(empty_window({"attention1": layer}))
    assert window_record(window) == {}
    assert window_record(window | {"steps": 1.0}) == {"gradient_norm": 0}


def test_values_per_rectangle_are_not_summed_by_weights_of_images():
    weight = jnp.ones(4)
    for shape in ((4, 4), (4, 1), ()):
        with pytest.raises(ValueError, match=r"one value per image; got .* \(4,\)"):
            weighted_sum(weight, jnp.ones(shape))
    several = jnp.ones((4, 4, 5)) / 2
    layer = {"rectangle": Rectangle.from_array(several), "mask": jnp.ones((4, 6, 6))}
    with pytest.raises(ValueError, match="one value per image"):
        layer_sums(layer, weight)


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


def test_the_training_window_gives_means_and_the_spread_of_centres():
    rectangle = Rectangle.from_array(
        jnp.asarray([[-0.3, 0.0, 0.5, 0.2, 0.0], [0.3, 0.0, 0.7, 0.2, 1.0]])
    )
    layer = {"rectangle": rectangle, "mask": jnp.full((2, 3, 3), 0.25)}
    window = empty_window({"attention1": layer})
    sums = layer_sums(layer, jnp.ones(2))
    assert window["layers"]["attention1"].keys() == sums.keys()
    window |= {"weight": 2.0, "steps": 1.0, "layers": {"attention1": sums}}
    record = window_record(jax.device_get(window))
    assert record["attention1/mask_area"] == pytest.approx(0.25)
    assert record["attention1/half_width"] == pytest.approx(0.6)
    assert_close(record["attention1/center_spread"], 0.3, dtype="float32")
