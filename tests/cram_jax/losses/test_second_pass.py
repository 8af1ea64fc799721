"""The outside view from which the mask alone learns: values, gradients, cost."""

import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import cram_jax
from cram_jax import RectangularAttention, apply_with_outside, outside_loss
from cram_jax.backbones import backbone
from tests.checks import assert_close, finite_difference_gradient
from tests.cram_jax.losses.test_outside import MUTABLE, NETWORKS, build, by_hand

held = functools.partial(apply_with_outside, mask_only=True)


@pytest.mark.parametrize(("name", "stages", "settings", "train"), NETWORKS[1::3])
def test_both_ways_to_look_from_outside_show_the_same(name, stages, settings, train):
    network, variables, images = build(name, stages, **settings)
    options = {"train": train, "mutable": MUTABLE}
    expected = jax.jit(functools.partial(network.apply, **options))(variables, images)
    output, outside, updates = jax.jit(functools.partial(held, network, **options))(
        variables, images
    )
    assert_close(output, expected[0], atol=1e-5)
    chex.assert_trees_all_equal_structs(updates, expected[1])
    jax.tree.map(functools.partial(assert_close, atol=1e-5), updates, expected[1])
    assert set(outside) == set(cram_jax.attended_masks(updates))
    for path, view in outside.items():
        exchanged = by_hand(network, variables, images, path, train=train)
        assert np.abs(exchanged - output).max() > 1e-2, "the same: no proof"
        assert_close(view, exchanged, atol=2e-4, rtol=2e-4)


@functools.partial(jax.jit, static_argnums=0)
def outside_gradient(network, variables, images, train=False):
    def loss(params):
        outside = held(
            network,
            variables | {"params": params},
            images,
            train=True,
            mutable=["batch_stats"],
        )[1]
        return outside_loss(outside).sum()

    return jax.grad(loss)(variables["params"])


def size(tree) -> float:
    return max(float(np.abs(leaf).max()) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize("layer", ["rectangular, mean", "rectangular, floor", "trunk"])
def test_what_lies_behind_the_layer_learns_exactly_nothing(layer):
    network, variables, images = build(layer=layer, stages=(2,))
    gradient = outside_gradient(network, variables, images)
    before = {name for name in gradient if name.startswith(("stage1", "stage2"))}
    behind = set(gradient) - before - {"attention2"}
    assert before
    assert any(name.startswith("stage3") for name in behind)
    assert "head" in behind
    assert size({name: gradient[name] for name in behind}) == 0
    assert size(gradient["attention2"]) > 1e-4
    assert size({name: gradient[name] for name in before}) > 1e-6


def test_what_lies_before_the_layer_learns_through_its_mask_only():
    network, variables, images = build(layer="positionwise", stages=(2,))
    predictor = variables["params"]["attention2"]["mask_predictor"]
    # The mask no longer depends on the features.
    blind = predictor | {"kernel": jnp.zeros_like(predictor["kernel"])}
    params = variables["params"] | {"attention2": {"mask_predictor": blind}}
    gradient = outside_gradient(network, variables | {"params": params}, images)
    own = gradient.pop("attention2")
    assert size(own) > 1e-4
    assert size(gradient) == 0


def test_a_layer_learns_nothing_from_what_lies_outside_another():
    network, variables, images = build(stages=(1, 3))

    def loss(params):
        views = held(network, variables | {"params": params}, images)[1]
        return outside_loss({"attention1": views["attention1"]}).sum()

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    assert size(gradient["attention1"]) > 1e-4
    assert size(gradient["attention3"]) == 0


def test_the_layers_own_gradient_equals_finite_differences():
    with jax.enable_x64(True):
        # The rectangle's predictor computes in float32.
        network, variables, images = build(layer="positionwise")
        variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)
        images = images.astype(jnp.float64)
        attention = variables["params"]["attention2"]["mask_predictor"]
        kernel = attention["kernel"]

        @jax.jit
        def value(entries):
            new = kernel.ravel().at[:6].set(entries).reshape(kernel.shape)
            new = {"mask_predictor": {**attention, "kernel": new}}
            params = variables["params"] | {"attention2": new}
            # In evaluation: BatchNorm's statistics are no constants in training.
            views = held(network, variables | {"params": params}, images)[1]
            return outside_loss(views).sum()

        entries = kernel.ravel()[:6]
        expected = finite_difference_gradient(value, entries)
        assert np.abs(expected).max() > 1e-5
        assert_close(jax.grad(value)(entries), expected, atol=1e-7)


