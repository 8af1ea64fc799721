"""Numbers of every kind are checked alike; batch axes meet where nobody guesses."""

import functools
from typing import Any

import chex
import flax.serialization
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cram_jax
from cram_jax import Rectangle, Similarity
from cram_jax.attention.moments import heat_map_moments, pool_to_grid
from cram_jax.attention.positionwise import PositionwiseAttention
from cram_jax.backbones import BACKBONES, backbone
from tests.checks import assert_close
from tests.cram_jax.test_settings import rectangles, similarities

X = jnp.ones((2, 8, 8, 4))


def init(module):
    return module.init(jax.random.key(0), X)


def moment(**settings):
    predictor = functools.partial(cram_jax.MomentPredictor, **settings)
    return init(cram_jax.RectangularAttention(predictor=predictor))


def regression(**settings):
    predictor = functools.partial(cram_jax.RegressionPredictor, **settings)
    return init(cram_jax.RectangularAttention(predictor=predictor))


def draw(**changes):
    ranges = {"max_angle": 1, "max_scale": 2, "max_shift": 1, **changes}
    return cram_jax.sample_similarity(jax.random.key(0), **ranges)


# By argument: a call with it, and a number that is out of its range.
NUMBERS = {
    "sharpness": (lambda v: cram_jax.gate(X, rectangles(0, ()), sharpness=v), -1),
    "The sharpness": (lambda v: init(cram_jax.RectangularAttention(sharpness=v)), 0),
    "harpness": (lambda v: cram_jax.sharpness_schedule(["a"], v), -1),
    "sharpness must": (lambda v: cram_jax.relative_sharpness(rectangles(), v), -1),
    "floor": (lambda v: cram_jax.gate(X, rectangles(0, ()), sharpness=1, floor=v), 1),
    "he floor": (lambda v: init(cram_jax.RectangularAttention(floor=v)), -0.1),
    "The floor": (lambda v: init(PositionwiseAttention(floor=v)), 1.5),
    "initial_mask": (lambda v: init(PositionwiseAttention(initial_mask=v)), 1),
    "initial_factor": (lambda v: moment(initial_factor=v), 0),
    "background": (lambda v: moment(background=v), 1),
    "prior": (lambda v: moment(prior=v), 0),
    "density": (lambda v: heat_map_moments(X[..., 0], 8, 8, background=v), -1),
    "min_half_size": (lambda v: regression(min_half_size=v), -1),
    "max_half_size": (lambda v: regression(max_half_size=v), 0),
    "extent_x": (lambda v: cram_jax.rectangle_from_raw(jnp.ones(5), extent_x=v), 0),
    "extent_y": (lambda v: cram_jax.rectangle_to_raw(rectangles(), extent_y=v), -1),
    "max_angle": (lambda v: draw(max_angle=v), -1),
    "max_scale": (lambda v: draw(max_scale=v), 0.5),
    "max_shift": (lambda v: draw(max_shift=v), -1),
    "gamma": (lambda v: init(cram_jax.EfficientChannelAttention(gamma=v)), 0),
}
KINDS = {
    "Python": lambda v: v,
    "float32": np.float32,
    "float64": np.float64,
    "float16": np.float16,
    "0-d": np.asarray,
    "jax": jnp.asarray,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NUMBERS)
def test_a_number_out_of_range_is_refused_whatever_its_kind(name, kind):
    call, wrong = NUMBERS[name]
    with pytest.raises(ValueError, match=name) as caught:
        call(KINDS[kind](wrong))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize(
    "value",
    [float("nan"), float("inf"), np.float32("nan"), True, np.True_, "3", None, 1j],
    ids=str,
)
def test_what_is_no_number_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=name):
        NUMBERS[name][0](value)


COUNTS = {
    "max_grid": lambda v: pool_to_grid(X, v),
    "width": lambda v: moment(width=v),
    "channels": lambda v: init(cram_jax.Trunk(v)),
    "trunk_channels": lambda v: regression(trunk_channels=v),
    "count": lambda v: init(cram_jax.RectangularAttention(count=v)),
    "count must": lambda v: moment(count=v),
    "kernel": lambda v: init(cram_jax.CBAM(kernel=v)),
    "reduction": lambda v: init(cram_jax.SqueezeExcite(reduction=v)),
    "min_hidden": lambda v: init(cram_jax.CoordinateAttention(min_hidden=v)),
    "rotations": lambda v: moment(rotations=v),
    "height": lambda v: cram_jax.pixel_centers(v, 3),
    "num_classes": lambda v: init(backbone("convnet")(v)),
    "widths": lambda v: init(backbone("convnet")(2, widths=(v, 2, 2))),
    "strides": lambda v: init(backbone("convnet")(2, strides=(v, 2, 2))),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [0, -1, 1.5, "2", True, np.float32(2.5), None])
