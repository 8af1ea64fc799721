"""The focal loss of heat maps against optax and finite differences."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cram_jax.losses import heat_maps
from cram_jax.losses.heat_maps import heat_map_sums
from tests.checks import assert_close, finite_difference_gradient

SHAPE = (2, 5, 7, 3)
# What is compiled is compiled once for each exponent.
heat_map_loss = jax.jit(heat_maps.heat_map_loss, static_argnames=("focus", "lenience"))


def example(seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 4, SHAPE).astype(np.float32)
    heat = rng.uniform(0, 1, SHAPE).astype(np.float32)
    heat[rng.uniform(size=SHAPE) < 0.2] = 1
    return logits, heat


@pytest.mark.parametrize("focus", [0.0, 0.5, 2.0])
def test_for_hard_targets_it_is_optax_sigmoid_focal_loss(focus):
    logits, heat = example()
    hard = (heat == 1).astype(np.float32)
    found = heat_map_loss(logits, hard, focus=focus)
    theirs = jax.jit(functools.partial(optax.sigmoid_focal_loss, gamma=focus))
    assert_close(found, theirs(logits, hard), atol=1e-5)
    # With optax's factor alpha of objects, and 1 - alpha of everything else.
    weighted = theirs(logits, hard, alpha=0.25)
    assert_close(found * np.where(hard == 1, 0.25, 0.75), weighted, atol=1e-5)


def test_between_zero_and_one_it_is_the_papers_formula():
    logits, heat = example(1)
    wide = logits.astype(np.float64)
    p = 1 / (1 + np.exp(-wide))
    others = -((1 - heat.astype(np.float64)) ** 4) * p**2 * np.log1p(-p)
    expected = np.where(heat == 1, -((1 - p) ** 2) * np.log(p), others)
    assert_close(heat_map_loss(logits, heat), expected, rtol=1e-4)


@pytest.mark.parametrize("focus", [0.5, 2.0])
def test_gradients_are_finite_differences_and_finite_at_any_logit(focus, x64):
    logits, heat = (part[0, 0].astype(np.float64) for part in example(2))

    @jax.jit
    def total(logits, heat):
        return jnp.sum(heat_map_loss(logits, heat, focus=focus))

    gradient = jax.jit(jax.grad(total))
    expected = finite_difference_gradient(lambda x: total(x, heat), logits)
    assert_close(gradient(logits, heat), expected, atol=1e-7, rtol=1e-6)
    far = jnp.array([-1e4, -200, 200, 1e4] * 2, jnp.float32)
    hard = jnp.array([0.0] * 4 + [1.0] * 4, jnp.float32)
    assert np.isfinite(total(far, hard))
    assert np.isfinite(gradient(far, hard)).all()


def test_half_floats_are_computed_in_float32():
    logits, heat = (jnp.asarray(part, jnp.bfloat16) for part in example())
    assert heat_map_loss(logits, heat).dtype == jnp.float32


def test_sums_add_up_over_images_and_one_without_objects_weighs_one():
    logits, heat = example(3)
    heat[1] *= 0.5
    counted = np.random.default_rng(4).uniform(size=SHAPE) < 0.7
    losses = np.asarray(heat_map_loss(logits, heat))
    spoilt = np.where(counted, losses, np.nan)
    total, weight = jax.jit(heat_map_sums)(jnp.asarray(spoilt), heat, counted)
    assert_close(total, [losses[i][counted[i]].sum() for i in range(2)], rtol=1e-5)
    assert_close(weight, [((heat[0] == 1) & counted[0]).sum(), 1])
    assert weight[0] > 1
    alone = jax.jit(heat_map_sums)(jnp.asarray(spoilt[1]), heat[1], counted[1])
    assert_close(alone, [total[1], weight[1]])


@pytest.mark.parametrize(
    ("options", "message"),
    [({"focus": -1.0}, "focus must be"), ({"lenience": -1.0}, "lenience must be")],
)
def test_mistakes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        heat_map_loss(jnp.zeros(SHAPE), jnp.zeros(SHAPE), **options)
    with pytest.raises(ValueError, match="one shape, got"):
        heat_map_loss(jnp.zeros((2, 2, 1)), jnp.zeros((2, 2)))
