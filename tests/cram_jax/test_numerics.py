"""Bfloat16 maps are read as they are, not through a float32 copy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.gate import gate
from cram_jax.attention.registry import attention_factory
from cram_jax.backbones import backbone
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32, largest, read_apart
from tests.checks import assert_close, assert_tree_finite

HALF = [jnp.bfloat16, jnp.float16]


def temporary_maps(name, dtype, shape=(4, 56, 56, 64)):
    """Temporary memory of forward and backward, in maps of that dtype."""
    make = attention_factory(name)
    assert make is not None
    layer = make()
    x = jax.ShapeDtypeStruct(shape, dtype)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def both(variables, x, cotangent):
        y, pullback = jax.vjp(layer.apply, variables, x)
        return y, pullback(cotangent)

    memory = jax.jit(both).lower(variables, x, x).compile().memory_analysis()
    if memory is None:
        pytest.skip("This backend does not tell its memory.")
    return memory.temp_size_in_bytes / (x.size * x.dtype.itemsize)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="XLA on CPU copies")
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_copy_of_the_map_is_written(dtype):
    # A float32 copy of the map and one of its cotangent would be 4.
    assert temporary_maps("rectangular", dtype) < 0.5


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="XLA on CPU copies")
def test_other_layers_save_copies_too():
    # One copy each is left, of the two that were: their gates are plain products.
    for name in ("squeeze-excite", "efficient-channel"):
        assert temporary_maps(name, jnp.bfloat16) < 2.5


def test_other_dtypes_are_left_alone():
    for dtype in (jnp.float32, jnp.float16, jnp.int32):
        tree = {"a": jnp.ones(3, dtype), "b": jnp.ones((), dtype)}
        assert read_apart(tree) is tree
        jaxpr = jax.make_jaxpr(read_apart)(tree)
        assert not jaxpr.eqns


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.vmap])
def test_values_dtypes_and_trees_stay(wrap):
    tree = {"a": jnp.arange(2, dtype=jnp.bfloat16), "b": jnp.ones((2, 3))}
    apart = wrap(read_apart)(tree)
    assert [leaf.dtype for leaf in apart.values()] == [jnp.bfloat16, jnp.float32]
    jax.tree.map(assert_close, apart, tree)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit, jax.checkpoint])
def test_derivatives_in_low_precision_are_those_of_float32_rounded(dtype, wrap):
    x = jax.random.normal(jax.random.key(0), (6, 5, 16)).astype(dtype)
    array = jnp.array([0.1, 0.2, 0.6, 0.3, 0.4])

    def total(x, array):
        gated = gate(x, Rectangle.from_array(array), sharpness=7.0, floor=0.1)
        return jnp.sum(at_least_float32(gated) ** 2)

    def batched(function, x):
        return jax.vmap(function, (0, None))(jnp.stack([x, 2 * x]), array)

    gradient = wrap(jax.grad(total, (0, 1)))
    actual = gradient(x, array), batched(gradient, x)
    exact = jax.grad(total, (0, 1))
    precise = x.astype(jnp.float32)
    expected = exact(precise, array), batched(exact, precise)
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert_close(a, e, rtol=2e-2, atol=2e-2 * float(jnp.abs(e).max()))

    # Forward mode, and forward over reverse.
    along = jnp.ones_like(array)
    _, slope = jax.jvp(wrap(lambda a: total(x, a)), (array,), (along,))
    assert_close(slope, (expected[0][1] * along).sum(), rtol=3e-2)
    _, curved = jax.jvp(lambda a: gradient(x, a)[1], (array,), (along,))
    _, exactly = jax.jvp(lambda a: exact(precise, a)[1], (array,), (along,))
    assert_close(curved, exactly, rtol=3e-2, atol=3e-2 * float(jnp.abs(exactly).max()))


@pytest.mark.parametrize("axis", [0, -1, (-3, -2)])
def test_largest_is_the_maximum_and_equal_entries_share_the_gradient(axis):
    # Integers, so that many entries are equal, zeros among them.
    array = np.random.default_rng(0).integers(-3, 1, (2, 5, 4, 3)).astype("float32")
    assert (jax.jit(largest, static_argnums=1)(array, axis) == array.max(axis)).all()
    weights = np.random.default_rng(1).normal(size=array.max(axis).shape)
    gradient = jax.grad(lambda array: jnp.sum(weights * largest(array, axis)))(array)
    equal = array == array.max(axis, keepdims=True)
    expected = np.expand_dims(weights, axis) * equal / equal.sum(axis, keepdims=True)
    assert_close(gradient, expected)
    each = jax.vmap(lambda one: largest(one, -1))(array)
    assert (each == array.max(-1)).all()


@pytest.mark.parametrize("name", ["positionwise-pooled", "cbam"])
def test_gradients_through_a_maximum_are_finite_where_xla_computes_it_twice(name):
    # The tests' flags leave the map in front of the maximum unfused, and NaN was here.
    network = backbone("convnet")(
        3, attention=attention_factory(name), attention_stages=(1, 2)
    )
    images = jax.random.normal(jax.random.key(0), (3, 16, 16, 3))
    variables = network.init(jax.random.key(1), images)

    @jax.jit
    def gradient(params):
        def loss(params):
            logits, _ = network.apply(
                {**variables, "params": params}, images, train=True, mutable=True
            )
            return jnp.sum(logits**2)

        return jax.grad(loss)(params)

    assert_tree_finite(gradient(variables["params"]))
