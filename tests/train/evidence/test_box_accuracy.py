"""Box accuracy and pixel precision, against scikit-learn, shapely and flood filling."""

import numpy as np
import pytest
import shapely
from sklearn.metrics import average_precision_score

from train.evidence.box_accuracy import (
    average_precision,
    box_iou,
    largest_region,
    map_boxes,
    pixel_counts,
    region_boxes,
    region_iou,
)
from train.evidence.choices import (
    THRESHOLDS,
    best_thresholds,
    constant_candidates,
    constant_values,
    threshold_values,
)

RNG = np.random.default_rng(0)


def filled(box, side=20):
    left, top, right, bottom = box
    region = np.zeros((side, side), bool)
    region[top:bottom, left:right] = True
    return region


def flooded(region):
    """The largest part by filling from each pixel in turn, one neighbour at a time."""
    seen, best = np.zeros_like(region), []
    for start in zip(*np.nonzero(region), strict=True):
        part, front = [], [start]
        while front:
            y, x = front.pop()
            inside = 0 <= y < region.shape[0] and 0 <= x < region.shape[1]
            if not inside or seen[y, x] or not region[y, x]:
                continue
            seen[y, x] = True
            part.append((y, x))
            front += [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        best = part if len(part) > len(best) else best
    found = np.zeros_like(region)
    for place in best:
        found[place] = True
    return found


def test_box_iou_is_that_of_polygons():
    corners = RNG.uniform(0, 10, (2, 50, 2, 2))
    boxes = np.concatenate([corners.min(axis=2), corners.max(axis=2)], axis=-1)
    for a, b, iou in zip(*boxes, box_iou(*boxes), strict=True):
        first, second = shapely.box(*a), shapely.box(*b)
        expected = first.intersection(second).area / first.union(second).area
        assert iou == pytest.approx(expected, abs=1e-9)
    assert box_iou(np.zeros(4), np.zeros(4)) == 0
    assert box_iou(np.full(4, np.nan), np.array([0, 0, 1, 1])) == 0


def test_the_largest_region_is_what_flooding_finds():
    for density in (0.0, 0.2, 0.3, 0.4, 0.6, 1.0):
        for _ in range(5):
            region = RNG.random((17, 23)) < density
            np.testing.assert_array_equal(largest_region(region), flooded(region))


def test_boxes_hold_all_pixels_and_no_empty_line():
    regions = RNG.random((40, 9, 13)) < 0.05
    for region, (left, top, right, bottom) in zip(
        regions, region_boxes(regions), strict=True
    ):
        rows, columns = np.nonzero(region)
        if len(rows):
            assert (left, right) == (columns.min(), columns.max() + 1)
            assert (top, bottom) == (rows.min(), rows.max() + 1)
        else:
            assert left == top == right == bottom == 0


def test_a_map_is_boxed_round_its_largest_region_at_the_threshold():
    values = 0.4 * filled((2, 3, 9, 12)) + 0.9 * filled((14, 14, 18, 16))
    low, high = map_boxes(values[None], 0.4), map_boxes(values[None], 0.5)
    np.testing.assert_array_equal(low, [[2, 3, 9, 12]])
    np.testing.assert_array_equal(high, [[14, 14, 18, 16]])
    np.testing.assert_array_equal(map_boxes(0 * values[None], 0.1), np.zeros((1, 4)))


@pytest.mark.parametrize("levels", [2, 7, 1000])
def test_average_precision_is_scikit_learns(levels):
    objects = RNG.random((6, 16, 16)) < 0.2
    values = np.round(RNG.random(objects.shape) * (levels - 1)) / levels
    values = np.where(objects & (RNG.random(objects.shape) < 0.5), 0.999, values)
    expected = average_precision_score(objects.ravel(), values.ravel())
    parts = [pixel_counts(values[i::2], objects[i::2]) for i in (0, 1)]
    assert average_precision(np.sum(parts, axis=0)) == pytest.approx(expected, abs=2e-3)
    assert np.isnan(average_precision(pixel_counts(values, objects & False)))


def test_region_iou_counts_pixels():
    a, b = RNG.random((2, 5, 8, 8)) < 0.5
    expected = [(x & y).sum() / (x | y).sum() for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(region_iou(a, b), expected)
    assert region_iou(a[0] & False, a[0] & False) == 0


def test_thresholds_are_those_that_reproduce_the_objects():
    objects = np.array([[3, 4, 12, 15], [5, 2, 14, 10]])
    regions = np.stack([filled(box) for box in objects])
    around = np.stack([filled(box) for box in objects + np.array([-2, -2, 3, 3])])
    # Right only between 0.3 and 0.6.
    maps = 0.3 * around + 0.3 * regions
    parts = [
        threshold_values(maps[i : i + 1], objects[i : i + 1], regions[i : i + 1])
        for i in range(2)
    ]
    values = np.sum(parts, axis=0)
    for threshold in best_thresholds(values):
        assert 0.3 < threshold <= 0.6
        np.testing.assert_array_equal(map_boxes(maps, threshold), objects)
    assert values.shape == (len(THRESHOLDS), 2)
    assert values.max() == pytest.approx(2)


def test_thresholds_hardly_depend_on_the_stride_of_large_maps():
    small = np.stack([filled((3, 4, 12, 15)), filled((5, 2, 14, 10))])
    maps = 0.5 * small + RNG.random(small.shape) * 0.4
    boxes = region_boxes(small)
    once = threshold_values(maps, boxes, small)
    large, regions = (x.repeat(10, 1).repeat(10, 2) for x in (maps, small))
    np.testing.assert_allclose(threshold_values(large, 10 * boxes, regions), once)


def test_the_constant_box_is_right_most_often():
    boxes = np.concatenate(
        [
            np.array([10, 10, 50, 50]) + RNG.integers(-3, 4, (30, 4)),
            np.array([60, 60, 90, 90]) + RNG.integers(-3, 4, (10, 4)),
        ]
    )
    regions = np.stack([filled(box, side=96) for box in boxes])
    candidates = constant_candidates(boxes)
    best = candidates[constant_values(candidates, boxes, regions).argmax(axis=0)]
    for box in best:
        assert np.mean(box_iou(box, boxes) >= 0.5) == 0.75
    assert np.mean(box_iou(boxes.mean(axis=0), boxes) >= 0.5) < 0.75


def test_values_of_constant_boxes_are_counted_pixels_and_polygons():
    regions = RNG.random((3, 20, 20)) < 0.3
    boxes = region_boxes(regions & filled((2, 3, 14, 15)))
    candidates = constant_candidates(boxes)
    candidates = np.concatenate([candidates, [[5, 5, 5, 9], [9, 2, 4, 8]]])
    values = constant_values(candidates, boxes, regions)
    for candidate, value in zip(candidates, values, strict=True):
        inside = filled(candidate.astype(int))
        assert value[1] == pytest.approx(region_iou(inside, regions).sum())
        iou = box_iou(candidate, boxes)
        hits = [iou >= least for least in (0.3, 0.5, 0.7)]
        assert value[0] == pytest.approx(np.sum(hits) / 3 + 1e-3 * iou.sum())
