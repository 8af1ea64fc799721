"""The outside view: against networks whose gate was exchanged by hand.

The witness builds the same network with a layer that multiplies by the complement, in
one slot, and applies it to the whole batch by itself: no views, no interceptor.
"""

import functools
from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import cram_jax
from cram_jax import (
    CBAM,
    PositionwiseAttention,
    RectangularAttention,
    SqueezeExcite,
    apply_with_outside,
    outside_loss,
)
from cram_jax.backbones import backbone
from cram_jax.losses import ignorance_loss
from tests import compilation
from tests.checks import assert_close, assert_tree_finite, finite_difference_gradient

MUTABLE = ("batch_stats", "intermediates")
NETWORKS = [
    ("convnet", (2,), {}, False),
    ("convnet", (1, 3), {}, True),
    ("resnet18-small", (3,), {}, False),
    ("resnet18-small", (2, 3), {"attention_in_blocks": True}, True),
    ("mobilenetv3-small", (2,), {}, False),
    ("convnext-tiny", (1, 2), {}, False),
]
LAYERS = {
    "rectangular": RectangularAttention,
    "rectangular, mean": functools.partial(RectangularAttention, fill="mean"),
    "rectangular, floor": functools.partial(RectangularAttention, floor=0.2),
    "positionwise": PositionwiseAttention,
    "positionwise, mean": functools.partial(PositionwiseAttention, fill="mean"),
    "trunk": functools.partial(PositionwiseAttention, form="trunk"),
    "cbam": CBAM,
}


