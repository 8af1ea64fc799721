"""Targets of a detector against a slow oracle, under quarter turns, at the edges."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.distances import rectangle_distance
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import Similarity, transform_rectangle
from cram_jax.heads.detection_targets import SPREAD, DetectionTargets, detection_targets
from tests.checks import assert_close
from tests.cram_jax.geometry.test_overlap import float32

HEIGHT, WIDTH, CATEGORIES, OBJECTS = 11, 13, 3, 8


@functools.partial(jax.jit, static_argnums=(3, 4))
def targets(rectangles, labels, ignored, height=HEIGHT, width=WIDTH):
    return detection_targets(
        rectangles, labels, ignored, height, width, num_categories=CATEGORIES
    )


def scene(seed):
    """Objects, thin ones, one beyond the map, one ignored, and padding with NaN."""
    rng = np.random.default_rng(seed)
    extent = np.array([1, HEIGHT / WIDTH]) * 0.98
    rectangles = np.concatenate(
        [
            rng.uniform(-extent, extent, (OBJECTS, 2)),
            rng.uniform(0.02, 0.7, (OBJECTS, 2)),
            rng.uniform(-7, 7, (OBJECTS, 1)),
        ],
        axis=-1,
    )
    rectangles[1, 3] = 1e-4
    rectangles[2, 0] = 1.05
    labels = rng.integers(0, CATEGORIES, OBJECTS)
    labels[6:], rectangles[7] = -1, np.nan
    ignored = np.arange(OBJECTS) == 3
    return rectangles.astype(np.float32), labels.astype(np.int32), ignored


def oracle_heat(rectangles, labels, ignored):
    """Float64, object by object, with matrices that are inverted."""
    side = 2 / WIDTH
    x = (np.arange(WIDTH) + 0.5) / WIDTH * 2 - 1
    y = ((np.arange(HEIGHT) + 0.5) / HEIGHT * 2 - 1) * HEIGHT / WIDTH
    heat = np.zeros((HEIGHT, WIDTH, CATEGORIES))
    for (cx, cy, hw, hh, angle), label, hidden in zip(
        rectangles.astype(np.float64), labels, ignored, strict=True
    ):
        if label < 0 or hidden or abs(cx) > 1 or abs(cy) > HEIGHT / WIDTH:
            continue
        turn = np.array(
            [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        )
        density = turn @ np.diag([hw**2, hh**2]) @ turn.T / 3
        precision = np.linalg.inv(SPREAD**2 * density + np.eye(2) * side**2 / 12)
        own = x[np.abs(x - cx).argmin()], y[np.abs(y - cy).argmin()]
        for row in range(HEIGHT):
            for column in range(WIDTH):
                offset = np.array([x[column] - own[0], y[row] - own[1]])
                value = np.exp(-offset @ precision @ offset / 2)
                old = heat[row, column, label]
                heat[row, column, label] = max(old, value)
    return heat


@pytest.mark.parametrize("seed", [0, 1])
def test_heat_is_the_oracles_and_one_at_centres_only(seed):
    rectangles, labels, ignored = scene(seed)
    found = targets(rectangles, labels, ignored)
    expected = oracle_heat(rectangles, labels, ignored)
    assert_close(found.heat, expected, atol=2e-5)
    assert found.heat.dtype == jnp.float32
    there = [i for i in range(OBJECTS) if labels[i] >= 0 and i not in (2, 3)]
    peaks = {(int(found.cell[i]), int(labels[i])) for i in there}
    ones = np.argwhere(np.asarray(found.heat) == 1)
    assert {(r * WIDTH + c, k) for r, c, k in ones.tolist()} == peaks


def test_of_ignored_and_departed_objects_nothing_is_said_of_their_category():
    rectangles, labels, ignored = scene(0)
    labels[2], labels[3] = 0, 1
    found = targets(rectangles, labels, ignored)
    assert not found.positive[np.array([2, 3, 6, 7])].any()
    x = (np.arange(WIDTH) + 0.5) / WIDTH * 2 - 1
    y = ((np.arange(HEIGHT) + 0.5) / HEIGHT * 2 - 1) * HEIGHT / WIDTH
    expected = np.ones((HEIGHT, WIDTH, CATEGORIES), bool)
    for index, label in ((2, 0), (3, 1)):
        cx, cy, hw, hh, angle = rectangles[index]
        right, down = x - cx, y[:, None] - cy
        along = np.cos(angle) * right + np.sin(angle) * down
        across = np.cos(angle) * down - np.sin(angle) * right
        inside = (np.abs(along) <= hw + 1 / WIDTH) & (np.abs(across) <= hh + 1 / WIDTH)
        expected[..., label] &= ~inside
    expected |= np.asarray(found.heat) == 1
    np.testing.assert_array_equal(found.counted, expected)
    assert not expected[..., :2].all((0, 1)).any()


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_of_image_and_boxes_turn_the_targets(turns):
    rectangles, labels, ignored = scene(2)
    rectangles[7] = 0.3
    turned = transform_rectangle(
        Similarity(turns * np.pi / 2), Rectangle.from_array(rectangles)
    )
    size = (HEIGHT, WIDTH) if turns == 2 else (WIDTH, HEIGHT)
    before = targets(rectangles, labels, ignored)
    after = targets(turned.as_array(), labels, ignored, *size)
    # A positive angle is clockwise, as are numpy's negative turns.
    assert_close(after.heat, np.rot90(before.heat, -turns), atol=1e-5)
    np.testing.assert_array_equal(after.counted, np.rot90(before.counted, -turns))
    np.testing.assert_array_equal(after.positive, before.positive)
    numbers = np.rot90(np.arange(HEIGHT * WIDTH).reshape(HEIGHT, WIDTH), -turns)
    # The centre of 2 is beyond the map.
    kept = np.array([0, 1, 3, 4, 5])
    assert (numbers.reshape(-1)[after.cell[kept]] == before.cell[kept]).all()
    turn = np.linalg.matrix_power(np.array([[0, -1], [1, 0]]), turns)
    expected = np.concatenate(
        [
            before.boxes[kept, :2] @ turn.T,
            before.boxes[kept, 2:4],
            before.boxes[kept, 4:] * (-1) ** turns,
        ],
        axis=-1,
    )
    assert_close(after.boxes[kept], expected, atol=1e-5)


def test_of_two_objects_in_one_cell_the_smaller_gets_the_box_and_both_their_heat():
    rectangles = float32(
        [[0, 0, 0.5, 0.4, 0.3], [0.02, 0.01, 0.2, 0.1, 1], [0.01, 0, 0.2, 0.1, 2]]
    )
    rectangles = np.concatenate([rectangles, np.full((5, 5), np.nan, np.float32)])
    labels, ignored = np.array([0, 1, 1, *[-1] * 5]), np.zeros(OBJECTS, bool)
    found = targets(rectangles, labels, ignored)
    assert len(set(np.asarray(found.cell[:3]).tolist())) == 1
    # Of the two that are as small the first.
    assert np.flatnonzero(found.positive).tolist() == [1]
    row, column = divmod(int(found.cell[0]), WIDTH)
    assert np.asarray(found.heat[row, column]).tolist() == [1, 1, 0]
    assert found.heat[..., 0].sum() > 2 * found.heat[..., 1].sum()
    same_place = targets(rectangles[::-1], labels[::-1], ignored)
    assert_close(same_place.heat, found.heat, atol=1e-6)


@pytest.mark.parametrize("objects", [0, OBJECTS])
def test_an_image_without_objects_is_all_background(objects):
    empty = np.full((objects, 5), np.nan, np.float32), np.full(objects, -1, np.int32)
    found = targets(*empty, np.zeros(objects, bool))
    assert not found.heat.any()
    assert found.counted.all()
    assert not found.positive.any()
    assert found.boxes.shape == (objects, 6)
    for leaf in jax.tree.leaves((found.boxes, found.rectangle)):
        assert np.isfinite(leaf).all()


def test_without_jit_a_map_of_one_cell_holds_every_centre():
    rectangles = float32([[0.9, -0.8, 0.3, 0.01, 1], [0, 0, 0.1, 0.1, 0]])
    found = detection_targets(
        rectangles, np.array([2, 0]), None, 1, 1, num_categories=3
    )
    assert isinstance(found, DetectionTargets)
    assert np.asarray(found.heat).tolist() == [[[1, 0, 1]]]
    assert np.asarray(found.cell).tolist() == [0, 0]
    assert_close(found.boxes[0, :2], [0.45, -0.4], atol=1e-6)


def test_batch_axes_and_vmap_agree():
    scenes = [np.stack(parts) for parts in zip(*map(scene, range(4)), strict=True)]
    together = targets(*scenes)
    assert together.heat.shape == (4, HEIGHT, WIDTH, CATEGORIES)
    with jax.numpy_dtype_promotion("strict"):
        one_by_one = jax.jit(jax.vmap(targets, in_axes=(0, 0, 0)))(*scenes)
    alone = targets(*scene(3))
    square = targets(*(part.reshape(2, 2, *part.shape[1:]) for part in scenes))
    for name in DetectionTargets._fields[:-1]:
        values = np.asarray(getattr(together, name), np.float64)
        assert_close(getattr(one_by_one, name), values)
        assert_close(getattr(square, name)[1, 0], values[2])
        assert_close(getattr(alone, name), values[3])
    given = Rectangle.from_array(scene(3)[0])
    distance = jax.jit(functools.partial(rectangle_distance, metric="corners"))
    assert float(distance(given, alone.rectangle)[:6].max()) < 1e-5


def test_a_wider_spread_is_a_wider_gaussian_and_the_default_is_that_of_its_source():
    assert math.isclose(0.54 * 2 / 6 * math.sqrt(3), SPREAD, abs_tol=0.03)
    given = float32([[0, 0, 0.6, 0.3, 0.4]]), np.array([0]), None, HEIGHT, WIDTH

    @jax.jit
    def heats():
        spreads = (0.2, SPREAD, 1.0)
        found = [detection_targets(*given, num_categories=1, spread=s) for s in spreads]
        return [each.heat.sum() for each in found]

    assert heats() == sorted(heats())
    assert len(set(map(float, heats()))) == 3


@pytest.mark.parametrize(
    ("rectangles", "labels", "ignored", "message"),
    [
        (np.zeros((2, 4)), np.zeros(2, int), None, "five parameters"),
        (np.zeros((2, 5)), np.zeros(3, int), None, r"of \[\.\.\., M\]; got shapes"),
        (np.zeros((2, 5)), np.zeros(2, int), np.zeros(1, bool), "got shapes"),
        (np.zeros((2, 5)), np.zeros(2), None, "must be integers, got float"),
        (np.zeros((2, 5)), np.array([0, 3]), None, "in 0 to 2.* got 0 to 3"),
    ],
)
def test_mistakes_are_refused_with_the_rule(rectangles, labels, ignored, message):
    with pytest.raises(ValueError, match=message):
        detection_targets(rectangles, labels, ignored, 4, 4, num_categories=CATEGORIES)
