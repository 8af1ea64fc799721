import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely
import shapely.affinity
from hypothesis import given, settings
from hypothesis import strategies as st

from cram_jax.geometry.raw import rectangle_from_raw, rectangle_to_raw
from cram_jax.geometry.rectangle import (
    NEUTRAL_HALF_SIZE,
    Rectangle,
    canonical_rectangle,
    rectangle_area,
    rectangle_corners,
    rectangle_covariance,
    rectangle_hull,
)
from tests.checks import (
    assert_close,
    assert_tree_finite,
    finite_difference_gradient,
)

SPECIAL_ANGLES = [
    base + offset
    for base in np.deg2rad([0, 45, 90, 135, 180, -90, 270])
    for offset in (0.0, 1e-6, -1e-6)
]


def rectangles(seed: int, count: int) -> Rectangle:
    """Generic rectangles, and every special angle."""
    generator = np.random.default_rng(seed)
    array = np.stack(
        [
            generator.uniform(-1, 1, count),
            generator.uniform(-1, 1, count),
            generator.uniform(0.05, 1.5, count),
            generator.uniform(0.05, 1.5, count),
            generator.uniform(-4, 4, count),
        ],
        axis=-1,
    )
    array[: len(SPECIAL_ANGLES), 4] = SPECIAL_ANGLES
    return Rectangle.from_array(jnp.asarray(array, jnp.float32))


def other_names(r: Rectangle) -> list[Rectangle]:
    """Other parameters of the same regions."""
    half_turn = dataclasses.replace(r, angle=r.angle + jnp.pi)
    swapped = dataclasses.replace(
        r,
        half_width=r.half_height,
        half_height=r.half_width,
        angle=r.angle + jnp.pi / 2,
    )
    return [
        half_turn,
        swapped,
        dataclasses.replace(swapped, angle=r.angle - jnp.pi / 2),
    ]


def polygon(parameters) -> shapely.Polygon:
    x, y, w, h, angle = (float(p) for p in parameters)
    box = shapely.affinity.rotate(
        shapely.box(-w, -h, w, h), angle, origin=(0, 0), use_radians=True
    )
    return shapely.affinity.translate(box, x, y)


def test_array_round_trip_keeps_field_order():
    array = jnp.arange(30.0).reshape(2, 3, 5)
    rectangle = Rectangle.from_array(array)
    assert_close(rectangle.half_height, array[..., 3])
    assert_close(rectangle.as_array(), array)


def test_rectangle_is_a_pytree_under_jit_and_vmap():
    r = rectangles(0, 24)
    area = 4 * np.asarray(r.half_width) * np.asarray(r.half_height)
    assert_close(jax.jit(rectangle_area)(r), area)
    assert_close(jax.vmap(rectangle_area)(r), area)


@pytest.mark.parametrize("extents", [(1.0, 1.0), (1.0, 0.5), (0.03, 1.0)])
def test_raw_zeros_are_neutral(extents):
    rectangle = rectangle_from_raw(
        jnp.zeros((3, 5)), extent_x=extents[0], extent_y=extents[1]
    )
    assert_close(rectangle.center_x, np.zeros(3))
    assert_close(rectangle.angle, np.zeros(3))
    for size, extent in zip(
        (rectangle.half_width, rectangle.half_height), extents, strict=True
    ):
        # A side under the smallest size is covered all the more.
        assert (np.asarray(size) >= NEUTRAL_HALF_SIZE * extent - 1e-6).all()


@settings(max_examples=50, deadline=None)
@given(
    raw=st.lists(st.floats(-4, 4, width=32), min_size=5, max_size=5),
    extent_y=st.floats(0.1, 1.0),
)
def test_raw_round_trip(raw, extent_y):
    raw = jnp.asarray(raw, jnp.float32)
    rectangle = rectangle_from_raw(raw, extent_y=extent_y)
    back = rectangle_to_raw(rectangle, extent_y=extent_y)
    # tanh and sigmoid flatten towards their ends, where digits are lost.
    assert_close(back, raw, atol=2e-3, rtol=2e-3)


def test_raw_extremes_are_finite_with_finite_gradients():
    raw = jnp.array([[1e4] * 5, [-1e4] * 5, [0.0] * 5])

    def total(raw):
        return jnp.sum(rectangle_from_raw(raw).as_array())

    rectangle = rectangle_from_raw(raw)
    assert_tree_finite([rectangle, jax.grad(total)(raw)])
    assert (np.asarray(rectangle.half_width) <= 2.0).all()
    assert (np.asarray(rectangle.half_width) >= 0.05 - 1e-7).all()


def test_half_precision_raw_gives_float32_geometry():
    rectangle = rectangle_from_raw(jnp.ones((5,), jnp.bfloat16))
    assert {leaf.dtype for leaf in jax.tree.leaves(rectangle)} == {jnp.dtype("float32")}


