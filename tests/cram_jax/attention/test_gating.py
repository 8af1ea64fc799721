"""The gate, its complement and its fillings; masks by layer."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cram_jax
from cram_jax import CBAM, Gate, PositionwiseAttention, Rectangle, RectangularAttention
from cram_jax.attention.gate import add_view, first_view, follow_views
from tests.checks import (
    assert_close,
    assert_tree_finite,
    finite_difference_gradient,
    tolerance,
)

SHAPE = (2, 5, 7, 3)
FLOORS = [0.0, 0.25]


def draw(dtype: Any = np.float32, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(1.0, 1.0, SHAPE).astype(dtype)
    return features, rng.uniform(0, 1, SHAPE[:-1]).astype(dtype)


def oracle(features, opening, fill):
    """Blends position by position, in float64."""
    features = np.asarray(features, np.float64)
    result = np.zeros_like(features)
    for b in range(features.shape[0]):
        mean = features[b].reshape(-1, features.shape[-1]).mean(0)
        filling = mean if fill == "mean" else 0 * mean
        for y in range(features.shape[1]):
            for x in range(features.shape[2]):
                share = opening[b, y, x]
                result[b, y, x] = share * features[b, y, x] + (1 - share) * filling
    return result


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_gate_and_complement_equal_numpy(fill, floor, dtype):
    features, mask = draw()
    given = jnp.asarray(features, dtype)
    gate: Any = Gate(floor, fill)
    opening = floor + (1 - floor) * np.asarray(mask, np.float64)
    through = gate.apply({}, given, mask)
    held_back = gate.apply({}, given, mask, method="complement")
    assert through.dtype == held_back.dtype == dtype
    features = np.asarray(given, np.float64)
    atol = 2 * tolerance(dtype)
    assert_close(through, oracle(features, opening, fill), atol=atol)
    assert_close(held_back, oracle(features, 1 - opening, fill), atol=atol)
    if fill == "zero" and dtype == jnp.float32:
        assert_close(through + held_back, features)


@pytest.mark.parametrize("floor", FLOORS)
@pytest.mark.parametrize("fill", ["zero", "mean"])
def test_gradients_equal_finite_differences(fill, floor, x64):
    features, mask = draw(np.float64)
    weights = np.random.default_rng(1).normal(size=SHAPE)
    gate: Any = Gate(floor, fill)

    def value(features, mask, method):
        result = gate.apply({}, jnp.asarray(features), jnp.asarray(mask), method=method)
        return jnp.sum(weights * result**2)

    for method in ("__call__", "complement"):
        both = jax.grad(value, (0, 1))(features, mask, method)
        by_features = finite_difference_gradient(
            lambda f, method=method: value(f, mask, method), features
        )
        by_mask = finite_difference_gradient(
            lambda m, method=method: value(features, m, method), mask
        )
        assert_close(both[0], by_features, atol=1e-5)
        assert_close(both[1], by_mask, atol=1e-5)


@pytest.mark.parametrize("mask", [0.0, 1.0])
def test_the_ends_of_a_filling(mask):
    features, _ = draw()
    masks = jnp.full(SHAPE[:-1], mask)
    filled = cram_jax.apply_mask(jnp.asarray(features), masks, fill="mean")
    mean = np.broadcast_to(features.mean((1, 2), keepdims=True), SHAPE)
    assert_close(filled, features if mask else mean, atol=1e-6)
    # Of one pixel, of a constant map: the mean is the map.
    pixel = jnp.full((1, 1, 1, 2), 3.0)
    assert_close(cram_jax.apply_mask(pixel, masks[:1, :1, :1], fill="mean"), pixel)


def test_zero_filling_is_the_product_bit_for_bit():
    features, mask = draw()
    layer_like = jax.jit(lambda f, m: Gate().apply({}, f, m))(features, mask)
    product = jax.jit(lambda f, m: f * (0.0 + (1 - 0.0) * m)[..., None])
    assert (layer_like == product(features, mask)).all()


@pytest.mark.parametrize("layer", [RectangularAttention, PositionwiseAttention])
def test_layers_fill_with_the_mean(layer):
    features = jax.random.normal(jax.random.key(0), (2, 9, 7, 16)) + 1
    variables = layer().init(jax.random.key(1), features)
    chex.assert_trees_all_equal_structs(
        variables, layer(fill="mean").init(jax.random.key(1), features)
    )
    filled, shown = layer(fill="mean").apply(
        variables, features, mutable=["intermediates"]
    )
    mask = np.asarray(cram_jax.attended_masks(shown)[""], np.float64)
    assert_close(filled, oracle(features, mask, "mean"), atol=1e-5)
    again = jax.vmap(lambda one: layer(fill="mean").apply(variables, one))(features)
    assert_close(again, filled)


def test_gating_by_a_rectangle_fills_with_the_mean():
    features, _ = draw()
    rectangle = Rectangle.from_array(jnp.array([[0.1, 0.2, 0.4, 0.3, 0.5]] * 2))
    mask = cram_jax.render_mask(rectangle, *SHAPE[1:3], sharpness=9.0)
    opening = 0.2 + 0.8 * np.asarray(mask, np.float64)
    actual = cram_jax.gate(
        jnp.asarray(features), rectangle, sharpness=9.0, floor=0.2, fill="mean"
    )
    assert_close(actual, oracle(features, opening, "mean"), atol=1e-5)


def test_finite_gradients_for_huge_and_constant_half_floats():
    features = jnp.full((1, 64, 64, 4), 6e4, jnp.float16)
    mask = jnp.zeros((1, 64, 64))

    def value(features, mask):
        filled = cram_jax.apply_mask(features, mask, fill="mean")
        return jnp.mean(filled.astype(jnp.float32))

    assert_tree_finite(jax.value_and_grad(value, (0, 1))(features, mask))


@pytest.mark.parametrize("layer", [RectangularAttention, PositionwiseAttention])
def test_an_unknown_filling_is_refused(layer):
    with pytest.raises(
        ValueError, match=r"Unknown fill 'median'.*'zero' or the 'mean'"
    ):
        layer(fill="median").init(jax.random.key(0), jnp.zeros((1, 4, 4, 2)))
    with pytest.raises(ValueError, match="fill 'median'"):
        cram_jax.apply_mask(jnp.zeros((4, 4, 2)), jnp.zeros((4, 4)), fill="median")


def test_views_come_and_go_example_by_example():
    features = jnp.arange(6.0).reshape(3, 2)
    two = add_view(features, features + 10)
    assert two.tolist() == [[0, 1], [10, 11], [2, 3], [12, 13], [4, 5], [14, 15]]
    assert (first_view(two, 3) == features).all()
    assert follow_views(features, features) is features
    assert (follow_views(features, two) == add_view(features, features)).all()
    three = add_view(two, features + 20)
    assert (follow_views(two, three) == add_view(two, features)).all()


def test_masks_by_layer():
    features = jax.random.normal(jax.random.key(0), (2, 6, 5, 16))
    for layer in (RectangularAttention(), PositionwiseAttention(), CBAM()):
        variables = layer.init(jax.random.key(0), features)
        _, shown = layer.apply(variables, features, mutable=["intermediates"])
        for given in (shown, shown["intermediates"]):
            masks = cram_jax.attended_masks(given)
            assert list(masks) == [""]
            assert masks[""].shape == (2, 6, 5)
    assert cram_jax.attended_masks({"intermediates": {}}) == {}
