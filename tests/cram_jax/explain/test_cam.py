"""Class activation maps against slow numpy oracles (torch's grad-cam: test_torch_cam).

The numpy oracle of Grad-CAM does not differentiate: it nudges the maps channel by
channel and takes the quotient of differences.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import cram_jax
from cram_jax import PositionwiseAttention, explain
from cram_jax.backbones import backbone
from cram_jax.backbones.alignment import Grid, mask_on_image, stage_grids
from tests.checks import assert_close, assert_tree_finite

CLASSES = 5
FAMILIES = (
    "convnet",
    "resnet18",
    "mobilenetv3-small",
    "efficientnet-lite0",
    "convnext-tiny",
)
SIZE = (32, 40)
CONVNET = {"widths": (8, 8, 12), "convolutions": (1, 2, 1)}


def draw(network, images, seed=2):
    """Variables none of which is 0 or 1; heads of any scale."""
    shapes = jax.eval_shape(network.init, jax.random.key(1), images)
    rng = np.random.default_rng(seed)

    def leaf_of(leaf):
        if leaf.ndim > 1:
            scale = np.prod(leaf.shape[:-1]) ** -0.5
            return jnp.asarray(rng.normal(0, 1.5 * scale, leaf.shape), jnp.float32)
        return jnp.asarray(rng.uniform(0.3, 1.0, leaf.shape), jnp.float32)

    kept = {k: v for k, v in shapes.items() if k in ("params", "batch_stats")}
    return jax.tree.map(leaf_of, kept)


def convnet(**settings) -> Any:
    network = backbone("convnet")(CLASSES, **(CONVNET | settings))
    images = jax.random.normal(jax.random.key(0), (3, *SIZE, 3))
    return network, draw(network, images), images


def oracle_cam(maps, weights):
    result = np.zeros(maps.shape[:3])
    for b, y, x in np.ndindex(*maps.shape[:3]):
        result[b, y, x] = np.dot(maps[b, y, x].astype(np.float64), weights[b])
    return result


def oracle_unit(maps):
    return np.stack([(m - m.min()) / ((m.max() - m.min()) or 1) for m in maps])


def oracle_on_pixels(maps, height, width):
    """Bilinear by scipy: pixel centres of both grids, held beyond the last centres."""
    rows = (np.arange(height) + 0.5) / height * maps.shape[1] - 0.5
    columns = (np.arange(width) + 0.5) / width * maps.shape[2] - 0.5
    where = np.meshgrid(rows, columns, indexing="ij")
    return np.stack(
        [ndimage.map_coordinates(m, where, order=1, mode="nearest") for m in maps]
    )


def oracle_grad_cam(maps, logits_of, classes, step=1e-6):
    """Channels weighted by what adding to all of the channel does to the logit."""
    batch, height, width, channels = maps.shape
    weights = np.zeros((batch, channels))
    for channel in range(channels):
        nudge = np.zeros_like(maps)
        nudge[..., channel] = step
        ahead, behind = logits_of(maps + nudge), logits_of(maps - nudge)
        slope = (np.asarray(ahead) - np.asarray(behind)) / (2 * step)
        weights[:, channel] = slope[np.arange(batch), classes] / (height * width)
    return np.maximum(oracle_cam(maps, weights), 0)


@pytest.mark.parametrize("classes", [None, 2, [4, 0, 1]])
def test_cam_equals_numpy(classes):
    network, variables, images = convnet()
    result = cram_jax.class_activation_maps(
        network, variables, images, classes, spread="even"
    )
    maps = np.asarray(network.apply(variables, images, method="features")[-1])
    logits = np.asarray(network.apply(variables, images))
    dense = variables["params"]["head"]["dense"]
    chosen = logits.argmax(-1) if classes is None else np.broadcast_to(classes, 3)
    expected = oracle_cam(maps, np.asarray(dense["kernel"]).T[chosen])
    assert result.classes.tolist() == chosen.tolist()
    assert_close(result.logits, logits, atol=1e-5)
    assert_close(result.raw, expected, atol=1e-5)
    assert_close(result.unit, oracle_unit(expected), atol=1e-4)
    on_image = oracle_unit(oracle_on_pixels(expected, *SIZE))
    assert_close(result.on_image, on_image, atol=1e-4)
    # Zhou et al., equation 2: the mean of the map is the logit, but for the bias.
    own = logits[np.arange(3), chosen] - np.asarray(dense["bias"])[chosen]
    assert_close(result.raw.mean((1, 2)), own, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 2, 3])
@pytest.mark.parametrize("attention", [None, PositionwiseAttention])
def test_grad_cam_equals_numpy_nudges(stage, attention):
    settings = {"attention": attention, "attention_stages": (2,)} if attention else {}
    network, variables, images = convnet(**settings)
    classes = np.array([1, 3, 0])
    result = cram_jax.grad_cam(
        network, variables, images, classes, stage=stage, spread="even"
    )
    maps = network.apply(variables, images, method="features")[stage - 1]

    def logits_of(given):
        """The network with the stage's map replaced."""

        def replace(call, args, kwargs, context):
            output = call(*args, **kwargs)
            path, last = "/".join(context.module.path), {1: 1, 2: 2, 3: 1}[stage]
            slot = f"stage{stage}_conv{last}"
            if attention and stage == 2:
                slot = "attention2"
            same = path == slot and context.method_name == "__call__"
            return jnp.asarray(given) if same else output

        with nn.intercept_methods(replace):
            return network.apply(variables, images)

    with jax.enable_x64(True):
        variables, images, maps = jax.tree.map(
            lambda leaf: np.asarray(leaf, np.float64), (variables, images, maps)
        )
        expected = oracle_grad_cam(maps, jax.jit(logits_of), classes)
    assert expected.max() > 1e-4
    assert_close(result.raw, expected, atol=1e-4 * expected.max(), rtol=1e-4)
    on_image = oracle_unit(oracle_on_pixels(np.asarray(result.raw), *SIZE))
    assert_close(result.on_image, on_image, atol=1e-4)


