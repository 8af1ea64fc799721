"""What a label means where two images were mixed, against float64 by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_softmax

from tests.checks import assert_close
from train.tasks.classification import Classification

CLASSES = 4
SHARES = np.array([0.7, 0.0, 1.0, 0.5, 0.25], np.float32)


def batch():
    return {
        "label": np.array([0, 1, 2, 3, 1], np.int32),
        "other_label": np.array([1, 1, 0, 3, 2], np.int32),
        "label_share": SHARES,
        "weight": np.array([1, 1, 1, 1, 0], np.float32),
    }


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_mixture_costs_the_cross_entropy_of_its_mixed_label(smoothing, dtype):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(5, CLASSES)), dtype)
    task, values = Classification(smoothing), batch()
    targets = SHARES[:, None] * np.eye(CLASSES)[values["label"]]
    targets += (1 - SHARES[:, None]) * np.eye(CLASSES)[values["other_label"]]
    targets = (1 - smoothing) * targets + smoothing / CLASSES
    expected = -np.sum(targets * log_softmax(np.asarray(logits, float), -1), -1)
    losses = np.asarray(jax.jit(task.losses)(logits, values)["cross_entropy"])
    assert_close(losses, expected, dtype=jnp.float32)
    plain = task.losses(logits, {"label": values["label"]})["cross_entropy"]
    assert_close(losses[2], np.asarray(plain)[2])


def test_accuracy_counts_both_labels_by_their_shares():
    # The last image has no weight; what it is said to be counts nothing.
    said = jnp.asarray(np.eye(CLASSES)[[1, 1, 2, 0, 1]])
    sums = Classification().training_sums(said, batch())
    assert_close(sums["accuracy"], 0.3 + 1 + 1 + 0)


def test_a_mixture_with_what_is_no_class_is_not_a_number():
    values = batch()
    values["other_label"][[0, 2]] = CLASSES  # of which the second has no share
    losses = Classification().losses(jnp.zeros((5, CLASSES)), values)["cross_entropy"]
    np.testing.assert_array_equal(np.isnan(losses), [True] + [False] * 4)
