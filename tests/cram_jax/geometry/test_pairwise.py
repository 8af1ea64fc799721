"""Overlaps of lists against shapely, pycocotools, and the differentiable ones."""

from typing import Any

import numpy as np
import pytest
import shapely
from pycocotools import mask as coco_mask

from cram_jax.geometry.pairwise import rotated_iou_matrix
from cram_jax.geometry.rectangle import Rectangle
from tests.checks import assert_close
from tests.cram_jax.geometry.test_overlap import (
    CASES,
    iou,
    polygons,
    random_rectangles,
    shapely_iou,
)

COUNT = 300
A = random_rectangles(1, count=17).astype(np.float64)
B = random_rectangles(2, count=23).astype(np.float64)


def pixel_boxes(rng, count, most=9):
    """Boxes between whole pixels, `[count, 5]`: overlaps are ratios of integers."""
    corner = rng.integers(0, most, (count, 2))
    half = rng.integers(1, most, (count, 2)) / 2
    return np.concatenate([corner + half, half, np.zeros((count, 1))], axis=1)


def coco_boxes(rectangles):
    """(left, top, width, height) of rectangles of angle 0."""
    center, half = rectangles[:, :2], rectangles[:, 2:4]
    return np.concatenate([center - half, 2 * half], axis=1)


@pytest.mark.parametrize("case", CASES)
def test_is_shapelys_to_rounding(case):
    a, b = (each[:COUNT] for each in CASES[case])
    matrix = rotated_iou_matrix(a, b, pairs=np.eye(COUNT, dtype=bool))
    assert matrix.dtype == np.float64
    # Shapely's own rounding is 1e-9 where edges of needles coincide.
    assert_close(np.diag(matrix), shapely_iou(a, b), atol=1e-8, rtol=0)
    assert np.count_nonzero(matrix) == np.count_nonzero(np.diag(matrix))
    assert matrix.min() >= 0
    assert matrix.max() <= 1


def test_every_pair_has_its_place():
    matrix = rotated_iou_matrix(A, B)
    expected = [shapely_iou(np.broadcast_to(a, B.shape), B) for a in A]
    assert_close(matrix, expected, atol=1e-12, rtol=0)
    a, b = A.astype(np.float32), B.astype(np.float32)
    assert_close(iou(a[:, None], b), matrix, atol=1e-5, rtol=0)
    np.testing.assert_array_equal(
        rotated_iou_matrix(Rectangle.from_array(a), Rectangle.from_array(b)),
        rotated_iou_matrix(a, b),
    )


@pytest.mark.parametrize(("most", "pixel"), [(9, 1), (200, 1), (30_000, 1 / 64)])
def test_boxes_between_pixels_are_pycocotools_to_the_last_digit(most, pixel):
    rng, unit = np.random.default_rng(0), np.array([pixel] * 4 + [0])
    a, b = pixel_boxes(rng, 300, most) * unit, pixel_boxes(rng, 200, most) * unit
    crowd = rng.random(200) < 0.3
    flags = crowd.astype(np.uint8)
    iou: Any = coco_mask.iou  # Its types name lists only.
    expected = np.asarray(iou(coco_boxes(a), coco_boxes(b), flags))
    np.testing.assert_array_equal(rotated_iou_matrix(a, b, crowd=crowd), expected)
    assert (expected == 0.5).sum() > (100 if most == 9 else -1)
    assert 0.2 < (expected > 0).mean() < 1


def test_the_share_in_a_crowd_is_shapelys():
    a, b = np.asarray(polygons(A))[:, None], np.asarray(polygons(B))
    expected = shapely.area(shapely.intersection(a, b)) / shapely.area(a)
    shares = rotated_iou_matrix(A, B, crowd=np.ones(len(B), bool))
    assert_close(shares, expected, atol=1e-12, rtol=0)
    assert shares.max() > 0.99


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 2, -7.0])
def test_a_rectangle_is_itself_exactly(angle):
    a = np.array([[3.7, -200.1, 5.3, 0.001, angle]])
    assert rotated_iou_matrix(a, a) == 1
    x, y, width, height, _ = a[0]
    renamed = np.array([[x, y, height, width, angle + np.pi / 2]])
    assert_close(rotated_iou_matrix(a, renamed), np.ones((1, 1)), atol=1e-11)


@pytest.mark.parametrize("scale", [1e-6, 37.3, 1e9])
def test_the_unit_does_not_matter(scale):
    units = np.array([scale, scale, scale, scale, 1])
    expected = rotated_iou_matrix(A, B)
    assert_close(rotated_iou_matrix(A * units, B * units), expected, atol=1e-12, rtol=0)


def test_what_has_no_area_or_is_no_number_overlaps_nothing():
    b = np.array([[0.0, 0, 1, 1, 0.4]])
    nothing = np.array([[0.0, 0, 0, 0, 0], [0, 0, 1, 0, 0.4], [0, 0, 1, 1e-18, 0.1]])
    strange = np.repeat(b, 10, axis=0)
    strange[range(5), range(5)] = np.nan
    strange[range(5, 10), range(5)] = np.inf
    for crowd in (None, np.ones(1, bool)):
        np.testing.assert_array_equal(rotated_iou_matrix(strange, b, crowd=crowd), 0)
        np.testing.assert_array_equal(
            rotated_iou_matrix(nothing[:2], b, crowd=crowd), 0
        )
    assert rotated_iou_matrix(nothing, nothing[[2]]).tolist() == [[0], [0], [1]]
    hairs = B * [1, 1, 1, 1e-18, 1]
    for matrix in (rotated_iou_matrix(A, hairs), rotated_iou_matrix(hairs, A)):
        assert 0 <= matrix.min() <= matrix.max() < 1e-16
    assert rotated_iou_matrix([], b).shape == (0, 1)
    assert rotated_iou_matrix(b, np.zeros((0, 5))).shape == (1, 0)


@pytest.mark.parametrize(
    ("rectangles", "message"),
    [
        (np.zeros((2, 4)), r"a must be \[N, 5\].*got shape \[2, 4\]"),
        (np.zeros(5), r"got shape \[5\]"),
        ([[0, 0, 1, -0.5, 0]], "half sizes that are not negative, got -0.5"),
    ],
)
def test_refuses_what_is_no_list_of_rectangles(rectangles, message):
    with pytest.raises(ValueError, match=message):
        rotated_iou_matrix(rectangles, B)
