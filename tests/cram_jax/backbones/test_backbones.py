"""Backbones: shapes, sizes, slots, and what they refuse."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.backbones import BACKBONES, backbone, blocks, resnet
from tests.checks import assert_close, assert_tree_finite


class Halve(nn.Module):
    """An attention layer that multiplies by one parameter, initially a half."""

    dtype: object = None
    param_dtype: object = jnp.float32

    @nn.compact
    def __call__(self, features, *, train=False):
        del train
        factor = self.param(
            "factor", nn.initializers.constant(0.5), (), self.param_dtype
        )
        return features * factor.astype(features.dtype)


def abstract_variables(network, shape=(1, 64, 64, 3), dtype=jnp.float32):
    return jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(shape, dtype))


def initialise(network, images):
    return jax.jit(network.init)(jax.random.key(1), images)


def parameter_count(variables):
    return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))


def tiny_resnet(**options):
    options = {"depths": (1, 1), "stem": "small"} | options
    return functools.partial(BACKBONES["resnet18"].func, 5, **options)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        # torchvision's figures for 1,000 classes.
        ("resnet18", 11_689_512),
        ("resnet34", 21_797_672),
        ("resnet50", 25_557_032),
        # The small stem has 3 * 3 instead of 7 * 7 weights per channel pair.
        ("resnet18-small", 11_689_512 - (49 - 9) * 3 * 64),
        # 4x4 (strided) and 3x3 kernels, scale and bias per norm, the dense layer.
        (
            "convnet",
            16 * (3 * 16 + 16 * 32 + 32 * 64)
            + 9 * (16 * 16 + 32 * 32 + 64 * 64)
            + 2 * 2 * (16 + 32 + 64)
            + 65 * 1000,
        ),
    ],
)
def test_parameter_counts_are_the_published_ones(name, count):
    assert parameter_count(abstract_variables(backbone(name)(1000))) == count


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_logits_are_float32_and_parameters_keep_their_dtype(name, dtype):
    network = backbone(name)(7, dtype=dtype)
    images = jnp.zeros((2, 64, 48, 3), dtype)
    logits, variables = jax.eval_shape(
        network.init_with_output, jax.random.key(0), images
    )
    assert (logits.shape, logits.dtype) == ((2, 7), jnp.float32)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {
        jnp.dtype(jnp.float32)
    }


@pytest.mark.parametrize(
    ("name", "sides", "channels"),
    [
        ("convnet", (24, 12, 6), (16, 32, 64)),
        ("resnet18", (12, 6, 3, 2), (64, 128, 256, 512)),
        ("resnet50", (12, 6, 3, 2), (256, 512, 1024, 2048)),
        ("resnet34-small", (48, 24, 12, 6), (64, 128, 256, 512)),
    ],
)
def test_features_are_the_maps_of_all_stages(name, sides, channels):
    network = backbone(name)(10)
    images = jnp.zeros((1, 48, 48, 1))
    maps, _ = jax.eval_shape(
        functools.partial(network.init_with_output, method="features"),
        jax.random.key(0),
        images,
    )
    expected = [
        (1, side, side, width) for side, width in zip(sides, channels, strict=True)
    ]
    assert [stage.shape for stage in maps] == expected


def test_convnet_keeps_centres_where_they_are():
    # Turned by 180 degrees, image and maps must agree: no stage may look past the
    # centre of its pixels. With 3 taps and stride 2 this fails.
    network = backbone("convnet")(3)
    images = jax.random.normal(jax.random.key(0), (1, 48, 48, 1))
    variables = network.init(jax.random.key(1), images)

    def turned(array):
        return array[..., ::-1, ::-1, :]

    kernels = jax.tree.map(
        lambda leaf: leaf[::-1, ::-1] if leaf.ndim == 4 else leaf, variables
    )
    maps = network.apply(variables, images, method="features")
    back = network.apply(kernels, turned(images), method="features")
    for ours, theirs in zip(maps, back, strict=True):
        assert_close(turned(theirs), ours)


@pytest.mark.parametrize(
    "make", [functools.partial(backbone("convnet"), 5), tiny_resnet()]
)
def test_forward_and_gradient_are_finite_and_update_the_statistics(make):
    network = make()
    images = jax.random.normal(jax.random.key(0), (2, 13, 11, 2))
    variables = initialise(network, images)

    def loss(params):
        logits, updated = network.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(logits**2), updated

    gradient, updated = jax.jit(jax.grad(loss, has_aux=True))(variables["params"])
    assert_tree_finite(gradient)
    before = jax.tree.leaves(variables["batch_stats"])
    after = jax.tree.leaves(updated["batch_stats"])
    assert all(not np.array_equal(a, b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "make", [functools.partial(backbone("convnet"), 5), tiny_resnet()]
)
def test_batch_axes_jit_vmap_and_remat_change_nothing(make):
    network = make()
    images = jax.random.normal(jax.random.key(0), (2, 3, 12, 10, 1))
    variables = initialise(network, images[0])
    apply = functools.partial(network.apply, variables)
    expected = np.stack([apply(batch) for batch in images])
    assert_close(apply(images[0, 0]), expected[0, 0])
    for transformed in (apply, jax.vmap(apply), jax.checkpoint(apply)):
        assert_close(jax.jit(transformed)(images), expected)
    rematerialised = nn.remat(type(network))
    again = rematerialised(
        **{
            field: getattr(network, field)
            for field in network.__dataclass_fields__
            if field not in ("parent", "name")
        }
    )
    assert_close(jax.jit(again.apply)(variables, images), expected)


def test_tabulate_names_every_stage():
    table = tiny_resnet(attention=Halve, attention_stages=(2,))().tabulate(
        jax.random.key(0),
        jnp.zeros((1, 8, 8, 3)),
        console_kwargs={"width": 200, "force_terminal": False},
    )
    for name in ("stem", "layer1_0", "layer2_0", "attention2", "head"):
        assert name in table


@pytest.mark.parametrize(
    "make", [functools.partial(backbone("convnet"), 5), tiny_resnet()]
)
def test_attention_follows_just_the_chosen_stages(make):
    images = jax.random.normal(jax.random.key(0), (1, 12, 12, 1))
    bare = make()
    attended = make(attention=Halve, attention_stages=(1, 2))
    variables = initialise(attended, images)
    names = [name for name in variables["params"] if name.startswith("attention")]
    assert sorted(names) == ["attention1", "attention2"]
    plain = {
        **variables,
        "params": {
            name: value
            for name, value in variables["params"].items()
            if name not in names
        },
    }
    before = bare.apply(plain, images, method="features")
    after = attended.apply(variables, images, method="features")
    # Nothing precedes the first slot, so that its stage is exactly halved.
    assert_close(after[0], 0.5 * before[0])
    off = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.ones_like(leaf) if "factor" in str(path) else leaf,
        variables,
    )
    assert_close(attended.apply(off, images), bare.apply(plain, images))


def test_attention_in_blocks_scales_the_branch_and_not_the_shortcut():
    images = jax.random.normal(jax.random.key(0), (1, 8, 8, 3))
    network = tiny_resnet(
        attention=Halve, attention_stages=(2,), attention_in_blocks=True
    )()
    variables = initialise(network, images)
    params = variables["params"]
    assert "attention" in params["layer2_0"]
    assert "attention" not in params["layer1_0"]
    assert "attention2" not in params
    # The branch is linear in the scale of its last norm (its bias is zero).
    params["layer2_0"]["conv2"]["norm"]["scale"] = jnp.full(128, 0.5)
    whole = jax.tree.map(lambda leaf: leaf, variables)
    del whole["params"]["layer2_0"]["attention"]
    whole["params"]["layer2_0"]["conv2"]["norm"]["scale"] = jnp.full(128, 0.25)
    expected = tiny_resnet()().apply(whole, images)
    assert_close(network.apply(variables, images), expected)


@pytest.mark.parametrize("bottleneck", [False, True])
def test_a_residual_block_starts_as_its_shortcut(bottleneck):
    width = 2 if bottleneck else 8
    block = resnet.ResidualBlock(width, bottleneck)
    features = jax.random.normal(jax.random.key(0), (5, 3, 8))
    start, _ = block.init_with_output(jax.random.key(1), features)
    assert_close(start, nn.relu(features))


def test_batch_norm_statistics_are_those_of_all_devices():
    network = backbone("convnet")(
        3, widths=(4,), strides=(2,), convolutions=(2,), axis_name="devices"
    )
    images = jax.random.normal(jax.random.key(0), (2, 3, 8, 8, 1))
    alone = backbone("convnet")(3, widths=(4,), strides=(2,), convolutions=(2,))
    variables = initialise(alone, images[0])
    options = {"train": True, "mutable": ["batch_stats"]}
    apply = functools.partial(network.apply, **options)
    logits, _ = jax.jit(jax.vmap(apply, in_axes=(None, 0), axis_name="devices"))(
        variables, images
    )
    apply = jax.jit(functools.partial(alone.apply, **options))
    together, _ = apply(variables, images.reshape(6, 8, 8, 1))
    assert_close(logits.reshape(6, 3), together)


def test_an_unknown_name_is_answered_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"Did you mean 'resnet50'.*convnet"):
        backbone("resnet5")
    with pytest.raises(ValueError, match=r"Unknown backbone 'qqq'\. There are"):
        backbone("qqq")


@pytest.mark.parametrize(
    ("options", "images", "message"),
    [
        ({}, jnp.zeros((8, 8)), r"shape \[\.\.\., height, width, channels\]; got"),
        ({}, jnp.zeros((1, 8, 8, 3), jnp.uint8), "floating-point images; got uint8"),
        ({"attention_stages": (4,)}, jnp.zeros((8, 8, 3)), r"1\.\.3 .*got \[4\]"),
        ({"attention_stages": (0,)}, jnp.zeros((8, 8, 3)), r"1\.\.3 .*got \[0\]"),
        ({"attention": Halve}, jnp.zeros((8, 8, 3)), "attention_stages is empty"),
        (
            {"widths": (4,)},
            jnp.zeros((8, 8, 3)),
            "one width, one stride and one number",
        ),
    ],
)
def test_mistakes_are_refused_with_the_rule(options, images, message):
    network = backbone("convnet")(3, **options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(network.init, jax.random.key(0), images)


def test_an_unknown_stem_is_refused():
    with pytest.raises(ValueError, match="stem must be one of"):
        abstract_variables(tiny_resnet(stem="large")())


def test_conv_norm_pads_like_torch():
    # A strided 3x3 over 4 pixels: torch starts one pixel outside, "SAME" would not.
    layer = blocks.ConvNorm(1, strides=2, activation=None)
    row = jnp.arange(1.0, 5.0)[:, None, None] * jnp.ones((4, 1, 1))
    variables = layer.init(jax.random.key(0), row)
    variables["params"]["conv"]["kernel"] = jnp.zeros((3, 3, 1, 1)).at[0, 1].set(1.0)
    output = np.asarray(layer.apply(variables, row))[:, 0, 0]
    assert_close(output * np.sqrt(1 + 1e-5), [0.0, 2.0])
