"""Overlap of rectangles against shapely, finite differences, and itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely

from cram_jax.geometry.overlap import mask_iou, rectangle_intersection_area, rotated_iou
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask, render_mask
from tests.checks import assert_close, finite_difference_gradient

COUNT = 2000


def float32(values):
    return np.asarray(values, np.float32)


@jax.jit
def iou(a, b):
    return rotated_iou(Rectangle.from_array(a), Rectangle.from_array(b))


@jax.jit
def gradients(a, b):
    return jax.grad(lambda a, b: iou(a, b).sum(), argnums=(0, 1))(a, b)


def polygons(parameters):
    """Shapely polygons of [n, 5], the corners computed in float64."""
    x, y, w, h, angle = np.moveaxis(np.asarray(parameters, np.float64), -1, 0)[
        ..., None
    ]
    own_x, own_y = w * [-1, 1, 1, -1], h * [-1, -1, 1, 1]
    corners_x = x + np.cos(angle) * own_x - np.sin(angle) * own_y
    corners_y = y + np.sin(angle) * own_x + np.cos(angle) * own_y
    return shapely.polygons(np.stack([corners_x, corners_y], axis=-1))


def shapely_areas(a, b):
    a, b = polygons(a), polygons(b)
    return (shapely.area(shapely.intersection(a, b)), shapely.area(a), shapely.area(b))


def shapely_iou(a, b):
    shared, area_a, area_b = shapely_areas(a, b)
    return shared / (area_a + area_b - shared)


def random_rectangles(seed, *, least=0.02, most=1.2, count=COUNT):
    rng = np.random.default_rng(seed)
    columns = [
        rng.uniform(-1, 1, count),
        rng.uniform(-1, 1, count),
        rng.uniform(0.02, 1.2, count),
        rng.uniform(least, most, count),
        rng.uniform(-7, 7, count),
    ]
    return np.stack(columns, axis=-1).astype(np.float32)


def jittered(rectangles, size, seed=7):
    noise = np.random.default_rng(seed).normal(0, size, rectangles.shape)
    noise[:, 2:4] = 0
    return (rectangles + noise).astype(np.float32)


def renamed(rectangles, quarter_turns):
    result = rectangles.copy()
    result[:, 4] += np.float32(quarter_turns * np.pi / 2)
    if quarter_turns % 2:
        result[:, [2, 3]] = result[:, [3, 2]]
    return result


def edge_to_edge(rectangles):
    result, angle = rectangles.copy(), rectangles[:, 4].astype(np.float64)
    result[:, 0] += 2 * rectangles[:, 2] * np.cos(angle)
    result[:, 1] += 2 * rectangles[:, 2] * np.sin(angle)
    return result


def corner_to_corner(rectangles):
    x, y, w, h, angle = np.moveaxis(rectangles.astype(np.float64), -1, 0)
    result = rectangles.copy()
    result[:, 0] = x + 2 * (w * np.cos(angle) - h * np.sin(angle))
    result[:, 1] = y + 2 * (w * np.sin(angle) + h * np.cos(angle))
    return result


def on_a_lattice(seed):
    """Axis-aligned, of coarse sizes: edges and corners coincide all the time."""
    rng = np.random.default_rng(seed)
    result = np.round(random_rectangles(seed) * 8) / 8
    result[:, 2:4] = np.maximum(result[:, 2:4], 0.125)
    result[:, 4] = rng.integers(-4, 5, COUNT) * np.pi / 2
    return result.astype(np.float32)


def near_singular_angles(seed):
    rng = np.random.default_rng(seed)
    result = random_rectangles(seed)
    offsets = rng.choice([0, 1e-7, -1e-7, 1e-6, -1e-6], COUNT)
    result[:, 4] = rng.integers(-8, 9, COUNT) * np.pi / 4 + offsets
    return result


def shifted(rectangles, amount):
    return rectangles + float32([amount, 0, 0, 0, 0])


def resized(rectangles, factor):
    return rectangles * float32([1, 1, factor, factor, 1])


A, B = random_rectangles(0), random_rectangles(1)
NEEDLES = random_rectangles(2, least=1e-3, most=1e-2)
OTHER_NEEDLES = random_rectangles(3, least=1e-3, most=1e-2)
CASES = {
    "generic": (A, B),
    "identical": (A, A),
    "nearly identical": (A, jittered(A, 1e-6)),
    "one quarter turn": (A, renamed(A, 1)),
    "half turn": (A, renamed(A, 2)),
    "three quarter turns": (A, renamed(A, -3)),
    "contained": (A, resized(A, 0.5)),
    "containing": (resized(A, 0.25), A),
    "disjoint": (A, shifted(B, 6.0)),
    "touching edges": (A, edge_to_edge(A)),
    "touching corners": (A, corner_to_corner(A)),
    "lattice": (on_a_lattice(4), on_a_lattice(5)),
    "singular angles": (near_singular_angles(4), near_singular_angles(5)),
    "crossing needles": (NEEDLES, OTHER_NEEDLES),
    "close needles": (NEEDLES, jittered(NEEDLES, 1e-3)),
    "close turned needles": (NEEDLES, renamed(jittered(NEEDLES, 1e-3), 2)),
    "close quarter-turned needles": (renamed(jittered(NEEDLES, 1e-3), 3), NEEDLES),
    "needle and rectangle": (NEEDLES, B),
    "rectangle and needle": (A, NEEDLES),
}


@pytest.mark.parametrize("case", CASES)
def test_float32_iou_agrees_with_shapely_to_1e_5_and_has_a_finite_gradient(case):
    a, b = CASES[case]
    values = iou(a, b)
    assert values.dtype == jnp.float32
    assert_close(values, shapely_iou(a, b), atol=1e-5, rtol=0)
    assert np.min(values) >= 0
    assert np.max(values) <= 1
    for gradient in gradients(a, b):
        assert np.isfinite(gradient).all()


def test_the_cases_are_what_their_names_say():
    values = {name: shapely_iou(a, b) for name, (a, b) in CASES.items()}
    assert values["identical"].min() > 1 - 1e-9
    assert values["half turn"].min() > 1 - 1e-4
    assert abs(values["contained"] - 0.25).max() < 1e-6
    assert values["disjoint"].max() == 0
    assert 0 < values["touching edges"].max() < 1e-4
    assert (values["lattice"] == 0).any()
    for name in ("generic", "lattice", "singular angles", "close turned needles"):
        assert (values[name] > 0.3).sum() > 20, name


def test_a_small_rectangle_far_from_the_centre_keeps_its_digits():
    small = float32([[0.9, 0.7, 1e-3, 2e-3, 0.3]])
    large = float32([[0.1, 0.2, 1.5, 1.5, 0.4]])
    area = rectangle_intersection_area(
        Rectangle.from_array(large), Rectangle.from_array(small)
    )
    # The corners are rounded to 6e-8 at 0.9, which is 6e-5 of the half width.
    assert_close(area, np.array([8e-6]), atol=0, rtol=2e-4)


def test_iou_does_not_depend_on_the_order():
    assert_close(iou(A, B), iou(B, A), atol=1e-6, rtol=0)


def test_rectangles_without_area_overlap_nothing_and_have_finite_gradients():
    point = A * float32([1, 1, 0, 0, 1])
    line = A * float32([1, 1, 1, 0, 1])
    hair = A * float32([1, 1, 1, 1e-18, 1])
    for a, b in [(point, point), (line, line), (hair, hair), (A, point), (line, A)]:
        np.testing.assert_array_equal(iou(a, b), 0)
        for gradient in gradients(a, b):
            assert np.isfinite(gradient).all()


@pytest.mark.usefixtures("x64")
def test_gradient_agrees_with_finite_differences_and_forward_mode():
    a = random_rectangles(6, count=40).astype(np.float64) * [0.5, 0.5, 1, 1, 1]
    b = random_rectangles(8, count=40).astype(np.float64) * [0.5, 0.5, 1, 1, 1]
    both = np.concatenate([a, b], axis=-1)

    def values(both):
        return iou(both[..., :5], both[..., 5:])

    def total(both):
        return values(both).sum()

    gradient = jax.grad(total)(both)
    expected = finite_difference_gradient(jax.jit(total), both, step=1e-6)
    assert_close(gradient, expected, atol=1e-7, rtol=1e-6)
    assert np.abs(expected).max() > 0.5
    for column in range(10):
        tangent = np.zeros_like(both)
        tangent[:, column] = 1
        forward = jax.jvp(values, (both,), (tangent,))[1]
        assert_close(forward, gradient[:, column], atol=1e-12)


@pytest.mark.usefixtures("x64")
def test_gradient_at_a_kink_lies_between_the_one_sided_ones():
    same = np.array([0.1, -0.2, 0.5, 0.3, 0.7])

    def widened(change):
        return iou(same, same + change * np.array([0, 0, 1, 0, 0]))

    ahead = float(widened(1e-6) - 1) / 1e-6
    behind = float(1 - widened(-1e-6)) / 1e-6
    slope = float(jax.grad(widened)(0.0))
    assert ahead < -1
    assert behind > 1
    assert ahead - 1e-4 <= slope <= behind + 1e-4


def test_area_in_float64_is_shapely_to_rounding(x64):
    a, b = A.astype(np.float64), B.astype(np.float64)
    area = rectangle_intersection_area(Rectangle.from_array(a), Rectangle.from_array(b))
    assert_close(area, shapely_areas(a, b)[0], atol=1e-13, rtol=1e-12)


def test_batch_axes_broadcast_and_vmap_and_eager_agree():
    a, b = A[:7], B[:5]
    table = iou(a[:, None], b)
    assert table.shape == (7, 5)
    rows = jax.vmap(lambda one: jax.vmap(lambda other: iou(one, other))(b))(a)
    assert_close(rows, table, atol=1e-7)
    with jax.disable_jit():
        assert_close(iou(a[2], b[3]), table[2, 3], atol=1e-7)


def test_half_precision_parameters_are_computed_in_float32():
    half = Rectangle.from_array(jnp.asarray(A[:50], jnp.bfloat16))
    values = rotated_iou(half, Rectangle.from_array(jnp.asarray(B[:50], jnp.bfloat16)))
    assert values.dtype == jnp.float32
    rounded = [np.asarray(x[:50].astype(jnp.bfloat16), np.float32) for x in (A, B)]
    assert_close(values, shapely_iou(*rounded), atol=1e-5, rtol=0)


def test_mask_iou_of_hard_masks_counts_pixels():
    a = np.zeros((3, 11, 13), bool)
    b = np.zeros((11, 13), bool)
    a[0, 2:6, 3:9] = True
    a[1, 5:9, 3:9] = True
    b[2:6, 3:9] = True
    assert_close(mask_iou(a, b), float32([1, 6 / 42, 0]), atol=1e-7)


def test_mask_iou_of_two_empty_masks_is_zero_with_a_finite_gradient():
    empty = jnp.zeros((5, 7))
    assert mask_iou(empty, empty) == 0
    assert np.isfinite(jax.grad(mask_iou)(empty, empty)).all()


def test_mask_iou_of_fine_masks_tends_to_the_exact_one():
    a, b = float32([0.1, 0, 0.5, 0.3, 0.4]), float32([0, 0.1, 0.4, 0.4, -0.2])
    rectangles = Rectangle.from_array(a), Rectangle.from_array(b)
    hard = mask_iou(*(render_hard_mask(r, 256, 256) for r in rectangles))
    assert_close(hard, iou(a, b), atol=0.01, rtol=0)
    soft = mask_iou(*(render_mask(r, 256, 256, sharpness=80.0) for r in rectangles))
    assert_close(soft, iou(a, b), atol=0.02, rtol=0)


@pytest.mark.parametrize(("shape", "other"), [((5, 7), (7, 5)), ((5,), (5,))])
def test_mask_iou_refuses_maps_that_do_not_match(shape, other):
    with pytest.raises(ValueError, match=r"same two last axes \[\.\.\., H, W\]"):
        mask_iou(np.zeros(shape), np.zeros(other))
