"""What a view shows of the objects of an image."""

import dataclasses

import numpy as np
import pytest
import shapely

from train.data.objects.seen import visible_objects
from train.data.sources.base import Objects
from train.data.views import View, isotropic_to_pixel, visible_rectangle

HEIGHT, WIDTH = 61, 83


def objects_of(rectangles, labels=None, ignored=None):
    count = len(rectangles)
    return Objects(
        np.asarray(rectangles, np.float64).reshape(-1, 5),
        np.arange(count) if labels is None else np.asarray(labels, np.int64),
        np.zeros(count, bool) if ignored is None else np.asarray(ignored),
    )


def outline(rectangle):
    """The corners by complex numbers, as a polygon."""
    x, y, w, h, angle = rectangle
    own = np.array([-w - 1j * h, w - 1j * h, w + 1j * h, -w + 1j * h])
    turned = own * np.exp(1j * angle) + x + 1j * y
    return shapely.Polygon(np.stack([turned.real, turned.imag], axis=1))


def random_view(rng, *, one_scale):
    left, top = rng.uniform(0, 40, 2)
    width, height = rng.uniform(15, 40, 2)
    rows, columns = (int(each) for each in rng.integers(20, 90, 2))
    if one_scale:
        height = width * rows / columns
    mirrored = bool(rng.integers(2))
    return View(left, top, left + width, top + height, rows, columns, mirrored)


def through(view, polygon):
    """A polygon in source pixels as it lies in pixels of the view, written out."""
    points = shapely.get_coordinates(polygon)
    across = (points[:, 0] - view.left) / (view.right - view.left)
    across = 1 - across if view.mirrored else across
    down = (points[:, 1] - view.top) / (view.bottom - view.top)
    points = np.stack([across * view.width, down * view.height], axis=1)
    return shapely.Polygon(points)


def same_region(one, other):
    overlap = one.intersection(other).area
    return overlap > (1 - 1e-6) * max(one.area, other.area)


@pytest.mark.parametrize("seed", range(40))
def test_upright_boxes_are_cut_as_polygons_are(seed):
    rng = np.random.default_rng(seed)
    view = random_view(rng, one_scale=False)
    rectangles = np.zeros((12, 5))
    rectangles[:, :2] = rng.uniform(0, 80, (12, 2))
    rectangles[:, 2:4] = rng.uniform(0.2, 25, (12, 2))
    seen = visible_objects(view, objects_of(rectangles))
    frame = shapely.box(0, 0, view.width, view.height)
    kept = dict(zip(seen.labels.tolist(), seen.rectangles, strict=True))
    for label, rectangle in enumerate(rectangles):
        whole = through(view, outline(rectangle))
        part = whole.intersection(frame)
        left, top, right, bottom = part.bounds if part.area else (0, 0, 0, 0)
        enough = min(right - left, bottom - top) >= 1 or frame.contains(whole)
        assert (label in kept) == enough
        if enough:
            pixel = isotropic_to_pixel(kept[label], view.height, view.width)
            assert same_region(outline(pixel), part)


@pytest.mark.parametrize("seed", range(40))
def test_rotated_rectangles_stay_whole_and_leave_with_their_centre(seed):
    rng = np.random.default_rng(seed)
    view = random_view(rng, one_scale=True)
    rectangles = np.concatenate(
        [
            rng.uniform(0, 80, (12, 2)),
            rng.uniform(0.2, 25, (12, 2)),
            rng.uniform(-4, 4, (12, 1)),
        ],
        axis=1,
    )
    seen = visible_objects(view, objects_of(rectangles))
    inside = (view.left <= rectangles[:, 0]) & (rectangles[:, 0] <= view.right)
    inside &= (view.top <= rectangles[:, 1]) & (rectangles[:, 1] <= view.bottom)
    np.testing.assert_array_equal(seen.labels, np.flatnonzero(inside))
    for label, rectangle in zip(seen.labels, seen.rectangles, strict=True):
        pixel = isotropic_to_pixel(rectangle, view.height, view.width)
        assert same_region(outline(pixel), through(view, outline(rectangles[label])))


def test_one_object_is_seen_as_the_object_of_other_sets_is():
    view = View(10.0, 10.0, 30.0, 30.0, 40, 40, mirrored=True)
    for rectangle in (
        [10.0, 20.0, 8.0, 5.0, 0.0],
        [20.0, 20.0, 4.0, 5.0, 0.0],
        [1.0, 20.0, 8.0, 5.0, 0.0],
        [11.0, 20.0, 8.0, 5.0, 0.3],
        [9.0, 20.0, 8.0, 5.0, 0.3],
    ):
        found = visible_objects(view, objects_of([rectangle])).rectangles
        upright = rectangle[4] == 0
        alone = visible_rectangle(view, np.array(rectangle), upright=upright)
        expected = np.zeros((0, 5)) if alone is None else alone[None]
        np.testing.assert_array_equal(found, expected)


def test_a_small_object_is_kept_whole_and_a_sliver_of_one_is_not():
    view = View(0.0, 0.0, 80.0, 80.0, 20, 20)  # four pixels become one
    whole = [40.0, 40.0, 0.5, 0.5, 0.0]
    sliver = [80.0, 40.0, 3.0, 10.0, 0.0]  # of which 3 / 4 of a pixel is left
    part = [80.0, 40.0, 5.0, 10.0, 0.0]
    found = visible_objects(view, objects_of([whole, sliver, part]))
    np.testing.assert_array_equal(found.labels, [0, 2])


def test_an_upright_box_may_have_to_show_more_than_a_share():
    view = View(0.0, 0.0, 40.0, 40.0, 40, 40)
    boxes = objects_of([[2.0, 20, 10, 5, 0], [10.0, 20, 10, 5, 0], [0.0, 0, 9, 9, 1]])
    kept = [visible_objects(view, boxes, min_share=s).labels for s in (0.59, 0.61, 1)]
    assert [each.tolist() for each in kept] == [[0, 1, 2], [1, 2], [1, 2]]


def test_what_belongs_to_an_object_stays_with_it():
    view = View(0.0, 0.0, 40.0, 40.0, 20, 20)
    gone, seen = [60.0, 20, 5, 5, 0], [20.0, 20, 5, 5, 0]
    objects = objects_of([gone, seen, gone, seen], [3, 1, 2, 0], [1, 0, 0, 1])
    objects = dataclasses.replace(objects, ignored=objects.ignored.astype(bool))
    found = visible_objects(view, objects)
    assert found.labels.tolist() == [1, 0]
    assert found.ignored.tolist() == [False, True]
    assert found.labels.dtype == np.int64
    assert len(objects) == 4
    assert objects.rectangles[1].tolist() == seen
    assert len(visible_objects(view, Objects.none())) == 0


def test_a_changed_aspect_is_refused_for_rotated_objects_only():
    view = View(0.0, 0.0, 40.0, 20.0, 60, 60)
    upright, rotated = [20.0, 10.0, 4.0, 2.0, 0.0], [20.0, 10.0, 4.0, 2.0, 0.1]
    assert len(visible_objects(view, objects_of([upright]))) == 1
    with pytest.raises(ValueError, match="both axes scale alike"):
        visible_objects(view, objects_of([upright, rotated]))
