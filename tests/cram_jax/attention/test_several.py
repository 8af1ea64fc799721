"""Several rectangles in one layer: their union, their start, and one as it ever was."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

import cram_jax
from cram_jax.attention.evidence import (
    attended_masks,
    attended_rectangles,
    layer_evidence,
    sharpness_schedule,
    shows_several,
)
from cram_jax.attention.predictors import MomentPredictor, RegressionPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.attention.tiles import tile_boxes, tile_shares
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.losses.budget import mask_areas
from tests.checks import assert_close, assert_tree_finite
from tests.cram_jax.geometry.test_rendering import oracle_mask
from tests.cram_jax.test_explicit_mesh import mesh_of

PREDICTORS = [MomentPredictor, RegressionPredictor]
SIZE = (8, 6)
# As many images as rectangles: a wrong broadcast would go unnoticed by shapes.
COUNT = 3


def features_of(shape, dtype=jnp.float32):
    values = np.random.default_rng(0).normal(size=shape)
    return jnp.asarray(values, jnp.float32).astype(dtype)


def apply(layer, variables, features):
    return layer.apply(variables, features, mutable=["intermediates"])


@functools.cache
def case(predictor):
    """A layer, variables that make rectangles differ, features, and what it gives."""
    features = features_of((COUNT, *SIZE, 4))
    layer = RectangularAttention(predictor=predictor, count=COUNT, sharpness=4.0)
    params = jax.jit(layer.init)(jax.random.key(1), features)["params"]
    # The start is nearly the same for all images.
    noise = np.random.default_rng(2)
    params = jax.tree.map(
        lambda leaf: np.float32(leaf + 0.3 * noise.normal(size=leaf.shape)), params
    )
    run = jax.jit(functools.partial(apply, layer))
    return layer, {"params": params}, features, run({"params": params}, features)


# What the code gave before layers had a count (eagerly, on CPU).
ONE = {
    MomentPredictor: {
        "parameters": {
            "log_factor": ((), 0.2231435477733612),
            "trunk/Conv_0/kernel": ((1, 1, 2, 8), 9.76066780090332),
            "trunk/Conv_1/kernel": ((3, 3, 8, 8), 57.486820220947266),
            "trunk/Conv_2/kernel": ((3, 3, 8, 8), 57.17225646972656),
            "trunk/Conv_3/bias": ((1,), 0.0),
            "trunk/Conv_3/kernel": ((1, 1, 8, 1), 0.16264809668064117),
        },
        "rectangles": [
            [0.000166320242, 0.00397707336, 1.24990404, 0.871778429, -0.00475661969],
            [-0.00314694829, 0.00431686081, 1.25402498, 0.87956959, 0.00489607221],
            [-0.00298695266, -0.00575527269, 1.24961841, 0.872214556, 0.00817571208],
        ],
        "mask": [0.89530170, 0.99951971, 0.89830285, 203.561447, 326.238922],
    },
    RegressionPredictor: {
        "parameters": {
            "raw/bias": ((5,), 0.0),
            "raw/kernel": ((160, 5), 0.6318814754486084),
            "trunk/Conv_0/kernel": ((1, 1, 2, 8), 9.76066780090332),
            "trunk/Conv_1/kernel": ((3, 3, 8, 8), 57.486820220947266),
            "trunk/Conv_2/kernel": ((3, 3, 8, 8), 57.17225646972656),
            "trunk/Conv_3/bias": ((8,), 0.0),
            "trunk/Conv_3/kernel": ((1, 1, 8, 8), 19.774343490600586),
        },
        "rectangles": [
            [-0.000106412452, -0.00138401298, 1.2493099, 0.875701249, 0.000113334158],
            [0.000215443783, -0.000413854112, 1.25140166, 0.875786066, 0.000155915739],
            [-0.000521717709, -0.00088314194, 1.25087607, 0.875284493, 0.00198090379],
        ],
        "mask": [0.90204954, 0.99951553, 0.90132225, 203.598389, 326.291199],
    },
}


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_one_rectangle_is_what_it_was_before_there_were_several(predictor):
    features, known = features_of((3, 7, 10, 2)), ONE[predictor]
    layer = RectangularAttention(predictor=predictor)
    assert layer == RectangularAttention(predictor=predictor, count=1)

    @jax.jit
    def start(features):
        params = layer.init(jax.random.key(1), features)["params"]
        return params, apply(layer, {"params": params}, features)

    params, (gated, state) = jax.device_get(start(features))
    found = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree.leaves_with_path(params["mask_predictor"])
    }
    norms = {
        f"trunk/LayerNorm_{i}/{name}": ((8,), total)
        for i, (name, total) in itertools.product(
            range(3), [("bias", 0.0), ("scale", 8.0)]
        )
    }
    expected = known["parameters"] | norms
    assert params.keys() == {"mask_predictor"}
    assert {name: leaf.shape for name, leaf in found.items()} == {
        name: shape for name, (shape, _) in expected.items()
    }
    for name, (_, total) in expected.items():
        assert_close(np.abs(found[name]).sum(), np.array(total))
    sown = state["intermediates"]
    assert sown["rectangle"][0].angle.shape == (3,)
    numbers = np.stack(jax.tree.leaves(sown["rectangle"][0]), axis=-1)
    assert_close(numbers, known["rectangles"], atol=1e-6)
    mask = sown["mask"][0]
    values = [mask[0, 0, 0], mask[1, 3, 4], mask[2, 6, 9], mask.sum()]
    assert_close(np.stack([*values, np.abs(gated).sum()]), known["mask"])
    if predictor is MomentPredictor:
        assert sown["mask_predictor"]["heat"][0].shape == (3, 7, 10)


def union_by_hand(rectangles, sharpness, height, width):
    """Float64, from masks by plain loops."""
    closed = np.ones((height, width))
    for own in np.asarray(rectangles, np.float64):
        edges = sharpness / np.sqrt(max(own[2] * own[3], 0.05**2))
        closed *= 1 - oracle_mask(own, height, width, edges)
    return 1 - closed


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_the_mask_is_the_union_and_gates_and_counts_as_area(predictor):
    _, _, features, (gated, state) = case(predictor)
    (rectangles,) = attended_rectangles(state).values()
    (mask,) = attended_masks(state).values()
    assert isinstance(rectangles, Rectangle)
    assert rectangles.angle.shape == (COUNT, COUNT)
    expected = np.stack(
        [union_by_hand(own, 4.0, *SIZE) for own in rectangles.as_array()]
    )
    assert 0.1 < expected.mean() < 0.999
    assert_close(mask, expected)
    assert_close(gated, np.asarray(features) * expected[..., None])
    (area,) = mask_areas(attended_masks(state)).values()
    assert_close(area, expected.mean((1, 2)))


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_batch_as_large_as_the_count_is_what_its_images_are_alone(predictor):
    layer, variables, features, expected = case(predictor)
    run = functools.partial(apply, layer, variables)
    eager = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(run, features))
    mapped = jax.jit(jax.vmap(run))(features)
    for found in (eager, mapped):
        jax.tree.map(functools.partial(assert_close, atol=3e-5), found, expected)
    # They do differ, from image to image and from one rectangle to the next.
    array = expected[1]["intermediates"]["rectangle"][0].as_array()
    for axis in (0, 1):
        assert (jnp.abs(jnp.diff(array, axis=axis)).max(-1) > 1e-3).all()


@pytest.mark.parametrize(
    ("predictor", "size", "count"),
    [
        (MomentPredictor, (12, 12), 4),
        (RegressionPredictor, (9, 13), 5),
    ],
)
def test_at_first_they_differ_and_together_see_nearly_everything(
    predictor, size, count
):
    features = features_of((2, *size, 3))
    layer = RectangularAttention(predictor=predictor, count=count)

    def start(features):
        variables = {"params": layer.init(jax.random.key(1), features)["params"]}
        return layer.apply(variables, features, mutable=["intermediates"])[1]

    state = jax.device_get(jax.jit(start)(features))
    (rectangles,) = attended_rectangles(state).values()
    (mask,) = attended_masks(state).values()
    assert (mask.mean((-2, -1)) > 0.9).all()
    centers = np.stack([rectangles.center_x, rectangles.center_y], axis=-1)
    for first, second in itertools.combinations(range(count), 2):
        apart = np.hypot(*(centers[:, first] - centers[:, second]).T)
        assert (apart > 0.4).all()


@functools.cache
def gradient_of(predictor, dtype):
    layer = RectangularAttention(predictor=predictor, count=COUNT)

    def loss(params, features, sharpness):
        variables = {"params": params, **sharpness_schedule([""], sharpness)}
        gated, state = apply(layer, variables, features)
        mask: Any = state["intermediates"]["mask"][0]
        area = jnp.mean(mask)
        return jnp.sum(jnp.asarray(gated).astype(jnp.float32) ** 2) + area

    return jax.jit(jax.value_and_grad(loss, (0, 1)))


@pytest.mark.parametrize(
    ("predictor", "dtype"),
    [
        (MomentPredictor, jnp.float32),
        (MomentPredictor, jnp.bfloat16),
        (RegressionPredictor, jnp.float32),
    ],
)
def test_gradients_are_finite_also_where_masks_are_exactly_one(predictor, dtype):
    _, variables, features, _ = case(predictor)
    features = features.astype(dtype)
    # With such edges masks are exactly 0 and 1; features may be constant.
    for given, sharpness in ((features, 10.0), (features, 1e4), (features * 0, 10.0)):
        value, gradients = gradient_of(predictor, dtype)(
            variables["params"], given, sharpness
        )
        assert_tree_finite((value, gradients))
        if sharpness == 10.0 and given is features:
            own = gradients[0]["mask_predictor"]
            each = own["raw"]["bias"] if "raw" in own else own["log_factor"]
            # Every rectangle learns, and every tile may be left.
            assert (jnp.abs(each.reshape(COUNT, -1)).max(-1) > 0).all()
            assert "raw" in own or (jnp.abs(own["prior"]) > 0).all()


@pytest.mark.parametrize("size", [(7, 10), (30, 9), (1, 1), (3, 40)])
@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8])
def test_tiles_share_a_map_out(count: int, size: tuple[int, int]):
    boxes = tile_boxes(count, *size)
    sides = boxes[:, 2:] - boxes[:, :2]
    assert (sides > 0).all()
    assert np.prod(sides, axis=1).sum() == pytest.approx(1)
    points = np.random.default_rng(0).uniform(size=(200, 1, 2))
    inside = ((boxes[:, :2] < points) & (points < boxes[:, 2:])).all(-1)
    assert (inside.sum(1) == 1).all()
    # 4 divides none of the sides: cells are cut.
    cell = -(-max(size) // 4)
    grid = tuple(-(-side // cell) for side in size)
    shares = tile_shares(count, size[0], size[1], grid)
    assert shares.shape == (count, *grid)
    assert_close(shares.sum(0), np.ones(grid), dtype="float32")
    weights = [np.minimum(cell, side - np.arange(0, side, cell)) for side in size]
    pixels = np.einsum("kij,i,j->k", shares, *weights)
    assert_close(pixels, np.prod(sides, axis=1) * np.prod(size), dtype="float32")


def test_ranks_tell_several_rectangles_from_one_and_sizes_do_not():
    def layer(shape, mask):
        return {"rectangle": Rectangle.from_array(jnp.ones((*shape, 5))), "mask": mask}

    mask = np.ones((3, 4, 4))
    assert shows_several(layer((3, 3), mask))
    assert shows_several(layer((3, 1), mask))
    assert shows_several(layer((3,), mask[0]))
    assert not shows_several(layer((3,), mask))
    assert not shows_several(layer((), mask[0]))
    assert not shows_several({"mask": mask})
    with pytest.raises(ValueError, match=r"\(3, 3, 3\) and a mask \(3, 4, 4\)"):
        shows_several(layer((3, 3, 3), mask))
    (found,) = layer_evidence(case(MomentPredictor)[3][1]).values()
    assert shows_several(found)


def alone(dtype, param_dtype, name):
    return MomentPredictor(dtype=dtype, param_dtype=param_dtype, name=name)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"count": 2, "predictor": alone}, "takes `count`.* alone does not"),
        (
            {"predictor": functools.partial(MomentPredictor, count=2)},
            r"rectangles \(3, 2\) for maps \(3,\), .* count is 1; set the count on",
        ),
        (
            {
                "count": 2,
                "predictor": lambda count, **rest: MomentPredictor(count=3, **rest),
            },
            r"rectangles \(3, 3\) for maps \(3,\), .* count is 2",
        ),
    ],
)
def test_predictors_that_do_not_fit_the_count_are_refused(settings, message):
    layer = RectangularAttention(**settings)
    features = jax.ShapeDtypeStruct((3, *SIZE, 2), jnp.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(layer.init, jax.random.key(0), features)


@pytest.mark.parametrize("predictor", PREDICTORS)
def test_a_batch_spread_over_a_mesh_stays_spread(predictor):
    mesh = mesh_of("default")
    layer = RectangularAttention(
        predictor=functools.partial(predictor, max_grid=4), count=COUNT
    )
    x = jax.ShapeDtypeStruct((4, *SIZE, 4), jnp.float32)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)

    def spread(leaf, spec):
        sharding = jax.NamedSharding(mesh, spec)
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    with jax.set_mesh(mesh):
        params = jax.tree.map(lambda leaf: spread(leaf, P()), variables["params"])
        found = jax.eval_shape(
            jax.jit(functools.partial(apply, layer)),
            {"params": params},
            spread(x, P("batch")),
        )
    for leaf in jax.tree.leaves(found):
        assert leaf.sharding.spec[0] == "batch"


def test_crops_of_images_are_not_taken_for_those_of_rectangles():
    several = Rectangle.from_array(jnp.full((COUNT, COUNT, 5), 0.3))
    crops = jnp.array([[0.0, 0.0, 8.0, 8.0]]) * jnp.array([[1.0], [2.0], [3.0]])
    for function in (
        cram_jax.rectangle_polygon,
        cram_jax.rectangle_pixel_box,
        cram_jax.rectangle_pixel_area,
        cram_jax.is_wider_than_picture,
        cram_jax.covers_picture,
    ):
        with pytest.raises(ValueError, match=r"paired in two ways.*\[B, 1\]"):
            function(several, 8, 8, crop=crops)
    right = cram_jax.rectangle_polygon(several, 8, 8, crop=crops[:, None])
    # The same rectangles, in crops of 8, 16 and 24 pixels.
    expected = right[:1, :1] * jnp.arange(1.0, 4.0).reshape(3, 1, 1, 1)
    assert_close(right, jnp.broadcast_to(expected, right.shape))
