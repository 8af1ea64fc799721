"""The train step under every setting: traced, where tracing already tells."""

import dataclasses
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checks import assert_close, assert_tree_finite
from tests.tiny_runs import random_batch, tiny_config, tiny_experiment
from train.config.attention import EquivarianceConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.errors import UserError
from train.learning.devices import JitParallel
from train.learning.evaluator import Evaluator
from train.learning.steps import train_step
from train.learning.window import NEVER

TINY = tiny_config().model


def experiment_of(**changes):
    config = tiny_config(**changes)
    return tiny_experiment(config, JitParallel(jax.devices()[:1]))


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "bf16"},
        {"model": dataclasses.replace(TINY, remat=True)},
        {"model": dataclasses.replace(TINY, attention="none")},
        {"model": dataclasses.replace(TINY, attention="cbam")},
        {"optimizer": OptimizerConfig(name="lamb", accumulate=4, ema_decay=0.99)},
        {"optimizer": OptimizerConfig(label_smoothing=0.1, clip_norm=1.0)},
        {"equivariance": EquivarianceConfig(weight=0.1, classify_moved=True)},
        {"equivariance": EquivarianceConfig(weight=0.1, metric="corners")},
    ],
)
def test_every_setting_keeps_the_shapes_and_dtypes_of_the_state(changes):
    experiment = experiment_of(**changes)
    state = experiment.initial_state()
    after = jax.eval_shape(partial(train_step, experiment), state, random_batch(0, 8))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    for old, new in zip(jax.tree.leaves(state), jax.tree.leaves(after), strict=True):
        assert (old.shape, old.dtype) == (new.shape, new.dtype)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(after.params)}
    assert dtypes == {jnp.dtype(jnp.float32)}


def test_moved_images_and_remat_train_and_stay_finite():
    experiment = experiment_of(
        model=dataclasses.replace(TINY, remat=True),
        equivariance=EquivarianceConfig(weight=1.0, warmup_fraction=0.0),
    )
    step = jax.jit(partial(train_step, experiment))
    state = experiment.initial_state()
    for index in range(3):
        state = step(state, random_batch(index, 8))
    assert_tree_finite((state.params, state.window))
    assert float(state.window["equivariance_loss"]) > 0
    assert int(state.step) == 3


def test_padding_images_change_neither_gradient_nor_metrics_without_batchnorm():
    # BatchNorm does see padding, so the statistics are held fixed by comparing two
    # batches whose padding differs in its labels only.
    experiment = experiment_of()
    step = jax.jit(partial(train_step, experiment))
    batch = random_batch(0, 8)
    batch["weight"][6:] = 0
    other = {**batch, "label": batch["label"].copy()}
    other["label"][6:] = (other["label"][6:] + 1) % 3
    first, second = (step(experiment.initial_state(), b) for b in (batch, other))
    jax.tree.map(np.testing.assert_array_equal, first, second)
    assert float(first.window["weight"]) == 6


def test_the_first_step_that_is_not_finite_is_noted_and_stays_noted():
    experiment = experiment_of()
    step = jax.jit(partial(train_step, experiment))
    state = experiment.initial_state()
    state = step(state, random_batch(0, 8))
    assert int(state.window["bad_loss_step"]) == NEVER
    spoilt = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params)
    state = step(state.replace(params=spoilt), random_batch(1, 8))
    state = step(state, random_batch(2, 8))
    assert int(state.window["bad_loss_step"]) == 2
    assert int(state.window["bad_gradient_step"]) == 2


def test_an_equivariance_loss_without_a_rectangle_is_refused():
    with pytest.raises(UserError, match="needs a layer with a rectangle"):
        experiment_of(
            model=dataclasses.replace(TINY, attention="none"),
            equivariance=EquivarianceConfig(weight=0.1),
        )


def test_widths_of_a_network_that_has_none_are_refused():
    with pytest.raises(UserError, match=r"model\.widths cannot be chosen for resnet18"):
        experiment_of(model=ModelConfig(backbone="resnet18", widths=(4,)))


def test_the_same_seed_gives_the_same_parameters_and_another_seed_others():
    states = [experiment_of(seed=seed).initial_state() for seed in (0, 0, 1)]
    first, same, other = (state.params["head"]["dense"]["kernel"] for state in states)
    assert_close(first, same, atol=0, rtol=0)
    assert np.abs(np.asarray(first) - np.asarray(other)).max() > 1e-3


def test_a_batch_of_nothing_but_unreadable_images_moves_nothing():
    config = {"equivariance": EquivarianceConfig(weight=1.0, warmup_fraction=0.0)}
    for parts in (1, 2):
        rule = OptimizerConfig(name="sgd", weight_decay=0.0, accumulate=parts)
        experiment = experiment_of(optimizer=rule, **config)
        state, batch = experiment.initial_state(), random_batch(0, 8)
        batch["weight"][:] = 0
        after = jax.jit(partial(train_step, experiment))(state, batch)
        jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
        assert int(after.window["bad_loss_step"]) == NEVER
        assert int(after.window["bad_gradient_step"]) == NEVER
        assert float(after.window["weight"]) == 0


@pytest.mark.parametrize("label", [-1, 3, 255])
def test_a_label_that_is_no_class_is_not_learnt_in_silence(label):
    experiment = experiment_of()
    batch = random_batch(0, 8)
    batch["label"][5] = label
    step = jax.jit(partial(train_step, experiment))
    state = step(experiment.initial_state(), batch)
    assert int(state.window["bad_loss_step"]) == 1
    batch["weight"][5] = 0
    state = step(experiment.initial_state(), batch)
    assert_tree_finite((state.params, state.window))


def test_a_set_without_truth_in_one_split_is_scored_without_it():
    experiment = experiment_of()
    state = experiment.initial_state()
    evaluator = Evaluator(experiment, experiment.parallel)

    def scores(known, weight=1.0):
        batch = random_batch(0, 8)
        batch["rectangle_weight"][known:] = 0
        batch["weight"][:] = weight
        return evaluator.scores(state.evaluated_variables(), state.step, [batch])

    names = {"iou", "corloc", "pointing", "center_error", "mass_on_object", "mask_iou"}
    for known in (8, 3, 0):
        found = scores(known)
        given = {name.rpartition("/")[2] for name in found}
        assert found["attention1/images_with_truth"] == known
        assert (given & names) == (names if known else set())
        json.dumps(found, allow_nan=False)
    assert scores(0, weight=0.0) == {"images": 0, "attention1/images_with_truth": 0}
    with pytest.raises(UserError, match="no images to evaluate"):
        evaluator.scores(state.evaluated_variables(), state.step, [])
    spoilt = jax.tree.map(lambda leaf: leaf * jnp.nan, state.evaluated_variables())
    found = evaluator.scores(spoilt, state.step, [random_batch(0, 8)])
    assert found["accuracy"] == 0
    assert found["images_not_finite"] == 8
    json.dumps(found, allow_nan=False)
