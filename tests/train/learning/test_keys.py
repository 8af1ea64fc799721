"""No two uses share a random key, and none has a key that is another's child."""

import dataclasses
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny_runs import random_batch, tiny_config, tiny_experiment
from train.config.attention import EquivarianceConfig
from train.config.optimizer import OptimizerConfig
from train.learning import terms
from train.learning.devices import JitParallel, PmapParallel
from train.learning.loss import sums_shape
from train.learning.network import initial_variables
from train.learning.state import create_state
from train.learning.steps import train_step

BATCH, STEPS = 16, 2
CHILDREN = 16


class Dropping(nn.Module):
    """Notes the key of its dropout."""

    note: object

    @nn.compact
    def __call__(self, images, *, train=False):
        if train:
            key = jax.random.key_data(self.make_rng("dropout"))
            jax.debug.callback(self.note, key)
        return nn.Dense(3)(images.mean((1, 2)))


def keys_of_steps(parallel, parts, monkeypatch):
    """The key data that two steps used, by purpose."""
    used = {"movement": [], "dropout": []}

    def noted(name):
        return lambda key: used[name].append(tuple(np.asarray(key).tolist()))

    sample = terms.sample_similarity

    def spy(key, **options):
        jax.debug.callback(noted("movement"), jax.random.key_data(key))
        return sample(key, **options)

    monkeypatch.setattr(terms, "sample_similarity", spy)
    config = tiny_config(
        batch_size=BATCH,
        optimizer=OptimizerConfig(accumulate=parts),
        equivariance=EquivarianceConfig(classify_moved=True),
    )
    experiment = dataclasses.replace(
        tiny_experiment(config, parallel),
        model=Dropping(noted("dropout")),
        schedule=lambda _: {},
        optimizer=optax.sgd(0.1),
    )
    params = Dropping(None).init(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    state = create_state(
        {"params": params["params"], "batch_stats": {}},
        experiment.optimizer,
        jax.random.key(5),
        averaged=False,
        sums=sums_shape(experiment),
    )
    update = parallel.compile_update(
        lambda state, batch: train_step(experiment, state, batch)
    )
    state = parallel.place(jax.tree.map(np.asarray, state))
    for step in range(STEPS):
        state = update(state, parallel.place_batch(random_batch(step, BATCH)))
    jax.block_until_ready(state)
    jax.effects_barrier()
    return used


def children(key):
    key = jax.random.wrap_key_data(jnp.array(key, jnp.uint32))
    split = np.asarray(jax.random.key_data(jax.random.split(key, CHILDREN)))
    return {tuple(row) for row in split.tolist()}


@pytest.mark.parametrize(
    ("parallel", "parts", "droppings"),
    [
        (lambda: JitParallel(jax.devices()[:1]), 1, 1),
        (lambda: JitParallel(jax.devices()[:1]), 4, 4),
        (PmapParallel, 2, 16),
    ],
)
def test_all_keys_of_two_steps_differ(parallel, parts, droppings, monkeypatch):
    used = keys_of_steps(parallel(), parts, monkeypatch)
    assert len(set(used["movement"])) == BATCH * STEPS
    # A device may ask for one key more than once; it is one use.
    assert len(set(used["dropout"])) == droppings * STEPS
    used = set(used["movement"]) | set(used["dropout"])
    families = [{key} | children(key) for key in used]
    assert len(families) == (BATCH + droppings) * STEPS
    for one, other in itertools.combinations(families, 2):
        assert not one & other


def test_images_move_alike_however_the_batch_is_dealt_out(monkeypatch):
    one = keys_of_steps(JitParallel(jax.devices()[:1]), 1, monkeypatch)
    for parallel, parts in ((PmapParallel(), 1), (PmapParallel(), 2)):
        other = keys_of_steps(parallel, parts, monkeypatch)
        assert set(other["movement"]) == set(one["movement"])


def test_parameters_and_dropout_start_from_different_keys():
    seen = {}

    class Noting(nn.Module):
        @nn.compact
        def __call__(self, images):
            for name in ("params", "dropout"):
                # As a parameter, since that is what comes out of the compiled init.
                key = self.scope.rngs[name].rng
                seen[name] = self.param(f"{name}_key", lambda _, key=key: _data(key))
            return images

    def _data(key):
        return jax.random.key_data(key)

    variables = initial_variables(Noting(), jax.random.key(2), (4, 4, 3))["params"]
    assert (variables["params_key"] != variables["dropout_key"]).any()
