"""Schedules, parameter groups, and the average of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checks import assert_close
from train.config.attention import EquivarianceConfig, SharpnessConfig
from train.config.optimizer import OptimizerConfig
from train.learning.network import sharpness_at
from train.learning.optimizer import learning_rate_schedule, make_optimizer
from train.learning.state import update_average

PARAMS = {
    "attention1": {"mask_predictor": {"kernel": jnp.ones((2, 2))}},
    "head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)},
    "norm": {"scale": jnp.ones(2)},
}


def step_of(config, gradient=0.0):
    """What one step subtracts from each parameter, for equal gradients."""
    optimizer = make_optimizer(config, 10)
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), PARAMS)
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return jax.tree.map(lambda leaf: -leaf, updates)


def sgd(**changes):
    return OptimizerConfig(
        **{"name": "sgd", "learning_rate": 0.1, "warmup_fraction": 0.0} | changes
    )


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_weight_decay_spares_norms_and_biases(name):
    moved = step_of(sgd(name=name, weight_decay=0.5))
    assert np.all(np.asarray(moved["head"]["kernel"]) > 0)
    assert not np.any(moved["head"]["bias"])
    assert not np.any(moved["norm"]["scale"])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_the_predictor_has_its_own_rate_and_frozen_parameters_none(name):
    settings = {"name": name, "weight_decay": 0.1, "freeze": "head/k"}
    plain = step_of(sgd(**settings), 1.0)
    scaled = step_of(sgd(**settings, predictor_scale=0.25), 1.0)
    ours = scaled["attention1"]["mask_predictor"]["kernel"]
    assert_close(ours, 0.25 * plain["attention1"]["mask_predictor"]["kernel"])
    assert_close(scaled["head"]["bias"], plain["head"]["bias"])
    assert not np.any(scaled["head"]["kernel"])


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_the_first_group_that_matches_sets_the_rate(name):
    groups = (("^head/k", 0.5), ("^head", 0.1), ("^attention", 0.25))
    plain = step_of(sgd(name=name), 1.0)
    scaled = step_of(sgd(name=name, scales=groups, predictor_scale=3.0), 1.0)
    expected = {
        "head": {"kernel": 0.5, "bias": 0.1},
        "norm": {"scale": 1.0},
        "attention1": {"mask_predictor": {"kernel": 0.75}},
    }
    jax.tree.map(lambda a, b, f: assert_close(a, f * b), scaled, plain, expected)


def test_clipping_shortens_the_whole_gradient_to_its_norm():
    moved = step_of(sgd(clip_norm=1.0, weight_decay=0.0, momentum=0.0), 5.0)
    length = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(moved)))
    assert length == pytest.approx(0.1, rel=1e-5)


def test_the_cosine_rises_to_the_peak_and_falls_to_its_end():
    config = sgd(warmup_fraction=0.1, final_fraction=0.1)
    rate = learning_rate_schedule(config, 100)
    values = np.array([float(rate(step)) for step in range(101)])
    assert values[0] == pytest.approx(0.01)
    assert values[10] == values.max() == pytest.approx(0.1)
    assert values[100] == pytest.approx(0.01)
    assert np.all(np.diff(values[:10]) > 0)
    assert np.all(np.diff(values[10:]) < 0)


def test_the_step_schedule_drops_where_it_says():
    config = sgd(schedule="step", warmup_fraction=0.1, step_points=(0.5, 0.75))
    rate = learning_rate_schedule(config, 100)
    found = [float(rate(step)) for step in (10, 49, 51, 74, 76, 99)]
    assert found == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.001])


def test_sharpness_goes_geometrically_and_stays():
    config = SharpnessConfig(start=2.0, end=8.0, anneal_fraction=0.5)
    found = [float(sharpness_at(config, step, 100)) for step in (0, 25, 50, 100)]
    assert found == pytest.approx([2.0, 4.0, 8.0, 8.0])
    always = SharpnessConfig(start=2.0, end=8.0, anneal_fraction=0.0)
    assert float(sharpness_at(always, 0, 100)) == pytest.approx(8.0)


def test_the_average_of_constant_parameters_is_that_constant():
    average = {"a": jnp.full(3, 5.0)}
    for step in range(200):
        average = update_average(average, {"a": jnp.ones(3)}, 0.9, jnp.asarray(step))
    assert_close(average["a"], np.ones(3))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OptimizerConfig(learning_rate=-1.0), "learning_rate must not be neg"),
        (lambda: OptimizerConfig(clip_norm=0.0), "clip_norm must be positive"),
        (lambda: OptimizerConfig(freeze="("), "freeze must be a regular expression"),
        (lambda: OptimizerConfig(scales=((")", 1.0),)), "scales must be a regular exp"),
        (lambda: OptimizerConfig(scales=(("a", -1.0),)), "scales must have factors"),
        (lambda: OptimizerConfig(ema_decay=1.0), "ema_decay must be between 0 and 1"),
        (lambda: SharpnessConfig(start=0.0), "sharpness.start must be positive"),
        (lambda: EquivarianceConfig(max_scale=0.5), "max_scale must be 1 or more"),
    ],
)
def test_a_wrong_value_is_refused_with_its_rule(make, message):
    with pytest.raises(ValueError, match=message):
        make()