def test_at_the_last_map_grad_cam_is_the_positive_part_of_cam():
    network, variables, images = convnet()
    cam = cram_jax.class_activation_maps(network, variables, images, 1)
    grad_cam = cram_jax.grad_cam(network, variables, images, 1)
    positions = cam.raw.shape[1] * cam.raw.shape[2]
    assert_close(grad_cam.raw * positions, jnp.maximum(cam.raw, 0), atol=1e-5)


@pytest.mark.parametrize(
    "name",
    ["resnet18-small", "mobilenetv3-small", "efficientnet-lite0", "convnext-tiny"],
)
def test_cam_linearises_every_head(name):
    make, settings = backbone(name), {}
    if name == "resnet18-small":
        settings = {"depths": (1, 1)}
    elif name == "convnext-tiny":
        settings = {"depths": (1, 1), "widths": (8, 16)}
    else:
        settings = {"groups": make.keywords["groups"][:2]}
    network: Any = make(CLASSES, **settings)
    images = jax.random.normal(jax.random.key(0), (2, 48, 40, 3))
    variables = draw(network, images)
    classes = jnp.array([3, 1])
    cam = jax.jit(functools.partial(cram_jax.class_activation_maps, network))(
        variables, images, classes
    )

    @jax.jit
    def split(variables, images):
        """Grad-CAM at the last stage by the split in two functions."""
        return cram_jax.grad_cam_of_split(
            lambda images: network.apply(variables, images, method="features")[-1],
            lambda maps: network.apply(variables, maps, method=lambda n, m: n.head(m)),
            images,
            classes,
        )

    last = split(variables, images)
    positions = last.raw.shape[1] * last.raw.shape[2]
    expected = np.maximum(cam.raw, 0)
    assert_close(last.raw * positions, expected, atol=1e-4 * expected.max(), rtol=1e-3)
    again = jax.jit(functools.partial(cram_jax.grad_cam, network))(
        variables, images, classes
    )
    assert_close(again.raw, last.raw, atol=1e-5 * last.raw.max(), rtol=1e-3)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_stage_of_every_backbone_is_some_modules_output(name):
    network = backbone(name)(CLASSES)
    images: Any = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    from cram_jax.explain.gradients import _module_of_stage

    maps = jax.eval_shape(
        functools.partial(network.apply, method="features"), variables, images
    )
    assert _module_of_stage(network, variables, images, None)[0] == len(maps) - 1
    for stage in (1, len(maps) - 1):
        shapes = jax.eval_shape(
            functools.partial(cram_jax.grad_cam, network, stage=stage),
            variables,
            images,
        )
        assert shapes.raw.shape == maps[stage - 1].shape[:3]
        assert shapes.on_image.shape == (1, 64, 64)


def test_maps_lie_where_the_network_looks():
    network, variables, images = convnet()
    spread = cram_jax.class_activation_maps(network, variables, images, 0)
    y, x = (stage_grids(network, side)[-1] for side in SIZE)
    moved = mask_on_image(spread.raw, (y, x), *SIZE)
    assert_close(spread.on_image, oracle_unit(np.asarray(moved)), atol=1e-5)
    # This network looks where its maps are spread evenly, but for the outermost pixels.
    even = cram_jax.class_activation_maps(
        network, variables, images, 0, spread="even"
    ).on_image
    assert_close(spread.on_image, even, atol=1e-4)


