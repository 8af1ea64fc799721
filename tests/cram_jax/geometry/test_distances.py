import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg

from cram_jax.geometry.distances import gaussian_distance_squared, rectangle_distance
from cram_jax.geometry.rectangle import (
    Rectangle,
    rectangle_corners,
    rectangle_covariance,
)
from tests.checks import (
    assert_close,
    assert_tree_finite,
    finite_difference_gradient,
)
from tests.cram_jax.geometry.test_rectangle import (
    SPECIAL_ANGLES,
    other_names,
    rectangles,
)

METRICS = ["gaussian", "parameters", "corners"]


def test_gaussian_agrees_with_matrix_square_roots():
    a, b = rectangles(0, 40), rectangles(1, 40)
    covariance_a = np.asarray(rectangle_covariance(a), np.float64)
    covariance_b = np.asarray(rectangle_covariance(b), np.float64)
    centers = (a.center_x - b.center_x) ** 2 + (a.center_y - b.center_y) ** 2
    expected = []
    for i in range(40):
        root = scipy.linalg.sqrtm(covariance_a[i])
        cross = np.real(scipy.linalg.sqrtm(root @ covariance_b[i] @ root))
        trace = np.trace(covariance_a[i] + covariance_b[i] - 2 * cross)
        expected.append(float(centers[i]) + trace)
    assert_close(gaussian_distance_squared(a, b), expected, atol=1e-5, rtol=1e-4)


def test_corners_agree_with_the_best_of_all_matchings():
    a, b = rectangles(2, 40), rectangles(3, 40)
    distance = rectangle_distance(a, b, metric="corners")
    corners_a = np.asarray(rectangle_corners(a), np.float64)
    corners_b = np.asarray(rectangle_corners(b), np.float64)
    # Rotations of the corner order suffice: no matching of the 24 is better.
    expected = [
        min(
            np.sqrt(np.mean(np.sum((corners_a[i] - corners_b[i, list(o)]) ** 2, -1)))
            for o in itertools.permutations(range(4))
        )
        for i in range(40)
    ]
    assert_close(distance, expected, rtol=1e-4)


def test_parameters_takes_the_angle_modulo_the_symmetry():
    a = Rectangle.from_array(jnp.array([0.0, 0.0, 0.5, 0.3, 0.1]))
    b = Rectangle.from_array(jnp.array([0.0, 0.0, 0.5, 0.3, 0.1 + np.pi - 0.02]))
    assert_close(rectangle_distance(a, b, metric="parameters"), 0.02, atol=1e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_zero_for_every_name_of_the_same_region(metric):
    r = rectangles(4, 64)
    for other in [r, *other_names(r)]:
        distance = rectangle_distance(r, other, metric=metric)
        assert_close(distance, np.zeros(64), atol=3e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_symmetric_positive_and_blind_to_names(metric):
    a, b = rectangles(5, 64), rectangles(6, 64)
    distance = rectangle_distance(a, b, metric=metric)
    assert (np.asarray(distance) > 1e-3).all()
    assert_close(rectangle_distance(b, a, metric=metric), distance)
    for other in other_names(b):
        assert_close(rectangle_distance(a, other, metric=metric), distance, atol=5e-6)


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_agrees_with_finite_differences(metric, x64):
    b = Rectangle.from_array(jnp.array([0.2, 0.1, 0.5, 0.45, 2.0]))

    def distance(array):
        return rectangle_distance(Rectangle.from_array(array), b, metric=metric)

    array = np.array([0.1, -0.3, 0.7, 0.4, 0.6])
    expected = finite_difference_gradient(distance, array)
    assert_close(jax.grad(distance)(array), expected, atol=5e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_gradient_finite_at_equal_square_and_degenerate(metric):
    sizes = [(0.0, 0.0), (1e-17, 1e-17), (0.5, 0.0), (0.5, 0.5), (0.5, 0.3)]
    array = jnp.array([[0, 0, w, h, a] for w, h in sizes for a in SPECIAL_ANGLES])

    def total(a, b):
        a, b = Rectangle.from_array(a), Rectangle.from_array(b)
        return rectangle_distance(a, b, metric=metric).sum()

    for other in (array, jnp.roll(array, 21, axis=0), jnp.zeros_like(array)):
        assert_tree_finite(jax.grad(total, (0, 1))(array, other))


def test_unknown_metric_is_refused():
    r = rectangles(0, 24)
    with pytest.raises(ValueError, match="'gausian'"):
        rectangle_distance(r, r, metric="gausian")
