"""Derivatives of the gate and its mask: both modes, higher orders, memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cram_jax.attention.gate import gate
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_mask
from tests.checks import assert_close, assert_tree_finite, finite_difference_gradient

# Edge cases of the design: a square, degenerate sizes, quarter turns, sizes above the
# map's, and centres outside of it. (center_x, center_y, half sizes, angle)
EDGE_CASES = {
    "plain": (0.1, 0.2, 0.6, 0.3, 0.4),
    "square": (0.1, -0.2, 0.5, 0.5, 0.3),
    "square at a quarter turn": (0.0, 0.0, 0.5, 0.5, np.pi / 2),
    "quarter turn": (0.1, 0.0, 0.6, 0.2, np.pi / 2),
    "just beside it": (0.1, 0.0, 0.6, 0.2, np.pi / 2 + 1e-6),
    "half turn": (0.1, 0.0, 0.6, 0.2, np.pi),
    "45 degrees": (0.0, 0.3, 0.4, 0.2, np.pi / 4),
    "a line": (0.1, 0.1, 0.5, 0.0, 0.2),
    "a point": (0.1, 0.1, 0.0, 0.0, 0.0),
    "wider than the map": (0.0, 0.0, 1.5, 1.4, 0.1),
    "outside": (1.6, -1.5, 0.3, 0.2, 0.5),
}


def plain_gate(features, array, sharpness, floor):
    """The formula of four logistic functions, differentiated by JAX alone."""
    height, width = features.shape[-3:-1]
    longer = max(height, width)
    x = ((2 * jnp.arange(width) + 1) / width - 1) * width / longer - array[0]
    y = (((2 * jnp.arange(height) + 1) / height - 1) * height / longer - array[1])[
        :, None
    ]
    u = jnp.cos(array[4]) * x + jnp.sin(array[4]) * y
    v = jnp.cos(array[4]) * y - jnp.sin(array[4]) * x
    edges = array[2] + u, array[2] - u, array[3] + v, array[3] - v
    mask = jnp.prod(jnp.stack([jax.nn.sigmoid(sharpness * e) for e in edges]), 0)
    return features * (floor + (1 - floor) * mask)[..., None]


def loss_of(gated):
    return jnp.sum(jnp.sin(gated))


def ours(features, array, sharpness):
    rectangle = Rectangle.from_array(array)
    return loss_of(gate(features, rectangle, sharpness=sharpness, floor=0.1))


def plain(features, array, sharpness):
    return loss_of(plain_gate(features, array, sharpness, 0.1))


def values(shape=(6, 5, 4), dtype=jnp.float32):
    return jax.random.normal(jax.random.key(0), shape, dtype)


def test_gradients_agree_with_plain_autodiff_at_every_edge_case():
    features = values()
    arrays = jnp.array(list(EDGE_CASES.values()), jnp.float32)
    gradients, expected = (
        jax.jit(jax.vmap(jax.grad(f, (0, 1, 2)), (None, 0, None)))(
            features, arrays, 7.0
        )
        for f in (ours, plain)
    )
    jax.tree.map(assert_close, gradients, expected)  # 1e-5 in float32


def test_gradients_agree_with_finite_differences_at_every_edge_case(x64):
    features = values(dtype=jnp.float64)
    arrays = jnp.array(list(EDGE_CASES.values()), jnp.float64)
    value = jax.jit(lambda array: ours(features, array, 7.0))
    gradients = jax.jit(jax.vmap(jax.grad(value)))(arrays)
    for name, array, gradient in zip(EDGE_CASES, arrays, gradients, strict=True):
        expected = finite_difference_gradient(value, array)
        np.testing.assert_allclose(gradient, expected, atol=1e-8, err_msg=name)


def test_forward_mode_is_the_transpose_of_reverse_mode_and_hessians_agree(x64):
    features = values(dtype=jnp.float64)
    array = jnp.array(EDGE_CASES["plain"])
    direction = jnp.array([0.3, -0.2, 0.5, 0.1, 0.7])

    @jax.jit
    def value(array):
        return ours(features, array, 7.0)

    _, slope = jax.jvp(value, (array,), (direction,))
    assert_close(slope, jax.jit(jax.grad(value))(array) @ direction)
    expected = jax.jit(jax.hessian(lambda array: plain(features, array, 7.0)))(array)
    for hessian in (jax.hessian(value), jax.jacfwd(jax.jacfwd(value))):
        assert_close(jax.jit(hessian)(array), expected)


def test_a_batch_sharded_over_devices_has_the_same_gradients():
    devices = jax.devices()
    features = values((8, 6, 5, 4))
    arrays = jnp.tile(jnp.array(EDGE_CASES["plain"], jnp.float32), (8, 1))

    def total(features, arrays):
        rectangle = Rectangle.from_array(arrays)
        return loss_of(gate(features, rectangle, sharpness=7.0))

    gradient = jax.jit(jax.grad(total, (0, 1)))
    expected = gradient(features, arrays)
    mesh = Mesh(np.array(devices), ("batch",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    placed = jax.device_put((features, arrays), sharding)
    actual = gradient(*placed)
    jax.tree.map(assert_close, actual, expected)
    assert actual[0].sharding.is_equivalent_to(sharding, 4)


@pytest.mark.parametrize("sharpness", [1e-6, 200.0, 1e6])
def test_saturated_edges_have_finite_derivatives(sharpness):
    arrays = jnp.array(list(EDGE_CASES.values()), jnp.float32)

    def total(array):
        rectangle = Rectangle.from_array(array)
        return render_mask(rectangle, 6, 5, sharpness=sharpness).sum()

    assert_tree_finite(jax.jit(jax.vmap(jax.jacfwd(jax.grad(total))))(arrays))


@pytest.mark.parametrize("shape", [(4, 28, 28, 64), (2, 16, 16, 8)])
def test_gradient_needs_no_more_memory_than_plain_autodiff(shape):
    features = jax.ShapeDtypeStruct(shape, jnp.float32)
    arrays = jax.ShapeDtypeStruct((shape[0], 5), jnp.float32)

    def temporary_bytes(one):
        def total(features, arrays):
            gated = jax.vmap(one, (0, 0))(features, arrays)
            return jnp.sum(gated * gated)

        compiled = jax.jit(jax.grad(total, (0, 1))).lower(features, arrays).compile()
        memory = compiled.memory_analysis()
        assert memory is not None
        return memory.temp_size_in_bytes

    mine = temporary_bytes(
        lambda f, a: gate(f, Rectangle.from_array(a), sharpness=7.0, floor=0.1)
    )
    assert mine <= temporary_bytes(lambda f, a: plain_gate(f, a, 7.0, 0.1))
