from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from cram_jax.attention.moments import (
    heat_map_moments,
    pool_to_grid,
    rectangle_from_moments,
)
from cram_jax.attention.predictors import MomentPredictor, RegressionPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.geometry.coordinates import pixel_centers
from cram_jax.geometry.overlap import rotated_iou
from cram_jax.geometry.rectangle import Rectangle, rectangle_covariance
from cram_jax.geometry.similarity import Similarity, transform_rectangle
from tests.checks import assert_close, assert_tree_finite
from tests.cram_jax.geometry.test_rectangle import rectangles

PREDICTORS = [MomentPredictor, RegressionPredictor]


@pytest.mark.parametrize(
    ("shape", "cell"),
    [
        ((12, 12), 3),
        ((13, 7), 4),  # 4 to 8 divide neither side: cells are cut
        ((5, 31), 8),
        ((1, 1), 1),
        ((3, 2), 1),
        ((10, 5), 5),  # the least is 3
        ((14, 14), 7),  # 4
        ((9, 12), 3),
    ],
)
def test_pooling_averages_square_cells_and_cuts_the_last(shape, cell):
    values = np.random.default_rng(0).normal(size=(2, *shape, 3)).astype(np.float32)
    rows, columns = range(0, shape[0], cell), range(0, shape[1], cell)
    expected = [
        [values[:, i : i + cell, j : j + cell].mean((1, 2)) for j in columns]
        for i in rows
    ]
    expected = np.moveaxis(np.array(expected), 2, 0)
    assert_close(pool_to_grid(jnp.asarray(values), 4), expected)
    assert_close(pool_to_grid(jnp.asarray(values[0]), 4), expected[0])


@pytest.mark.parametrize("background", [0.0, 0.5, 0.99])
def test_moments_agree_with_plain_sums_over_pixels(background):
    height, width, cell = 9, 7, 2
    logits = np.random.default_rng(1).normal(size=(5, 4))
    # Spread each cell's weight evenly over its pixels, and each pixel over its square.
    weights = np.repeat(np.repeat(np.exp(logits), cell, 0), cell, 1)[:height, :width]
    weights = weights / weights.sum()
    weights = np.maximum(weights - background / weights.size, 0)
    weights = weights / weights.sum()
    x, y = (np.asarray(axis, np.float64) for axis in pixel_centers(height, width))
    mean_x, mean_y = (weights.sum(0) * x).sum(), (weights.sum(1) * y).sum()
    within = (2 / height) ** 2 / 12
    expected = [
        mean_x,
        mean_y,
        (weights.sum(0) * (x - mean_x) ** 2).sum() + within,
        (weights.sum(1) * (y - mean_y) ** 2).sum() + within,
        (weights * np.outer(y - mean_y, x - mean_x)).sum(),
    ]
    logits = jnp.asarray(logits, jnp.float32)
    actual = heat_map_moments(logits, height, width, background=background)
    assert_close(jnp.stack(actual), expected)


@pytest.mark.parametrize("shape", [(48, 48), (57, 31), (1, 1), (2, 9)])
@pytest.mark.parametrize("background", [0.0, 0.5])
def test_constant_heat_map_has_the_moments_of_the_whole_map(shape, background):
    grid = pool_to_grid(jnp.zeros((*shape, 1)), 16)[..., 0]
    moments = jnp.stack(heat_map_moments(grid, *shape, background=background))
    height, width = np.array(shape) / max(shape)
    assert_close(moments, [0, 0, width**2 / 3, height**2 / 3, 0], atol=1e-6)


def test_what_is_hardly_looked_at_neither_draws_nor_widens():
    peak = np.full((16, 16), -4.0, np.float32)
    peak[2:5, 9:13] = 2.0
    peak = jnp.asarray(peak)
    x, y, variance_x, variance_y, _ = heat_map_moments(peak, 16, 16, background=0.5)
    # Cells 9 to 12 of 16 and 2 to 4 of 16: exactly the block.
    assert_close(jnp.stack([x, y]), [11 / 8 - 1, 3.5 / 8 - 1], atol=1e-6)
    assert_close(jnp.stack([variance_x, variance_y]), [0.25**2 / 3, 0.1875**2 / 3])
    drawn = heat_map_moments(peak, 16, 16)
    assert drawn[1] > y + 0.02
    assert drawn[2] > 1.5 * variance_x


