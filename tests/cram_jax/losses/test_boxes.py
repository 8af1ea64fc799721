"""Losses of boxes against optax, scipy and shapely; gradients at the awkward pairs."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.linalg

from cram_jax.geometry.cells import (
    cell_grid,
    other_name,
    rectangle_from_code,
    rectangle_to_code,
)
from cram_jax.geometry.rectangle import Rectangle, rectangle_covariance
from cram_jax.losses.boxes import (
    gaussian_box_loss,
    iou_box_loss,
    positive_sums,
    smooth_l1_box_loss,
)
from tests.checks import assert_close, finite_difference_gradient
from tests.cram_jax.geometry.test_overlap import float32, random_rectangles, shapely_iou

GRID = cell_grid(16, 16)
CELL = np.int32(7 * 16 + 9)


def smooth_l1(a, b):
    """The loss of rectangles, both seen from one cell."""
    codes = [rectangle_to_code(r, jnp.full(r.angle.shape, CELL), GRID) for r in (a, b)]
    return smooth_l1_box_loss(*codes)


LOSSES = {
    "smooth l1": smooth_l1,
    "gaussian log1p": gaussian_box_loss,
    "gaussian sqrt": functools.partial(gaussian_box_loss, function="sqrt"),
    "gaussian tau": functools.partial(gaussian_box_loss, tau=3.0),
    "iou": iou_box_loss,
}
# All tests give so many pairs, so that each loss is compiled once for each dtype.
COUNT = 24


def _compiled(loss):
    def total(a, b):
        values = loss(Rectangle.from_array(a), Rectangle.from_array(b))
        return jnp.sum(values), values

    return jax.jit(jax.value_and_grad(total, has_aux=True))


COMPILED = {name: _compiled(loss) for name, loss in LOSSES.items()}


def values_and_gradients(name, a, b, dtype: Any = np.float32):
    """Of each of up to 24 pairs."""
    a, b = np.asarray(a, dtype), np.asarray(b, dtype)
    rows = np.arange(COUNT) % len(a)
    (_, values), gradients = COMPILED[name](a[rows], b[rows])
    return np.asarray(values)[: len(a)], np.asarray(gradients)[: len(a)]


PAIRS = {
    "identical": ([0.1, 0.2, 0.5, 0.3, 0.7], [0.1, 0.2, 0.5, 0.3, 0.7]),
    "disjoint": ([-0.8, -0.8, 0.1, 0.05, 0.7], [0.8, 0.8, 0.1, 0.2, -1]),
    "needles": ([0.1, 0.2, 0.9, 1e-7, 0.7], [0.1, 0.2, 0.9, 1e-7, 0.70001]),
    "needle predicted": ([0.1, 0.2, 0.9, 0.0, 0.7], [0.1, 0.2, 0.5, 0.3, 0.7]),
    "squares": ([0.1, 0.2, 0.3, 0.3, 0.7], [0.1, 0.2, 0.3, 0.3, 0.2]),
    "same square": ([0.1, 0.2, 0.3, 0.3, 0.7], [0.1, 0.2, 0.3, 0.3, 0.7 + np.pi / 2]),
    "points": ([0.1, 0.2, 0, 0, 0.7], [0.1, 0.2, 0, 0, 0.7]),
    "inside": ([0, 0, 0.1, 0.1, 0], [0, 0, 0.6, 0.5, 0]),
}


def renamed(array, quarter_turns):
    result = np.array(array)
    result[..., 4] += quarter_turns * np.pi / 2
    if quarter_turns % 2:
        result[..., [2, 3]] = result[..., [3, 2]]
    return result


def random_pairs(seed, least=0.1):
    a, b = (random_rectangles(seed + i, least=least, count=COUNT) for i in range(2))
    return [each * float32([0.4, 0.4, 1, 1, 1]) for each in (a, b)]


@pytest.mark.parametrize("name", LOSSES)
def test_values_and_gradients_are_finite_at_awkward_pairs(name):
    values, gradients = values_and_gradients(name, *zip(*PAIRS.values(), strict=True))
    for what, value, gradient in zip(PAIRS, values, gradients, strict=True):
        assert np.isfinite(value), what
        assert np.isfinite(gradient).all(), what
    # The first pair is identical.
    assert_close(values[0], 2 / 3 if name == "gaussian tau" else 0, atol=1e-6)
    # A disjoint pair is pulled together, but for the loss that cannot.
    pulled = gradients[list(PAIRS).index("disjoint")]
    assert (np.abs(pulled[:2]).max() > 0) == (name != "iou")
    assert (pulled[:2] <= 0).all()


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_finite_differences_where_smooth(name):
    a, b = (each.astype(np.float64) for each in random_pairs(6))
    gradient = values_and_gradients(name, a, b, np.float64)[1]

    def value(a):
        return COMPILED[name](a, b)[0][0]

    expected = finite_difference_gradient(value, a, step=1e-6)
    assert_close(gradient, expected, atol=1e-7, rtol=1e-6)
    assert np.abs(expected).max() > 0.1


@pytest.mark.parametrize("name", LOSSES)
def test_all_names_of_a_region_cost_the_same(name):
    a, b = random_pairs(1)
    expected = values_and_gradients(name, a, b)[0]
    assert expected.shape == (COUNT,)
    for turns in (1, 2, -1):
        other_a, other_b = renamed(a, turns), renamed(b, turns)
        assert_close(values_and_gradients(name, other_a, b)[0], expected, atol=1e-4)
        assert_close(values_and_gradients(name, a, other_b)[0], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "f", "tau"),
    [
        ("gaussian log1p", np.log1p, 1),
        ("gaussian sqrt", np.sqrt, 1),
        ("gaussian tau", np.log1p, 3),
    ],
)
def test_gaussian_loss_is_the_formula_with_scipys_matrix_roots(name, f, tau):
    a, b = random_pairs(3)
    found = values_and_gradients(name, a, b)[0]
    covariances = [
        np.asarray(rectangle_covariance(Rectangle.from_array(each)), np.float64)
        for each in (a, b)
    ]
    for i, (first, second) in enumerate(zip(*covariances, strict=True)):
        root = scipy.linalg.sqrtm(first)
        inner = np.real(scipy.linalg.sqrtm(root @ second @ root))
        squared = np.sum((a[i, :2] - b[i, :2]) ** 2, dtype=np.float64)
        squared += np.trace(first + second - 2 * inner)
        # In units of the geometric mean of the true half sizes.
        squared /= b[i, 2] * b[i, 3]
        assert_close(found[i], 1 - 1 / (tau + f(squared)), atol=1e-4)


def test_gaussian_loss_is_the_same_at_any_scale_and_does_not_reward_size():
    a, b = random_pairs(5)
    scale = float32([0.05, 0.05, 0.05, 0.05, 1])
    small = values_and_gradients("gaussian log1p", a * scale, b * scale)[0]
    large = values_and_gradients("gaussian log1p", a, b)[0]
    assert_close(small, large, atol=1e-5)
    # At the right size and angle, but beside it: growing must not help.
    beside = b + float32([0.3, 0.2, 0, 0, 0])
    gradients = values_and_gradients("gaussian log1p", beside, b)[1]
    assert_close(gradients[:, 2:4], np.zeros((COUNT, 2)), atol=1e-5)


def test_iou_loss_is_shapelys_and_cannot_pull_disjoint_rectangles():
    a, b = random_pairs(11, least=0.02)
    found = values_and_gradients("iou", a, b)[0]
    assert_close(found, 1 - shapely_iou(a, b), atol=2e-6, rtol=0)
    first, second = PAIRS["disjoint"]
    value, gradient = values_and_gradients("iou", [first], [second])
    assert value == 1
    assert not gradient.any()


def test_smooth_l1_is_optax_huber_loss_over_its_delta():
    rng = np.random.default_rng(0)
    code, true = jnp.asarray(rng.normal(size=(2, 50, 6)), jnp.float32)
    true = true.at[:, 2].set(true[:, 3] + 1)
    expected = optax.huber_loss(code, true, delta=0.3).sum(-1) / 0.3
    assert_close(smooth_l1_box_loss(code, true, beta=0.3), expected)


def test_a_nearly_square_truth_does_not_jump_where_its_longer_side_changes():
    code = jnp.array([0.1, -0.2, 0.05, 0.1, 0.6, 0.5])
    wide = jnp.array([0.0, 0.1, 0.101, 0.1, np.cos(0.8), np.sin(0.8)])
    # As high as wide was wide: its code has the other angle.
    high = jnp.array([0.0, 0.1, 0.101, 0.1, -np.cos(0.8), -np.sin(0.8)])
    losses = [float(smooth_l1_box_loss(code, true)) for true in (wide, high)]
    assert_close(losses[0], losses[1], atol=5e-3)
    apart = [
        float(smooth_l1_box_loss(code, true, square_ratio=1.0)) for true in (wide, high)
    ]
    assert abs(apart[0] - apart[1]) > 1
    assert_close(min(apart), min(losses), atol=5e-3)
    assert_close(smooth_l1_box_loss(other_name(wide), wide), 0)
    elongated = wide + jnp.array([0, 0, 1, 0, 0, 0])
    assert smooth_l1_box_loss(other_name(elongated), elongated) > 1


@pytest.mark.parametrize("name", ["gaussian sqrt", "iou"])
def test_gradients_through_the_decoding_are_finite_at_any_code(name):
    codes = np.zeros((4, 6), np.float32)
    codes[1, 2:4] = 30, -30
    codes[2, 4:] = 1e-20, -1e-20
    codes[3] = [200, -300, 2, 2, -1, 0]
    cells = jnp.full(4, CELL)

    def decoded(codes):
        return rectangle_from_code(codes, cells, GRID).as_array()

    rectangles, pull_back = jax.vjp(jax.jit(decoded), codes)
    true = np.tile(float32([0.1, -0.1, 0.4, 0.2, 1.0]), (4, 1))
    values, gradients = values_and_gradients(name, rectangles, true)
    (gradients,) = pull_back(jnp.asarray(gradients))
    assert np.isfinite(values).all()
    assert np.isfinite(gradients).all()
    assert np.abs(gradients[0]).max() > 0


def test_half_floats_are_computed_in_float32():
    half = jax.tree.map(jnp.bfloat16, Rectangle(*PAIRS["inside"][0]))
    assert half.angle.dtype == jnp.bfloat16
    for loss in LOSSES.values():
        assert jax.eval_shape(loss, half, half).dtype == jnp.float32
    code = jax.ShapeDtypeStruct((6,), jnp.bfloat16)
    assert jax.eval_shape(smooth_l1_box_loss, code, code).dtype == jnp.float32


def test_sums_of_parts_are_those_of_the_whole_and_padding_may_hold_anything():
    losses = jnp.array([[1.0, 2.0, jnp.nan], [4.0, jnp.inf, 8.0], [1.0, 1.0, 1.0]])
    positive = jnp.array([[True, True, False], [True, False, True], [False] * 3])
    total, weight = positive_sums(losses, positive)
    assert_close(total, [3, 12, 0])
    assert_close(weight, [2, 2, 0])
    whole, all_of_them = positive_sums(losses.reshape(-1), positive.reshape(-1))
    assert (float(whole), float(all_of_them)) == (15, 4)
    gradient = jax.grad(lambda losses: positive_sums(losses, positive)[0].sum())(losses)
    assert_close(gradient, np.asarray(positive, np.float32))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: gaussian_box_loss(r, r, function="log"), "Unknown function 'log'"),
        (lambda r: gaussian_box_loss(r, r, tau=0.5), "tau must be at least 1"),
        (lambda r: smooth_l1_box_loss(r, r, beta=0), "beta must be positive"),
        (
            lambda r: smooth_l1_box_loss(r, r, square_ratio=0.9),
            "square_ratio must be at least 1",
        ),
    ],
)
def test_mistakes_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call(Rectangle(0.0, 0.0, 1.0, 1.0, 0.0))