def test_counts_are_whole_and_positive(name, value):
    with pytest.raises(ValueError, match=name):
        COUNTS[name](value)


def test_numpy_numbers_do_what_python_numbers_do():
    r = rectangles()
    size: Any = np.int64(4), np.int32(5)
    plain = cram_jax.render_mask(r, *size, sharpness=9.0)
    for kind in KINDS.values():
        assert_close(cram_jax.render_mask(r, 4, 5, sharpness=kind(9.0)), plain)
    layer = cram_jax.RectangularAttention(sharpness=np.float64(9), floor=np.float32(0))
    assert init(layer)


def test_a_rectangle_takes_numbers_and_scalars_beside_arrays():
    r = Rectangle(0.1, np.float32(0.2), np.float64(0.3), jnp.array(0.4), 1)
    assert {leaf.shape for leaf in jax.tree.leaves(r)} == {()}
    assert {leaf.dtype for leaf in jax.tree.leaves(r)} == {jnp.dtype("float32")}
    assert_close(r.as_array(), np.array([0.1, 0.2, 0.3, 0.4, 1.0]))
    many = Rectangle(jnp.zeros(3), 0.2, 0.3, 0.4, jnp.ones(3, jnp.bfloat16))
    assert {leaf.shape for leaf in jax.tree.leaves(many)} == {(3,)}
    assert cram_jax.render_mask(many, 4, 5, sharpness=9).shape == (3, 4, 5)
    assert jax.jit(lambda r: r.as_array())(many).dtype == jnp.float32
    with pytest.raises(ValueError, match=r"center_x \[3\].*angle \[2\]"):
        Rectangle(jnp.zeros(3), 0.0, 1.0, 1.0, jnp.zeros(2))
    with pytest.raises(ValueError, match=r"half_width \[2, 2\]"):
        Rectangle(jnp.zeros(2), 0.0, jnp.ones((2, 2)), 1.0, 0.0)
    wrong: Any
    for wrong in (True, "1", None, 1j):
        with pytest.raises(ValueError, match="angle="):
            Rectangle(0.0, 0.0, 1.0, 1.0, wrong)
        with pytest.raises(ValueError, match="scale="):
            Similarity(0.0, wrong)


HALVES = [jnp.bfloat16, jnp.float16, jnp.float32]


def cast(tree, dtype):
    return jax.tree.map(lambda leaf: leaf.astype(dtype), tree)


@jax.jit
def computed(r, s, image):
    """Every public geometry function, of inputs of one dtype."""
    other = cram_jax.transform_rectangle(s, r)
    metrics = ("gaussian", "parameters", "corners")
    return {
        "array": r.as_array(),
        "canonical": cram_jax.canonical_rectangle(r),
        "area": cram_jax.rectangle_area(r),
        "corners": cram_jax.rectangle_corners(r),
        "covariance": cram_jax.rectangle_covariance(r),
        "hull": cram_jax.rectangle_hull(r),
        "raw": cram_jax.rectangle_to_raw(r),
        "back": cram_jax.rectangle_from_raw(image[:, 0, :5, 0]),
        "squared": cram_jax.gaussian_distance_squared(r, other),
        **{m: cram_jax.rectangle_distance(r, other, metric=m) for m in metrics},
        "shared": cram_jax.rectangle_intersection_area(r, other),
        "iou": cram_jax.rotated_iou(r, other),
        "mask iou": cram_jax.mask_iou(image[..., 0], image[..., 1]),
        "mask": cram_jax.render_mask(r, 4, 5, sharpness=9.0),
        "sharpness": cram_jax.relative_sharpness(r, 9.0),
        "inverse": s.inverse(),
        "composed": s.compose(s),
        "points": cram_jax.transform_points(s, image[:, 0, 0]),
        "inside": cram_jax.inside_mask(s, 4, 5),
        "moments": heat_map_moments(image[..., 0], 5, 5),
    }


