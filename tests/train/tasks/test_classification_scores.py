"""Scores of classes against hand-made cases and scikit-learn."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import log_loss, top_k_accuracy_score

from train.tasks.scores.classification import (
    classification_record,
    classification_sums,
    label_rank,
)


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
    logits = 3 * np.eye(3, dtype=np.float32)
    logits[0] = spoilt
    scores = scores_of(logits, np.array([0, 1, 2]))
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["images_not_finite"] == 1
    assert "cross_entropy" not in scores
    assert "calibration_error" not in scores
    json.dumps(scores, allow_nan=False)


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_that_is_no_class_is_never_right(label):
    scores = scores_of(
        np.array([[0, 0, 3], [0, 3, 0]], np.float32), np.array([label, 1])
    )
    assert scores["accuracy"] == 0.5
    assert scores["images_not_finite"] == 1


@pytest.mark.parametrize(("classes", "given"), [(2, False), (5, False), (6, True)])
def test_the_best_five_of_five_classes_are_no_score(classes, given):
    logits = np.random.default_rng(3).normal(size=(8, classes)).astype(np.float32)
    assert ("top_5" in scores_of(logits, np.zeros(8, int))) == given


def test_without_images_there_is_no_score():
    logits = np.full((2, 3), np.nan, np.float32)
    assert scores_of(logits, np.zeros(2, int), np.zeros(2)) == {"images": 0}
