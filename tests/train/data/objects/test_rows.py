"""The objects of images as arrays of one shape."""

import dataclasses

import jax
import numpy as np

from cram_jax.geometry.similarity import Similarity
from tests.checks import assert_close
from tests.train.data.objects.test_seen import objects_of
from train.data.objects.rows import (
    NO_OBJECT,
    blank_objects,
    mirrored_objects,
    moved_objects,
    padded_objects,
)
from train.data.objects.seen import visible_objects
from train.data.views import View

SHAPES = {
    "objects": ((3, 5), np.float32),
    "object_labels": ((3,), np.int32),
    "object_ignored": ((3,), np.bool_),
}


def isotropic(sides, ignored=None):
    """Objects whose squares have these half sizes; the label is the place."""
    rectangles = [[0.1 * i, 0.0, side, side, 0.2] for i, side in enumerate(sides)]
    return objects_of(rectangles, ignored=ignored)


def test_a_row_has_one_shape_whatever_the_image_holds():
    for sides in ([], [0.1], [0.3, 0.2, 0.4], [0.1, 0.5, 0.2, 0.4]):
        row = padded_objects(isotropic(sides), 3).arrays
        assert {n: (v.shape, v.dtype) for n, v in row.items()} == SHAPES
        assert row.keys() == blank_objects(3).keys()
        there = row["object_labels"] != NO_OBJECT
        assert there.sum() == min(len(sides), 3)
        # No logarithm of a size, no quotient by one is infinite.
        assert (row["objects"][:, 2:4] > 0).all()
        assert not row["object_ignored"].any()
    assert (blank_objects(3)["object_labels"] == NO_OBJECT).all()


def test_objects_keep_their_order_and_the_smallest_are_left_out():
    objects = isotropic([0.1, 0.5, 0.2, 0.4, 0.3])
    row, left_out = padded_objects(objects, 3)
    assert row["object_labels"].tolist() == [1, 3, 4]
    assert_close(row["objects"], objects.rectangles[[1, 3, 4]], dtype="float32")
    assert left_out == 2
    assert padded_objects(objects, 5).left_out == 0


def test_an_ignored_object_gives_way_to_one_that_is_asked_for():
    ignored = np.array([True, False, True, False])
    row, left_out = padded_objects(isotropic([0.9, 0.1, 0.8, 0.2], ignored), 3)
    assert row["object_labels"].tolist() == [0, 1, 3]
    assert row["object_ignored"].tolist() == [True, False, False]
    assert left_out == 1


def test_mirroring_a_row_is_seeing_the_image_mirrored():
    view = View(3.0, 2.0, 43.0, 32.0, 30, 40)
    rng = np.random.default_rng(0)
    rectangles = rng.uniform(5, 35, (20, 5))
    rectangles[:, 4] = np.where(np.arange(20) % 2, rng.uniform(-3, 3, 20), 0.0)
    objects = objects_of(rectangles)
    row, _ = padded_objects(visible_objects(view, objects), 24)
    mirrored_view = dataclasses.replace(view, mirrored=True)
    expected, _ = padded_objects(visible_objects(mirrored_view, objects), 24)
    rows = {name: np.stack([value, value]) for name, value in row.items()}
    found = mirrored_objects(rows)
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        np.testing.assert_allclose(found[name], np.stack([value] * 2), atol=1e-6)
    again = mirrored_objects(found)
    np.testing.assert_array_equal(again["objects"], rows["objects"])


MOVES = {
    "shift": Similarity(0.0, 1.0, 0.3, -0.2),
    "quarter turn": Similarity(np.pi / 2),
    "mirror, turn and scale": Similarity(0.4, 1.3, 0.1, 0.05, -1.0),
}


def corners(rectangle):
    x, y, w, h, angle = np.asarray(rectangle, np.float64)
    own = np.array([-w - 1j * h, w - 1j * h, w + 1j * h, -w + 1j * h])
    return own * np.exp(1j * angle) + x + 1j * y


def nearest(points, others):
    return np.abs(points[:, None] - others[None]).min(axis=1)


def test_objects_move_with_their_image_or_leave_it():
    rng = np.random.default_rng(1)
    size, room = (30, 50), 9
    extent_x, extent_y = 1.0, 0.6
    rows = {name: [] for name in SHAPES}
    for _ in MOVES:
        rectangles = rng.uniform(-0.6, 0.6, (7, 5))
        rectangles[:, 2:4] = rng.uniform(0.05, 0.4, (7, 2))
        row, _ = padded_objects(
            objects_of(rectangles, ignored=[False, True] * 3 + [False]), room
        )
        for name, value in row.items():
            rows[name].append(value)
    batch = {name: np.stack(values) for name, values in rows.items()}
    similarities = jax.tree.map(lambda *each: np.stack(each), *MOVES.values())
    moved = jax.jit(moved_objects, static_argnums=2)(similarities, batch, size)
    assert {n: (v.shape, v.dtype) for n, v in moved.items()} == {
        n: (v.shape, v.dtype) for n, v in batch.items()
    }
    stayed = left = 0
    for image, similarity in enumerate(MOVES.values()):
        flip, scale, angle = similarity.flip, similarity.scale, similarity.angle
        shift = complex(similarity.shift_x, similarity.shift_y)
        for place in range(room):
            before = batch["objects"][image, place]
            points = corners(before)
            points = points.real * float(flip) + 1j * points.imag
            points = float(scale) * np.exp(1j * float(angle)) * points + shift
            label = int(moved["object_labels"][image, place])
            center = points.mean()
            inside = abs(center.real) <= extent_x and abs(center.imag) <= extent_y
            was = int(batch["object_labels"][image, place])
            assert label == (was if inside else NO_OBJECT)
            found = corners(moved["objects"][image, place])
            assert nearest(found, points).max() < 1e-5
            stayed += label != NO_OBJECT
            left += label != was
    assert stayed > 5
    assert left > 2
    np.testing.assert_array_equal(moved["object_ignored"], batch["object_ignored"])