def test_corners_hull_and_area_agree_with_shapely():
    r = rectangles(1, 64)
    corners, hull, area = rectangle_corners(r), rectangle_hull(r), rectangle_area(r)
    for i, parameters in enumerate(np.asarray(r.as_array())):
        expected = polygon(parameters)
        assert_close(
            corners[i],
            np.array(expected.exterior.coords)[[2, 3, 0, 1]][
                match_start(corners[i], expected)
            ],
        )
        assert_close(hull[i], expected.bounds)
        assert_close(area[i], expected.area, rtol=1e-5)


def match_start(corners, expected: shapely.Polygon) -> list[int]:
    """Rolls shapely's corners to start at ours; the cyclic order must then agree."""
    points = np.array(expected.exterior.coords)[[2, 3, 0, 1]]
    start = int(np.argmin(np.sum((points - np.asarray(corners[0])) ** 2, axis=-1)))
    step = 1 if np.allclose(points[(start + 1) % 4], corners[1], atol=1e-4) else -1
    return [(start + step * k) % 4 for k in range(4)]


def test_corners_of_a_quarter_turn_on_screen():
    # Clockwise on screen: "right" becomes "down" (y points down).
    r = Rectangle.from_array(jnp.array([0.1, 0.2, 0.5, 0.25, jnp.pi / 2]))
    expected = [[0.35, -0.3], [0.35, 0.7], [-0.15, 0.7], [-0.15, -0.3]]
    assert_close(rectangle_corners(r), expected)


def test_covariance_is_that_of_points_inside():
    r = Rectangle.from_array(jnp.array([0.3, -0.2, 0.8, 0.3, 0.7]))
    generator = np.random.default_rng(0)
    own = generator.uniform(-1, 1, (400_000, 2)) * [0.8, 0.3]
    cos, sin = np.cos(0.7), np.sin(0.7)
    points = own @ np.array([[cos, sin], [-sin, cos]])
    assert_close(rectangle_covariance(r), np.cov(points.T), atol=2e-3, rtol=1e-2)


def test_functions_of_the_region_ignore_its_name():
    r = rectangles(2, 64)
    for other in other_names(r):
        for function in (rectangle_area, rectangle_hull, rectangle_covariance):
            assert_close(function(other), function(r))


def test_canonical_is_one_name_of_the_same_region():
    r = rectangles(3, 64)
    # Off the seam, where rounding may choose either of two equal names.
    r = dataclasses.replace(r, angle=r.angle + 0.01)
    canonical = canonical_rectangle(r)
    assert_close(rectangle_covariance(canonical), rectangle_covariance(r))
    assert (np.asarray(canonical.angle) >= -np.pi / 4 - 1e-6).all()
    assert (np.asarray(canonical.angle) < np.pi / 4 + 1e-6).all()
    for other in other_names(r):
        assert_close(canonical_rectangle(other).as_array(), canonical.as_array())


@pytest.mark.parametrize(
    "function",
    [rectangle_corners, rectangle_area, rectangle_hull, rectangle_covariance],
)
def test_gradients_agree_with_finite_differences(function, x64):
    def total(array):
        weights = jnp.sin(jnp.arange(1.0, 1.0 + 8))
        values = function(Rectangle.from_array(array)).reshape(-1)
        return jnp.sum(values * weights[: values.size])

    array = np.array([0.1, -0.3, 0.7, 0.4, 0.6])
    expected = finite_difference_gradient(total, array)
    assert_close(jax.grad(total)(array), expected, atol=5e-4)
    assert_close(jax.jacfwd(total)(array), expected, atol=5e-4)


@pytest.mark.parametrize(
    "function",
    [rectangle_corners, rectangle_area, rectangle_hull, rectangle_covariance],
)
def test_gradients_finite_at_degenerate_sizes_and_quarter_turns(function):
    sizes = [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5)]
    array = jnp.array([[0, 0, w, h, a] for w, h in sizes for a in SPECIAL_ANGLES])
    gradient = jax.grad(lambda a: function(Rectangle.from_array(a)).sum())(array)
    assert_tree_finite(gradient)


def test_wrong_last_axis_and_bounds_are_refused():
    with pytest.raises(ValueError, match=r"five parameters.*\(3, 4\)"):
        rectangle_from_raw(jnp.zeros((3, 4)))
    with pytest.raises(ValueError, match="five parameters"):
        Rectangle.from_array(jnp.zeros(()))
    sizes = {"min_half_size": 1.0, "max_half_size": 0.5}
    with pytest.raises(ValueError, match=r"min_half_size=1\.0 and max"):
        rectangle_from_raw(jnp.zeros(5), **sizes)
    with pytest.raises(ValueError, match=r"min_half_size=1\.0 and max"):
        rectangle_to_raw(Rectangle.from_array(jnp.ones(5)), **sizes)
