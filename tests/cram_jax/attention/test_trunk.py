"""The trunk against the same layers of flax."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from cram_jax import Trunk
from cram_jax.attention.moments import pool_to_grid


class PlainTrunk(nn.Module):
    """`Trunk` as its description says it, of flax's own layers."""

    channels: int = 1
    depth: int = 2
    max_grid: int = 12
    dtype: jax.typing.DTypeLike | None = None

    @nn.compact
    def __call__(self, features):
        x = pool_to_grid(features, self.max_grid)
        for layer in range(self.depth + 1):
            size = (3, 3) if layer else (1, 1)
            x = nn.Conv(8, size, use_bias=False, dtype=self.dtype)(x)
            norm = nn.LayerNorm(reduction_axes=(-3, -2, -1), dtype=self.dtype)
            x = nn.silu(norm(x))
        return nn.Conv(self.channels, (1, 1), dtype=self.dtype)(x)


@pytest.mark.parametrize(
    ("shape", "settings"),
    [
        ((2, 9, 12, 6), {}),
        ((7, 5, 3), {"channels": 8}),
        ((2, 3, 16, 13, 4), {"max_grid": 5, "depth": 1}),
        ((1, 1, 1, 2), {}),
        ((2, 4, 1, 3), {"depth": 0}),
    ],
)
def test_results_and_gradients_are_those_of_flax_layers(shape, settings, x64):
    keys = jax.random.split(jax.random.key(0), 3)
    features = jax.random.normal(keys[0], shape)
    ours, plain = Trunk(**settings), PlainTrunk(**settings)
    variables = ours.init(keys[1], features)
    # The same names, shapes and initial values: checkpoints fit, seeds stay the same.
    jax.tree.map(
        np.testing.assert_array_equal, variables, plain.init(keys[1], features)
    )
    noise = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: leaf + noise.normal(size=leaf.shape), variables
    )
    shape = jax.eval_shape(ours.apply, variables, features).shape
    cotangent = jax.random.normal(keys[2], shape)

    def result_and_gradients(trunk):
        result, pullback = jax.vjp(trunk.apply, variables, features)
        return result, pullback(cotangent)

    for run in (lambda f: f, jax.jit):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-8),
            run(lambda: result_and_gradients(ours))(),
            run(lambda: result_and_gradients(plain))(),
        )


def test_low_precision_stays_as_close_as_flax_layers():
    features = jax.random.normal(jax.random.key(0), (2, 12, 12, 64))
    exact = PlainTrunk()
    variables = exact.init(jax.random.key(1), features)
    want = exact.apply(variables, features)

    def error(trunk, dtype):
        result = trunk.apply(variables, features.astype(dtype))
        assert result.dtype == dtype
        return float(jnp.max(jnp.abs(result.astype(jnp.float32) - want)))

    low = jnp.bfloat16
    assert error(Trunk(dtype=low), low) < 1.5 * error(PlainTrunk(dtype=low), low)
    assert error(Trunk(dtype=jnp.float32), jnp.float32) < 1e-5


def test_an_empty_batch_stays_empty_and_a_vmap_changes_nothing():
    trunk, features = Trunk(), jnp.ones((3, 5, 6, 2)).at[1].set(-2)
    variables = trunk.init(jax.random.key(0), features)
    apply = jax.jit(functools.partial(trunk.apply, variables))
    assert apply(features[:0]).shape == (0, 5, 6, 1)
    np.testing.assert_allclose(jax.vmap(apply)(features), apply(features), atol=1e-6)
