import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from cram_jax.attention.evidence import attended_rectangles, sharpness_schedule
from cram_jax.attention.predictors import MomentPredictor, RegressionPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import relative_sharpness, render_mask
from tests.checks import assert_close, assert_tree_finite

PREDICTORS = [MomentPredictor, RegressionPredictor]
SHAPES = [(2, 13, 17, 3), (1, 1, 1, 5), (11, 7, 2), (2, 3, 5, 4, 2)]


class Block(nn.Module):
    @nn.compact
    def __call__(self, features, *, train=False):
        return RectangularAttention(sharpness=5.0, name="inner")(features, train=train)


class TwoLayers(nn.Module):
    """A network with one CRAM layer at the root and one in a block."""

    @nn.compact
    def __call__(self, features, *, train=False):
        features = RectangularAttention(name="attention")(features, train=train)
        return Block(name="block")(features, train=train)


def initialised(layer, features):
    return {"params": jax.jit(layer.init)(jax.random.key(1), features)["params"]}


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_looks_nearly_everywhere_at_first_and_keeps_shape_and_dtype(
    predictor, shape, dtype
):
    features = jax.random.normal(jax.random.key(0), shape, dtype)
    layer = RectangularAttention(predictor=predictor)
    variables = initialised(layer, features)

    def loss(params, features):
        gated, state = layer.apply(
            {"params": params}, features, mutable=["intermediates"]
        )
        return jnp.sum(gated.astype(jnp.float32) ** 2), (gated, state)

    gradients, (gated, state) = jax.jit(jax.grad(loss, (0, 1), has_aux=True))(
        variables["params"], features
    )
    assert gated.shape == shape
    assert gated.dtype == dtype
    (mask,) = state["intermediates"]["mask"]
    assert mask.shape == shape[:-1]
    assert (np.asarray(mask).mean((-2, -1)) >= 0.9).all()
    assert_tree_finite(gradients)


def test_call_is_the_gate_by_the_located_rectangle():
    features = jax.random.normal(jax.random.key(0), (2, 13, 17, 3))
    layer = RectangularAttention(sharpness=6.0, floor=0.25)
    variables = initialised(layer, features)
    rectangle: Any = layer.apply(variables, features, method="locate")
    gated, state = layer.apply(variables, features, mutable=["intermediates"])
    sharpness = relative_sharpness(rectangle, 6.0)
    mask = render_mask(rectangle, 13, 17, sharpness=sharpness)
    assert_close(gated, np.asarray(features) * (0.25 + 0.75 * mask)[..., None])
    (sown,) = state["intermediates"]["rectangle"]
    assert isinstance(sown, Rectangle)
    assert_close(sown.as_array(), rectangle.as_array())


def test_rectangles_by_module_path():
    features = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    network = TwoLayers()
    variables = initialised(network, features)
    _, state = network.apply(variables, features, mutable=["intermediates"])
    rectangles = attended_rectangles(state)
    assert list(rectangles) == ["attention", "block/inner"]
    assert rectangles["block/inner"].angle.shape == (2,)
    assert attended_rectangles(state["intermediates"]).keys() == rectangles.keys()


def test_scheduled_sharpness_takes_the_place_of_the_field():
    features = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    network = TwoLayers()
    variables = initialised(network, features)

    @jax.jit
    @chex.assert_max_traces(1)
    def masks(sharpness):
        schedule = sharpness_schedule(["attention", "block/inner"], sharpness)
        _, state = network.apply(
            {**variables, **schedule}, features, mutable=["intermediates"]
        )
        intermediates = state["intermediates"]
        return intermediates["attention"]["mask"][0], attended_rectangles(state)

    for sharpness in (2.0, 20.0):
        mask, rectangles = masks(sharpness)
        own = relative_sharpness(rectangles["attention"], sharpness)
        expected = render_mask(rectangles["attention"], 8, 8, sharpness=own)
        assert_close(mask, expected)


def test_schedule_of_a_layer_that_is_the_root():
    features = jnp.ones((4, 4, 2))
    layer = RectangularAttention()
    variables = {**initialised(layer, features), **sharpness_schedule([""], 1.0)}
    gated = np.asarray(layer.apply(variables, features))
    assert float(gated.mean()) < 0.9  # a very soft mask


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_vmap_and_remat_change_nothing(predictor):
    features = jax.random.normal(jax.random.key(0), (3, 6, 5, 2))
    layer = RectangularAttention(predictor=predictor)
    variables = initialised(layer, features)
    expected = layer.apply(variables, features)
    one_by_one = jax.jit(jax.vmap(functools.partial(layer.apply, variables)))(features)
    assert_close(one_by_one, expected)

    def loss(module, features):
        return jnp.sum(module.apply(variables, features) ** 2)

    remat = nn.remat(RectangularAttention)(predictor=predictor)
    assert_close(
        jax.jit(jax.grad(functools.partial(loss, remat)))(features),
        jax.jit(jax.grad(functools.partial(loss, layer)))(features),
    )


def test_param_dtype_reaches_every_parameter():
    layer = RectangularAttention(param_dtype=jnp.bfloat16)
    variables = initialised(layer, jnp.ones((6, 6, 2)))
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
        jnp.dtype(jnp.bfloat16)
    }


def test_tabulate_names_the_predictor():
    wide = {"width": 200, "force_terminal": False}
    table = nn.tabulate(RectangularAttention(), jax.random.key(0), console_kwargs=wide)(
        jnp.ones((2, 8, 8, 3))
    )
    assert "mask_predictor/trunk" in table


def test_wrapped_by_nnx():
    features = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    for layer in (RectangularAttention(), TwoLayers()):
        wrapped = nnx.bridge.ToNNX(layer, rngs=nnx.Rngs(0))
        wrapped.lazy_init(features)
        nnx.pop(wrapped, nnx.Intermediate)  # what the initialisation saw
        gated = wrapped(features, mutable=["intermediates"])
        assert gated.shape == features.shape
        sown = nnx.pop(wrapped, nnx.Intermediate)
        rectangles = attended_rectangles(nnx.to_pure_dict(sown))
        assert "" in rectangles or list(rectangles) == ["attention", "block/inner"]
        for rectangle in rectangles.values():
            assert rectangle.angle.shape == (2,)


@pytest.mark.parametrize(
    ("layer", "features", "message"),
    [
        (RectangularAttention(), jnp.zeros((4, 4)), r"channels last.*\(4, 4\)"),
        (RectangularAttention(), jnp.zeros((4, 4, 3), jnp.int32), "int32"),
        (RectangularAttention(sharpness=0), jnp.zeros((4, 4, 3)), "positive, got 0"),
        (RectangularAttention(floor=-0.1), jnp.zeros((4, 4, 3)), r"got -0\.1"),
        (
            RectangularAttention(
                predictor=functools.partial(
                    RegressionPredictor, min_half_size=1.0, max_half_size=0.5
                )
            ),
            jnp.zeros((4, 4, 3)),
            r"min_half_size=1\.0 and max_half_size=0\.5",
        ),
    ],
)
def test_bad_input_is_refused_in_one_sentence(layer, features, message):
    with pytest.raises(ValueError, match=message):
        layer.init(jax.random.key(0), features)


def test_bad_schedule_is_refused():
    with pytest.raises(ValueError, match="positive"):
        sharpness_schedule(["attention"], -1.0)