@pytest.mark.parametrize("dtype", HALVES)
def test_geometry_of_half_floats_is_float32(dtype):
    images = jax.random.uniform(jax.random.key(0), (3, 5, 5, 2))
    inputs = cast((rectangles(), similarities(), images), dtype)
    rounded = computed(*cast(inputs, jnp.float32))
    for name, result in computed(*inputs).items():
        for leaf, exact in zip(
            jax.tree.leaves(result), jax.tree.leaves(rounded[name]), strict=True
        ):
            assert leaf.dtype == jnp.float32, name
            assert_close(leaf, exact, atol=1e-5, rtol=1e-5)


def test_geometry_of_float64_stays_float64(x64):
    images = jax.random.uniform(jax.random.key(0), (3, 5, 5, 2))
    inputs = cast((rectangles(), similarities(), images), jnp.float64)
    inputs = jax.tree.map(lambda leaf: leaf + 1e-9, inputs)
    single = computed(*cast(inputs, jnp.float32))
    for name, result in computed(*inputs).items():
        assert {leaf.dtype for leaf in jax.tree.leaves(result)} == {
            jnp.dtype("float64")
        }, name
        for leaf, near in zip(
            jax.tree.leaves(result), jax.tree.leaves(single[name]), strict=True
        ):
            assert_close(leaf, near, atol=1e-4, rtol=1e-4)
            # Digits that float32 does not have.
            assert not (leaf == near).all(), name
    module = cram_jax.RectangularAttention(param_dtype=jnp.float64)
    for predictor in (cram_jax.MomentPredictor, cram_jax.RegressionPredictor):
        module = cram_jax.RectangularAttention(predictor, param_dtype=jnp.float64)
        x = X.astype(jnp.float64)
        out, sown = module.init_with_output(
            jax.random.key(0), x, mutable=["params", "intermediates"]
        )
        assert out.dtype == jnp.float64
        for leaf in jax.tree.leaves(sown["intermediates"]):
            assert leaf.dtype == jnp.float64