def build(name="convnet", stages=(2,), layer="rectangular", **settings):
    make = backbone(name)
    if name.startswith("resnet18"):
        make = functools.partial(make, depths=(1, 1, 1))
    if name == "convnet":
        settings = {"widths": (8, 8, 16), "convolutions": (1, 1, 1), **settings}
    if name == "convnext-tiny":
        settings = {"depths": (1, 1), "widths": (8, 16), **settings}
    if name == "mobilenetv3-small":
        make = functools.partial(make, groups=make.keywords["groups"][:2])
    network = make(5, attention=LAYERS[layer], attention_stages=stages, **settings)
    images = jax.random.normal(jax.random.key(0), (3, 32, 32, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(1), images)
    rng = np.random.default_rng(2)

    def draw(path, leaf):
        # Nothing is 0 or 1, so that no branch, gate or statistic is without effect.
        if leaf.ndim > 1:
            fan_in = np.prod(leaf.shape[:-1])
            return jnp.asarray(rng.normal(0, fan_in**-0.5, leaf.shape), jnp.float32)
        return jnp.asarray(rng.uniform(0.3, 1.0, leaf.shape), jnp.float32)

    kept = {k: v for k, v in shapes.items() if k in ("params", "batch_stats")}
    return network, jax.tree_util.tree_map_with_path(draw, kept), images


def by_hand(network, variables, images, turned, *, train):
    """The network with one layer's gate exchanged for its complement."""

    def exchange(call, args, kwargs, context):
        module = context.module
        path = "/".join(module.path[:-1])
        gates = isinstance(module, cram_jax.Gate) and path == turned
        if gates and context.method_name == "__call__":
            features, mask = args
            opening = 1 - (module.floor + (1 - module.floor) * mask)
            opening = opening[..., None]
            mean = features.mean((-3, -2), keepdims=True)
            filling = (1 - opening) * mean if module.fill == "mean" else 0
            return features * opening + filling
        # BatchNorm as the ordinary pass left it.
        if train and isinstance(module, nn.BatchNorm):
            return normalise(module, *args)
        return call(*args, **kwargs)

    statistics = {}
    if train:
        statistics = ordinary_statistics(network, variables, images)

    def normalise(module, features):
        mean, variance = statistics["/".join(module.path)]
        own = module.variables["params"]
        scaled = (features - mean) / jnp.sqrt(variance + module.epsilon)
        return scaled * own["scale"] + own["bias"]

    def apply(variables, images):
        with nn.intercept_methods(exchange):
            return network.apply(variables, images)

    return jax.jit(apply)(variables, images)


def ordinary_statistics(network, variables, images):
    """Mean and variance that each BatchNorm measures in the ordinary training pass."""
    found = {}

    def listen(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(
            context.module, nn.BatchNorm
        ):
            axes = tuple(range(args[0].ndim - 1))
            found["/".join(context.module.path)] = (
                args[0].mean(axes),
                args[0].var(axes),
            )
        return call(*args, **kwargs)

    with nn.intercept_methods(listen):
        network.apply(variables, images, train=True, mutable=["batch_stats"])
    return found


@pytest.mark.parametrize(("name", "stages", "settings", "train"), NETWORKS)
def test_outside_is_the_network_with_its_gate_exchanged(name, stages, settings, train):
    network, variables, images = build(name, stages, **settings)
    options = {"train": train, "mutable": MUTABLE}
    plain, plain_updates = jax.jit(functools.partial(network.apply, **options))(
        variables, images
    )
    logits, outside, updates = jax.jit(
        functools.partial(apply_with_outside, network, **options)
    )(variables, images)
    assert_close(logits, plain, atol=1e-4)
    chex.assert_trees_all_equal_structs(updates, plain_updates)
    jax.tree.map(
        functools.partial(assert_close, atol=1e-4, rtol=1e-4), updates, plain_updates
    )
    masks = cram_jax.attended_masks(plain_updates)
    assert set(outside) == set(masks)
    for path, view in outside.items():
        expected = by_hand(network, variables, images, path, train=train)
        assert np.abs(expected - plain).max() > 1e-2, "the same from outside: no proof"
        assert_close(view, expected, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("layer", LAYERS)
def test_every_kind_of_layer_has_an_outside(layer):
    network, variables, images = build(layer=layer)
    logits, outside = apply_with_outside(network, variables, images)
    assert_close(logits, network.apply(variables, images), atol=1e-5)
    expected = by_hand(network, variables, images, "attention2", train=False)
    assert_close(outside["attention2"], expected, atol=1e-5)


def test_an_open_mask_leaves_nothing_outside():
    network, variables, images = build()
    wide = {"schedule": {"attention2": {"sharpness": jnp.float32(1e3)}}}
    heat = variables["params"]["attention2"]["mask_predictor"]
    opened = jax.tree.map(jnp.zeros_like, heat)
    params = variables["params"] | {"attention2": {"mask_predictor": opened}}
    variables = variables | {"params": params} | wide
    _, outside, shown = apply_with_outside(
        network, variables, images, mutable=["intermediates"]
    )
    masks = cram_jax.attended_masks(shown)["attention2"]
    assert (masks > 0.999).all()
    # All images look alike from outside.
    assert_close(
        outside["attention2"], outside["attention2"][:1].repeat(3, 0), atol=1e-2
    )


def test_maps_of_all_stages_have_their_views_too():
    network, variables, images = build(stages=(2,))
    maps, outside = apply_with_outside(network, variables, images, method="features")
    views = outside["attention2"]
    assert [m.shape for m in views] == [m.shape for m in maps]
    assert (views[0] == maps[0]).all(), "before the layer nothing is different"
    assert np.abs(views[1] - maps[1]).max() > 1e-2
    _, shown = network.apply(
        variables, images, method="features", mutable=["intermediates"]
    )
    mask = cram_jax.attended_masks(shown)["attention2"][..., None]
    assert_close(views[1] * mask, maps[1] * (1 - mask), atol=1e-5)


def loss_of(network, images, weight, variables, on=True):
    logits, outside, _ = apply_with_outside(
        network, variables, images, train=True, mutable=MUTABLE, on=on
    )
    labels = jnp.arange(len(images)) % logits.shape[-1]
    own = -jax.nn.log_softmax(logits)[jnp.arange(len(images)), labels]
    return jnp.mean(own + weight * outside_loss(outside))


def test_weight_and_switch_work_within_one_program():
    network, variables, images = build(stages=(1, 3))

    def gradient_of(params, weight, on):
        return jax.grad(
            lambda p: loss_of(network, images, weight, variables | {"params": p}, on)
        )(params)

    gradient = jax.jit(gradient_of)

    @jax.jit
    def without(params):
        def loss(params):
            logits, _ = network.apply(
                variables | {"params": params}, images, train=True, mutable=MUTABLE
            )
            return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(3), jnp.arange(3)])

        return jax.grad(loss)(params)

    params, expected = variables["params"], without(variables["params"])
    with compilation.counted() as compiled:
        off = gradient(params, 1.0, False)
        weightless = gradient(params, 0.0, True)
        on = gradient(params, 1.0, True)
    assert compiled["jit(gradient_of)"] == 1
    close = functools.partial(assert_close, atol=1e-4)
    jax.tree.map(close, off, expected)
    jax.tree.map(close, weightless, expected)
    assert_tree_finite(on)
    differences = jax.tree.map(lambda a, b: np.abs(a - b).max(), on, expected)
    assert max(jax.tree.leaves(differences)) > 1e-3
    # Known to be off: nothing is doubled, and the structure stays.
    logits, outside, _ = apply_with_outside(
        network, variables, images, train=True, mutable=MUTABLE, on=False
    )
    assert {path: view.shape for path, view in outside.items()} == {
        "attention1": (3, 5),
        "attention3": (3, 5),
    }
    assert_close(outside_loss(outside), np.zeros(3))
    plain, _ = network.apply(variables, images, train=True, mutable=MUTABLE)
    assert (logits == plain).all()


def test_gradients_with_views_equal_finite_differences():
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
            return loss_of(network, images, 1.0, variables | {"params": params})

        entries = kernel.ravel()[:6]
        expected = finite_difference_gradient(value, entries)
        assert np.abs(expected).max() > 1e-5
        assert_close(jax.grad(value)(entries), expected, atol=1e-7)


def test_eight_devices_agree_with_one():
    network, variables, _ = build(stages=(1, 3))
    images = jax.random.normal(jax.random.key(5), (16, 32, 32, 3))

    def step(params, images, network=network, across=lambda tree: tree):
        def loss(params):
            logits, outside, updates = apply_with_outside(
                network,
                variables | {"params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            own = -jax.nn.log_softmax(logits)[:, 0]
            return jnp.sum(own + outside_loss(outside)) / 16, updates

        gradient, updates = jax.grad(loss, has_aux=True)(params)
        gradient = across(gradient)
        return jax.tree.map(lambda p, g: p - 0.05 * g, params, gradient), updates

    params = variables["params"]
    expected = jax.jit(step)(params, images)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), expected[0], params)
    assert max(jax.tree.leaves(moved)) > 1e-2, "steps that small prove nothing"
    close = functools.partial(assert_close, atol=1e-5)
    mesh = Mesh(jax.devices(), ("batch",), axis_types=(AxisType.Auto,))
    placed = jax.device_put(images, NamedSharding(mesh, P("batch")))
    jax.tree.map(close, jax.jit(step)(params, placed), expected)
    on_each = functools.partial(
        step,
        network=network.clone(axis_name="batch"),
        across=functools.partial(jax.lax.psum, axis_name="batch"),
    )
    update = jax.pmap(on_each, "batch", in_axes=(None, 0), out_axes=None)
    jax.tree.map(close, update(params, images.reshape(8, 2, 32, 32, 3)), expected)


def test_bfloat16_remat_and_one_image():
    network, variables, images = build(dtype=jnp.bfloat16)
    logits, outside = apply_with_outside(network, variables, images)
    assert outside["attention2"].dtype == logits.dtype == jnp.float32
    alone = apply_with_outside(network, variables, images[:1])[1]
    assert_close(alone["attention2"], outside["attention2"][:1], atol=2e-2)

    def loss(params, wrap):
        apply = wrap(functools.partial(apply_with_outside, network))
        _, outside = apply(variables | {"params": params}, images)
        return outside_loss(outside).sum()

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    plain = gradient(variables["params"], lambda f: f)
    again = gradient(variables["params"], jax.checkpoint)
    assert_tree_finite(plain)
    jax.tree.map(functools.partial(assert_close, atol=0.05, rtol=0.05), again, plain)


def test_ignorance_is_the_divergence_from_the_uniform(x64):
    rng = np.random.default_rng(0)
    logits: Any = rng.normal(0, 3, (7, 4))
    probabilities = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = np.sum(0.25 * np.log(0.25 / probabilities), -1)
    assert_close(jax.jit(ignorance_loss)(logits), expected)
    assert_close(jax.vmap(ignorance_loss)(logits), expected)
    gradient = jax.grad(lambda logits: ignorance_loss(logits).sum())(logits)
    assert_close(gradient, probabilities - 0.25)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_ignorance_of_extreme_and_of_equal_logits(dtype):
    logits = jnp.array([[3e4, -3e4, 0.0], [7.0, 7.0, 7.0], [0.0, 0.0, 0.0]], dtype)
    value, gradient = jax.value_and_grad(lambda x: ignorance_loss(x).sum())(logits)
    assert ignorance_loss(logits).dtype == jnp.float32
    assert_tree_finite((value, gradient))
    assert_close(ignorance_loss(logits)[1:], [0.0, 0.0], atol=1e-6)
    assert_close(ignorance_loss(jnp.zeros((2, 1))), [0.0, 0.0])


def test_several_layers_count_alike():
    logits = jax.random.normal(jax.random.key(0), (2, 3, 4))
    together = outside_loss({"a": logits[0], "b": logits[1]})
    assert_close(together, (ignorance_loss(logits[0]) + ignorance_loss(logits[1])) / 2)


def test_a_network_without_a_gate_is_refused_and_so_is_a_single_image():
    images = jnp.zeros((2, 16, 16, 3))
    for attention, stages in ((None, ()), (SqueezeExcite, (2,))):
        network = backbone("convnet")(3, attention=attention, attention_stages=stages)
        variables = network.init(jax.random.key(0), images)
        for on in (True, False, jnp.array(True)):
            with pytest.raises(ValueError, match="ConvNet has no layer that gates"):
                apply_with_outside(network, variables, images, on=on)
    network, variables, images = build()
    with pytest.raises(ValueError, match=r"must be \[B, H, W, C\]; got shape \(32,"):
        apply_with_outside(network, variables, images[0])
    with pytest.raises(ValueError, match="no outside view to judge"):
        outside_loss({})


def test_norms_of_a_layer_and_of_a_network_before_its_gate_are_left_alone():
    class Folded(nn.Module):
        """Merges something into the batch axis before its gate, which is legal."""

        @nn.compact
        def __call__(self, images, *, train=False):
            batch = images.shape[0]
            halves = images.reshape(batch * 2, -1, *images.shape[2:])
            halves = nn.BatchNorm(use_running_average=not train)(halves)
            images = halves.reshape(images.shape)
            images = RectangularAttention(name="attention")(images)
            images = nn.BatchNorm(use_running_average=not train)(images)
            return nn.Dense(3)(images.mean((1, 2)))

    network, images = Folded(), jax.random.normal(jax.random.key(0), (4, 8, 8, 2))
    variables = network.init(jax.random.key(1), images)
    options = {"train": True, "mutable": ["batch_stats"]}
    expected = network.apply(variables, images, **options)
    logits, outside, updates = apply_with_outside(network, variables, images, **options)
    assert list(outside) == ["attention"]
    jax.tree.map(
        functools.partial(assert_close, atol=1e-5), (logits, updates), expected
    )