def test_gradients_of_moments_above_the_background_are_exact():
    logits = np.random.default_rng(2).normal(size=(6, 5)) * 2
    logits = jnp.asarray(logits, jnp.float32)

    def total(logits):
        moments = heat_map_moments(logits, 11, 9, background=0.5)
        return sum(weight * m for weight, m in enumerate(moments, start=1))

    # Float32 geometry: a wide step, and no cell crosses the background within it.
    check_grads(total, (logits,), order=1, eps=1e-2, atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize("place", [(0, 0), (3, 5), (6, 2)])
def test_the_rectangle_of_a_single_cell_is_not_turned(place):
    # Its covariance is rounding, which would choose any angle.
    logits = jnp.zeros((7, 7)).at[place].set(50.0)
    rectangle = rectangle_from_moments(*heat_map_moments(logits, 14, 14))
    assert_close(rectangle.angle, 0.0, atol=1e-6)
    assert_close(rectangle.half_width, rectangle.half_height, rtol=1e-3)


@pytest.mark.parametrize("background", [-0.1, 1.0])
def test_background_is_a_share_of_a_flat_map(background):
    with pytest.raises(ValueError, match=rf"background .* got {background}"):
        heat_map_moments(jnp.zeros((3, 3)), 3, 3, background=background)


def test_rectangle_from_moments_has_these_moments():
    r = rectangles(0, 64)
    c = rectangle_covariance(r)
    made = rectangle_from_moments(
        r.center_x, r.center_y, c[:, 0, 0], c[:, 1, 1], c[:, 0, 1]
    )
    assert_close(rectangle_covariance(made), c, atol=1e-5, rtol=1e-4)
    assert_close(made.center_x, r.center_x)
    large = np.maximum(np.asarray(r.half_width), np.asarray(r.half_height))
    assert_close(made.half_width, large, rtol=1e-3)


def test_moment_gradients_finite_at_round_flat_and_empty_covariances():
    cases = jnp.array(
        [[0.1, 0.1, 0.0], [0.3, 0.0, 0.0], [0.2, 0.2, 0.2], [0, 0, 0], [0.1, 0.3, 0]]
    )

    def total(case):
        zero = jnp.zeros(())
        made = rectangle_from_moments(zero, zero, *case)
        return jnp.sum(jnp.cos(made.as_array()))

    assert_tree_finite(jax.vmap(jax.value_and_grad(total))(cases))


def test_moment_angle_gradient_is_exact_away_from_round_maps(x64):
    def angle(case):
        zero = jnp.zeros(())
        return rectangle_from_moments(zero, zero, *case).angle

    # The bounded derivative differs by the ratio 1e-4 / (squared anisotropy).
    case = jnp.array([3.0, 1.0, 0.8])
    step = 1e-6 * jnp.eye(3)
    expected = [(angle(case + s) - angle(case - s)) / 2e-6 for s in step]
    assert_close(jax.grad(angle)(case), jnp.stack(expected), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize(
    "shape", [(2, 12, 20, 3), (1, 1, 1, 5), (7, 5, 2), (2, 3, 9, 9, 4)]
)
def test_one_rectangle_per_map_that_sees_everything_at_first(predictor, shape):
    features = jax.random.normal(jax.random.key(0), shape)
    start = jax.jit(predictor().init_with_output)
    rectangle, _ = start(jax.random.key(1), features)
    assert isinstance(rectangle, Rectangle)
    assert rectangle.angle.shape == shape[:-3]
    extents = np.array(shape[-3:-1])[::-1] / max(shape[-3:-1])
    assert_close(rectangle.center_x, np.zeros(shape[:-3]), atol=0.05)
    sizes = np.sort(np.stack([rectangle.half_width, rectangle.half_height], -1), -1)
    assert (sizes >= np.sort(1.2 * extents)).all()


@pytest.mark.parametrize("predictor", PREDICTORS)
@pytest.mark.parametrize("value", [0.0, 1.0, -1e4])
def test_constant_features_give_finite_gradients(predictor, value):
    features = jnp.full((2, 6, 5, 3), value)
    variables = jax.jit(predictor().init)(jax.random.key(0), features)

    def total(params, features):
        rectangle = predictor().apply({"params": params}, features)
        return jnp.sum(rectangle.as_array() ** 2)

    gradients = jax.jit(jax.grad(total, (0, 1)))(variables["params"], features)
    assert_tree_finite(gradients)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
@pytest.mark.parametrize("predictor", PREDICTORS)
def test_low_precision_features_give_float32_rectangles(predictor, dtype):
    features = jax.random.normal(jax.random.key(0), (2, 8, 8, 3), dtype)
    start = jax.jit(predictor().init_with_output)
    rectangle, variables = start(jax.random.key(1), features)
    for leaf in jax.tree.leaves(rectangle):
        assert leaf.dtype == jnp.float32
    for leaf in jax.tree.leaves(variables["params"]):
        assert leaf.dtype == jnp.float32
    assert_tree_finite(rectangle)


def test_moment_rectangle_moves_with_the_features():
    features = np.zeros((1, 32, 32, 4), np.float32)
    features[:, 12:18, 10:15] = np.random.default_rng(0).normal(size=(6, 5, 4))
    moved = np.roll(features, (4, 6), axis=(1, 2))
    predictor = MomentPredictor(max_grid=32, heat_init=jax.nn.initializers.normal(3.0))
    start = jax.jit(predictor.init_with_output)
    before, variables = start(jax.random.key(3), features)
    after: Any = predictor.apply(variables, moved)
    shift = np.array([6, 4]) * 2 / 32
    # Padding and the far border give the rest.
    assert_close(after.center_x - before.center_x, shift[:1], atol=0.02)
    assert_close(after.center_y - before.center_y, shift[1:], atol=0.02)
    assert_close(after.half_width, before.half_width, atol=0.02)


def test_pool_grid_below_one_is_refused():
    with pytest.raises(ValueError, match="got 0"):
        pool_to_grid(jnp.zeros((4, 4, 1)), 0)


@pytest.mark.parametrize(
    ("rotations", "shape", "quarters"),
    [(4, (12, 12), (1, 2, 3)), (4, (36, 36), (1,)), (4, (12, 7), (2,))],
)
def test_rotations_make_the_rectangle_turn_exactly(rotations, shape, quarters):
    features = jax.random.normal(jax.random.key(0), (3, *shape, 5))
    predictor = MomentPredictor(
        rotations=rotations, heat_init=jax.nn.initializers.normal(2.0)
    )
    plain = MomentPredictor(heat_init=jax.nn.initializers.normal(2.0))
    variables = jax.jit(predictor.init)(jax.random.key(1), features)
    locate = jax.jit(predictor.apply)
    rectangle = locate(variables, features)
    for k in quarters:
        # rot90 turns counterclockwise on screen, positive angles are clockwise.
        turn = Similarity(jnp.full(3, -k * jnp.pi / 2))
        turned = jnp.rot90(features, k, axes=(1, 2))
        expected = transform_rectangle(turn, rectangle)
        assert_close(
            rotated_iou(expected, locate(variables, turned)), np.ones(3), atol=1e-4
        )
        free: Any = plain.apply(variables, turned)
        assert (rotated_iou(expected, free) < 0.99).all()


def test_rotations_that_there_are_not_are_refused():
    layer = RectangularAttention(
        predictor=lambda **options: MomentPredictor(rotations=3, **options)
    )
    with pytest.raises(ValueError, match="rotations must be 1, 2 or 4; got 3"):
        layer.init(jax.random.key(0), jnp.ones((1, 8, 8, 2)))


def test_second_derivatives_of_the_moments_are_those_of_the_plain_formula():
    centers = (2 * np.arange(4) + 1) / 4 - 1

    def plain(logits):
        weights = jax.nn.softmax(logits.reshape(-1)).reshape(4, 4)
        x, y = centers, centers[:, None]
        mean_x, mean_y = (weights * x).sum(), (weights * y).sum()
        off_x, off_y = x - mean_x, y - mean_y
        seconds = off_x**2 + 0.5**2 / 12, off_y**2 + 0.5**2 / 12, off_x * off_y
        return jnp.stack([mean_x, mean_y, *((weights * s).sum() for s in seconds)])

    def ours(logits):
        return jnp.stack(heat_map_moments(logits, 4, 4))

    logits = jax.random.normal(jax.random.key(0), (4, 4))
    np.testing.assert_allclose(ours(logits), plain(logits), atol=1e-6)
    second, expected = (jax.jit(jax.hessian(f))(logits) for f in (ours, plain))
    assert np.abs(expected).max() > 0.01
    np.testing.assert_allclose(second, expected, atol=1e-6)