# Each of two batches, [B] and [B, B].
PAIRS = {
    "rotated_iou": lambda a, b: cram_jax.rotated_iou(
        rectangles(0, a), rectangles(1, b)
    ),
    "shared": lambda a, b: cram_jax.rectangle_intersection_area(
        rectangles(0, a), rectangles(1, b)
    ),
    "squared": lambda a, b: cram_jax.gaussian_distance_squared(
        rectangles(0, a), rectangles(1, b)
    ),
    **{
        metric: functools.partial(
            lambda metric, a, b: cram_jax.rectangle_distance(
                rectangles(0, a), rectangles(1, b), metric=metric
            ),
            metric,
        )
        for metric in ("gaussian", "parameters", "corners")
    },
    "mask iou": lambda a, b: cram_jax.mask_iou(
        jnp.ones((*a, 4, 5)), jnp.ones((*b, 4, 5))
    ),
    "mask": lambda a, b: cram_jax.render_mask(
        rectangles(0, a), 4, 5, sharpness=jnp.ones(b)
    ),
    "sharpness": lambda a, b: cram_jax.relative_sharpness(
        rectangles(0, a), jnp.ones(b)
    ),
    "gate": lambda a, b: cram_jax.gate(
        jnp.ones((*b, 4, 5, 2)), rectangles(0, a), sharpness=9
    ),
    "apply": lambda a, b: cram_jax.apply_mask(
        jnp.ones((*b, 4, 5, 2)), jnp.ones((*a, 4, 5))
    ),
    "points": lambda a, b: cram_jax.transform_points(
        similarities(a), jnp.ones((*b, 2))
    ),
    "rectangle": lambda a, b: cram_jax.transform_rectangle(
        similarities(a), rectangles(0, b)
    ),
    "compose": lambda a, b: similarities(a).compose(similarities(b)),
    "warp": lambda a, b: cram_jax.warp_image(similarities(a), jnp.ones((*b, 4, 5, 2))),
    "fields": lambda a, b: Similarity(jnp.zeros(a), jnp.ones(b)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_batches_that_fit_in_two_ways_or_none_are_refused(name):
    call = PAIRS[name]
    for shapes in (((3,), (3, 3)), ((3, 3), (3,)), ((3,), (3, 2)), ((3,), (2,))):
        with pytest.raises(ValueError, match="batch axes") as caught:
            call(*shapes)
        assert "\n" not in str(caught.value)
    for shapes in (((3, 1), (3, 3)), ((1, 3), (3, 3)), ((), (3, 3)), ((3,), (3,))):
        for leaf in jax.tree.leaves(call(*shapes)):
            assert leaf.shape[: len(shapes[1])] == shapes[1]
    # Explicit pairs of all with all.
    for leaf in jax.tree.leaves(call((3, 1), (3,))):
        assert leaf.shape[:2] == (3, 3)


def test_rectangles_and_similarities_in_flax_files():
    for value, like in (
        (rectangles(), rectangles(1)),
        (similarities(), Similarity.identity((3,))),
    ):
        tree = {"intermediates": {"a": {"rectangle": (value,)}}}
        target = {"intermediates": {"a": {"rectangle": (like,)}}}
        back = flax.serialization.from_bytes(target, flax.serialization.to_bytes(tree))
        chex.assert_trees_all_equal_structs(back, tree)
        jax.tree.map(np.testing.assert_array_equal, back, tree)
        state = flax.serialization.to_state_dict(value)
        assert set(state) == set(vars(value))
        restored = flax.serialization.from_state_dict(like, state)
        jax.tree.map(np.testing.assert_array_equal, restored, value)
        with pytest.raises(ValueError, match="has the fields"):
            flax.serialization.from_state_dict(like, {"angle": 1})


def test_rectangles_and_similarities_are_exported():
    pytest.importorskip("flatbuffers")

    def move(r, s):
        return {"moved": cram_jax.transform_rectangle(s, r), "by": s}

    exported = jax.export.export(jax.jit(move))(rectangles(), similarities())
    again = jax.export.deserialize(exported.serialize())
    expected = move(rectangles(), similarities())
    actual = again.call(rectangles(), similarities())
    chex.assert_trees_all_equal_structs(actual, expected)
    jax.tree.map(assert_close, actual, expected)


LEAST = dict.fromkeys(BACKBONES, 1) | {"convnet": 8, "convnext-tiny": 32}


@pytest.mark.parametrize("name", LEAST)
def test_the_smallest_image_of_each_network(name):
    network, least = BACKBONES[name](3), LEAST[name]

    def maps(shape):
        images = jax.ShapeDtypeStruct(shape, jnp.float32)
        return jax.eval_shape(
            lambda key, x: network.init_with_output(key, x, method="features")[0],
            jax.random.key(0),
            images,
        )

    for stage in maps((2, least, least + 1, 3)):
        assert min(stage.shape) >= 1
    for sides in ((least - 1, least), (least, least - 1), (0, 64)):
        with pytest.raises(ValueError, match=r"pixels") as caught:
            maps((2, *sides, 3))
        assert str(least) in str(caught.value) or 0 in sides
    with pytest.raises(ValueError, match="height, width, channels"):
        maps((64, 64))


def test_the_smallest_image_of_convnet_follows_its_strides():
    for strides, least in (((1, 1, 1), 1), ((2, 3, 2), 8), ((4, 4, 1), 6)):
        network = backbone("convnet")(2, strides=strides)
        image = jnp.ones((1, least, least, 1))
        logits, _ = network.init_with_output(jax.random.key(0), image)
        assert np.isfinite(logits).all(), strides
        if least > 1:
            with pytest.raises(ValueError, match=f"at least {least} pixels"):
                network.init(jax.random.key(0), image[:, 1:])


@pytest.mark.parametrize("batch", [(), (2,), (2, 3)])
def test_any_number_of_batch_axes(batch):
    network = backbone("convnet")(2)
    images = jax.random.normal(jax.random.key(0), (*batch, 16, 16, 3))
    logits, _ = network.init_with_output(jax.random.key(0), images)
    assert logits.shape == (*batch, 2)


@pytest.mark.parametrize(
    "name", ["convnet", "resnet18", "mobilenetv3-small", "convnext-tiny"]
)
def test_other_channels_than_the_parameters_are_for(name):
    network = BACKBONES[name](2)
    images = jnp.ones((1, 32, 32, 3))
    variables = jax.eval_shape(network.init, jax.random.key(0), images)
    with pytest.raises(ValueError, match="made for 3 image channels, got 1"):
        jax.eval_shape(network.apply, variables, images[..., :1])


def test_regression_keeps_its_map():
    layer = cram_jax.RectangularAttention(predictor=cram_jax.RegressionPredictor)
    variables = init(layer)
    with pytest.raises(ValueError, match="size of its first call"):
        layer.apply(variables, jnp.ones((2, 4, 4, 4)))


def test_stages_that_are_no_numbers():
    for stages in (("2",), (1.5,), (0,), (4,)):
        with pytest.raises(ValueError, match="attention_stages"):
            init(backbone("convnet")(2, cram_jax.CBAM, stages))