def test_eight_devices_agree_with_one():
    network, variables, _ = build(stages=(1, 3))
    images = jax.random.normal(jax.random.key(5), (16, 32, 32, 3))

    def gradient(params, images, network=network):
        def loss(params):
            variables_now = variables | {"params": params}
            logits, outside, _ = held(
                network, variables_now, images, train=True, mutable=["batch_stats"]
            )
            own = -jax.nn.log_softmax(logits)[:, 0]
            return jnp.sum(own + outside_loss(outside)) / 16

        return jax.grad(loss)(params)

    params = variables["params"]
    expected = jax.jit(gradient)(params, images)
    close = functools.partial(assert_close, atol=1e-5)
    mesh = Mesh(jax.devices(), ("batch",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(images, NamedSharding(mesh, P("batch")))
    jax.tree.map(close, jax.jit(gradient)(params, placed), expected)
    parallel = network.clone(axis_name="batch")

    def on_each(params, images):
        return jax.lax.psum(gradient(params, images, parallel), "batch")

    update = jax.pmap(on_each, "batch", in_axes=(None, 0), out_axes=None)
    jax.tree.map(close, update(params, images.reshape(8, 2, 32, 32, 3)), expected)


def test_only_what_lies_behind_the_layer_is_computed_twice():
    network, variables, images = build(stages=(3,))

    def flops(apply):
        compiled = jax.jit(functools.partial(apply, network)).lower(variables, images)
        return (compiled.compile().cost_analysis() or {})["flops"]

    plain = flops(lambda network, *rest: network.apply(*rest))
    assert flops(held) < 1.1 * plain
    assert flops(held) < 1.02 * flops(apply_with_outside)


def test_a_gate_under_a_lifted_transformation_and_the_switch():
    class Block(nn.Module):
        @nn.compact
        def __call__(self, maps):
            maps = RectangularAttention(name="attention")(nn.Conv(4, (3, 3))(maps))
            return nn.Conv(4, (3, 3))(maps)

    class Network(nn.Module):
        lift: bool

        @nn.compact
        def __call__(self, images):
            block = nn.remat(Block) if self.lift else Block
            return nn.Dense(3)(block(name="block")(images).mean((1, 2)))

    images = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    variables = Network(lift=False).init(jax.random.key(1), images)
    lifted, plain = (held(Network(lift=x), variables, images) for x in (True, False))
    jax.tree.map(assert_close, lifted, plain)
    with jax.checking_leaks():
        off = jax.jit(lambda on: held(Network(lift=True), variables, images, on=on))
        assert size(off(jnp.array(False))[1]) == 0
    assert size(held(Network(lift=True), variables, images, on=False)[1]) == 0
    gradient = jax.grad(
        lambda v: outside_loss(held(Network(lift=True), v, images)[1]).sum()
    )(variables)["params"]
    assert size(gradient["Dense_0"]) == 0
    assert size(gradient["block"]["Conv_1"]) == 0
    assert size(gradient["block"]["attention"]) > 0


def test_a_network_without_a_gate_is_refused():
    network = backbone("convnet")(3)
    images = jnp.zeros((2, 16, 16, 3))
    variables = network.init(jax.random.key(0), images)
    with pytest.raises(ValueError, match="ConvNet has no layer that gates"):
        held(network, variables, images)


@pytest.mark.parametrize(
    ("layer", "views"),
    [("rectangular, mean", None), ("trunk", False), ("cbam", True)],
)
def test_opened_examples_pass_whole_and_show_their_own_masks(layer, views):
    network, variables, images = build(layer=layer, stages=(1, 3))
    paths, opened = ("attention1", "attention3"), jnp.array([True, False, True])
    collection = cram_jax.mask_dropout_schedule(paths, opened)
    apply = type(network).apply
    if views is not None:
        apply = functools.partial(apply_with_outside, mask_only=views)
    result = apply(network, variables | collection, images, mutable=["intermediates"])
    plain = network.apply(variables, images, mutable=["intermediates"])
    shown, masks = (cram_jax.attended_masks(each[-1]) for each in (result, plain))
    assert_close(shown["attention1"], masks["attention1"], atol=1e-6)
    assert_close(result[0][1], plain[0][1], atol=1e-5)

    def open_gates(call, args, kwargs, context):
        module = context.module
        if isinstance(module, cram_jax.Gate) and context.method_name == "__call__":
            return args[0]
        return call(*args, **kwargs)

    with nn.intercept_methods(open_gates):
        bare = network.apply(variables, images)
    assert np.abs(bare - plain[0]).max() > 1e-3, "masks without effect prove nothing"
    assert_close(result[0][::2], bare[::2], atol=1e-5)
