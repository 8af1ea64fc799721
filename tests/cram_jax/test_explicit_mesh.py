"""A batch spread over a mesh: Explicit axes (the default), Auto axes, shard_map."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import cram_jax
from cram_jax.attention.registry import ATTENTIONS
from cram_jax.backbones import BACKBONES
from tests.checks import assert_close
from tests.cram_jax.test_settings import NETWORKS, SMALL

LAYERS = [name for name, make in ATTENTIONS.items() if make is not None]
DEVICES = 4


def mesh_of(kind):
    devices = jax.devices()[:DEVICES]
    if len(devices) < DEVICES:
        pytest.skip("needs four devices")
    types = {} if kind == "default" else {"axis_types": (kind,)}
    return jax.make_mesh((DEVICES,), ("batch",), devices=devices, **types)


def placed(mesh, tree, spec):
    return jax.device_put(tree, NamedSharding(mesh, spec))


def both(module, train=False):
    """Output, and gradients with respect to parameters and input."""

    def loss(variables, x):
        out = module.apply(variables, x, train=train, mutable=["batch_stats"])[0]
        return jnp.mean(out**2), out

    def run(variables, x):
        gradients, out = jax.grad(loss, (0, 1), has_aux=True)(variables, x)
        return out, gradients

    return run


@functools.cache
def layer_case(name):
    x = jax.random.normal(jax.random.key(0), (DEVICES, 15, 13, 8))
    module = ATTENTIONS[name]()
    variables = jax.jit(module.init)(jax.random.key(1), x)
    return module, variables, x, jax.jit(both(module))(variables, x)


def assert_same(actual, expected):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        scale = max(float(jnp.abs(e).max()), 1e-3)
        assert_close(a, e, atol=2e-5 * scale, rtol=1e-3)


@pytest.mark.parametrize("kind", ["default", AxisType.Explicit, AxisType.Auto])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_give_what_they_give_on_one_device(name, kind):
    module, variables, x, expected = layer_case(name)
    mesh = mesh_of(kind)
    with jax.set_mesh(mesh):
        spread = placed(mesh, x, P("batch"))
        actual = jax.jit(both(module))(placed(mesh, variables, P()), spread)
        out, (_, slopes) = actual
        assert out.sharding.is_equivalent_to(spread.sharding, out.ndim)
        assert slopes.sharding.is_equivalent_to(spread.sharding, out.ndim)
    assert_same(actual, expected)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_in_shard_map(name):
    module, variables, x, (expected, _) = layer_case(name)
    mesh = mesh_of("default")
    run = jax.shard_map(
        module.apply, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P("batch")
    )
    actual = jax.jit(run)(placed(mesh, variables, P()), placed(mesh, x, P("batch")))
    assert_same(actual, expected)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_trace_forward_and_backward(name):
    mesh = mesh_of("default")
    layer = cram_jax.RectangularAttention
    make = functools.partial(BACKBONES[name], **SMALL.get(name, {}))
    module = make(5, attention=layer, attention_stages=(1,))
    x = jax.ShapeDtypeStruct((DEVICES, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)

    def spec(leaf, spec):
        sharding = NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    with jax.set_mesh(mesh):
        variables = jax.tree.map(lambda leaf: spec(leaf, P()), variables)
        run = jax.jit(both(module, train=True))
        out, (_, slopes) = jax.eval_shape(run, variables, spec(x, P("batch")))
    assert out.sharding.spec[0] == "batch"
    assert slopes.sharding.spec[0] == "batch"


@pytest.mark.parametrize("name", SMALL)
def test_small_networks_give_what_they_give_on_one_device(name):
    module = BACKBONES[name](5, **SMALL[name])
    x = jax.random.normal(jax.random.key(0), (DEVICES, 16, 24, 3))
    variables = jax.jit(module.init)(jax.random.key(1), x)
    expected = jax.jit(both(module, True))(variables, x)
    mesh = mesh_of("default")
    with jax.set_mesh(mesh):
        spread = placed(mesh, x, P("batch"))
        actual = jax.jit(both(module, True))(placed(mesh, variables, P()), spread)
    assert actual[0].sharding.spec[0] == "batch"
    assert_same(actual, expected)


def test_geometry_of_a_batch_spread_over_a_mesh():
    mesh = mesh_of("default")
    draw = np.random.default_rng(0).uniform(0.2, 0.8, (2, DEVICES, 5))
    array = jnp.asarray(draw, jnp.float32)
    images = jax.random.uniform(jax.random.key(2), (DEVICES, 6, 5, 2))

    def everything(array, images):
        a, b = (cram_jax.Rectangle.from_array(one) for one in array)
        motion = cram_jax.Similarity(a.angle, 1.0 + a.half_width, b.center_x)
        return {
            "iou": cram_jax.rotated_iou(a, b),
            "corners": cram_jax.rectangle_distance(a, b, metric="corners"),
            "gaussian": cram_jax.rectangle_distance(a, b),
            "gate": cram_jax.gate(images, a, sharpness=9.0),
            "moved": cram_jax.transform_rectangle(motion, a),
            "warped": cram_jax.warp_image(motion, images),
        }

    expected = jax.jit(everything)(array, images)
    with jax.set_mesh(mesh):
        spread = placed(mesh, array, P(None, "batch")), placed(mesh, images, P("batch"))
        actual = jax.jit(everything)(*spread)
    assert_same(actual, expected)
    for leaf in jax.tree.leaves(actual):
        assert leaf.sharding.spec[0] == "batch"