class Users(nn.Module):
    """A network of somebody else's: no features(), one nested block, BatchNorm."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Conv(6, (3, 3), name="first")(images))
        features = nn.BatchNorm(use_running_average=True, name="norm")(features)
        features = nn.Sequential([nn.Conv(7, (3, 3)), nn.relu], name="block")(features)
        return nn.Dense(CLASSES, name="head")(features.mean((1, 2)))


def test_any_module_of_any_network():
    network: Any = Users()
    images = jax.random.normal(jax.random.key(0), (2, 9, 11, 2))
    variables = draw(network, images)
    result = jax.jit(functools.partial(cram_jax.grad_cam, network, layer="block"))(
        variables, images, jnp.array([0, 4])
    )
    assert result.raw.shape == result.on_image.shape == (2, 9, 11)

    def maps_of(images) -> Any:
        _, kept = network.apply(
            variables,
            images,
            capture_intermediates=lambda module, _: module.name == "block",
        )
        return kept["intermediates"]["block"]["__call__"][0]

    head = variables["params"]["head"]
    split = cram_jax.grad_cam_of_split(
        maps_of,
        lambda maps: maps.mean((1, 2)) @ head["kernel"] + head["bias"],
        images,
        jnp.array([0, 4]),
    )
    assert_close(result.raw, split.raw, atol=1e-6)
    weights = np.asarray(head["kernel"]).T[[0, 4]] / 99
    expected = np.maximum(oracle_cam(np.asarray(maps_of(images)), weights), 0)
    assert_close(result.raw, expected, atol=1e-6)
    nested = cram_jax.grad_cam(network, variables, images, layer="Conv_0")
    assert nested.raw.shape == (2, 9, 11)


def test_jit_batch_and_bfloat16():
    network, variables, images = convnet()
    for find in (cram_jax.class_activation_maps, cram_jax.grad_cam):
        together = jax.jit(functools.partial(find, network))(variables, images)
        plain = find(network, variables, images)
        for i in range(3):
            alone = find(network, variables, images[i : i + 1], plain.classes[i])
            assert_close(alone.raw[0], plain.raw[i], atol=1e-5)
        assert_close(together.raw, plain.raw, atol=1e-5)
        half = find(network.clone(dtype=jnp.bfloat16), variables, images, plain.classes)
        assert half.raw.dtype == half.on_image.dtype == jnp.float32
        scale = float(np.abs(plain.raw).max())
        assert_close(half.raw, plain.raw, atol=0.05 * scale, rtol=0.1)


def test_constant_maps_and_empty_maps_are_finite():
    assert_close(explain.unit_map(jnp.full((2, 3, 3), 7.0)), np.zeros((2, 3, 3)))
    gradient = jax.grad(lambda m: explain.unit_map(m).sum())(jnp.zeros((1, 3, 3)))
    assert_tree_finite(gradient)
    maps, gradients = jnp.ones((1, 3, 3, 2)), -jnp.ones((1, 3, 3, 2))
    assert (explain.gradient_map(maps, gradients) == 0).all()
    pixel = explain.map_on_pixels(jnp.full((1, 1, 1), 2.0), 5, 4)
    assert_close(pixel, np.full((1, 5, 4), 2.0))
    network, variables, _ = convnet()
    zeros = jnp.zeros((1, *SIZE, 3))
    dead = jax.tree.map(jnp.zeros_like, variables)
    for find in (cram_jax.class_activation_maps, cram_jax.grad_cam):
        assert_tree_finite(find(network, dead, zeros))


@pytest.mark.parametrize("find", [cram_jax.class_activation_maps, cram_jax.grad_cam])
@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([0, 1], r"for each of the 3 images.* shape \(2,\)"),
        ([0.0, 1.0, 2.0], "one integer .* got float32"),
        ([0, 1, 5], r"lie in 0\.\.4; got \[0, 1, 5\]"),
        (-1, r"lie in 0\.\.4; got -1"),
    ],
)
def test_wrong_classes_are_refused(find, classes, message):
    network, variables, images = convnet()
    with pytest.raises(ValueError, match=message):
        find(network, variables, images, classes)


def test_other_mistakes_are_named():
    network, variables, images = convnet()
    find = functools.partial(cram_jax.grad_cam, network, variables)
    for call, message in (
        (lambda: find(images[0]), r"need images \[B, H, W, C\]; got shape \(32,"),
        (lambda: find(images, stage=4), "has the stages 1 to 3; got 4"),
        (lambda: find(images, stage=0), "has the stages 1 to 3; got 0"),
        (
            lambda: find(images, layer="stage9"),
            "has no module 'stage9'; .*stage1_conv1",
        ),
        (lambda: find(images, layer="head", stage=1), "a stage or a layer, not both"),
        (lambda: find(images, layer="head"), r"needs maps \[B, h, w, c\].* \(3, 5\)"),
        (lambda: find(images, spread="odd"), "'network' or 'even'; got 'odd'"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def test_a_constant_map_stays_one_when_it_is_put_on_pixels():
    grids = (Grid(1, 8, 5.3), Grid(1, 8, 5.3))
    for value in (0.1, -3.3, 1e-9, 1e9):
        constant = jnp.full((1, 1, 1), value)
        for where in (None, grids):
            on_pixels = explain.map_on_pixels(constant, 13, 11, where)
            assert not explain.unit_map(on_pixels).any()
    little = jnp.array([[[1.0, 1.0 + 1e-5]]])
    np.testing.assert_array_equal(explain.unit_map(little), [[[0.0, 1.0]]])
