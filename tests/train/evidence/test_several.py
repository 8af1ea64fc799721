"""What is said of layers with several rectangles: scores, tables, windows, pictures.

There are as many rectangles as images, where a wrong broadcast goes unnoticed.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely

from cram_jax.geometry.rectangle import Rectangle
from tests.checks import assert_close
from tests.train.evidence.test_localization import (
    batch_with,
    polygon,
    rectangular,
)
from train.data.views import eval_view
from train.evidence.answers import Shown
from train.evidence.equivariance_error import equivariance_scores
from train.evidence.localization import localization_record, localization_sums
from train.evidence.pictures import picture_of
from train.evidence.sight import Sight, area_lines, as_record
from train.evidence.sight_picture import draw_sight
from train.evidence.yardsticks import yardstick_scores
from train.learning.window import empty_window, layer_sums, window_record

COUNT, SIDE = 3, 48
LOW, HIGH = [-0.6, -0.6, 0.1, 0.1, -2.0], [0.6, 0.6, 0.5, 0.4, 2.0]


def drawn(seed, *shape):
    generator = np.random.default_rng(seed)
    return generator.uniform(LOW, HIGH, (*shape, 5)).astype(np.float32)


def iou(a, b):
    return (a & b).area / (a | b).area


def test_each_score_is_that_of_the_best_rectangle():
    found, true = drawn(0, COUNT, COUNT), drawn(1, COUNT)
    weight = jnp.array([1.0, 1.0, 0.0])
    layer = rectangular(found, np.ones((COUNT, 6, 6)))
    batch = batch_with(true, weight=weight)
    sums = jax.jit(localization_sums, static_argnums=2)(layer, batch, "rotated")
    scores = localization_record(jax.device_get(sums))
    frame, best = shapely.box(-1, -1, 1, 1), []
    for own, its in list(zip(found, true, strict=True))[:2]:
        hulls = [
            iou(polygon(each).envelope & frame, polygon(its).envelope & frame)
            for each in own
        ]
        exact = [iou(polygon(each), polygon(its)) for each in own]
        offset = np.hypot(*(own - its)[:, :2].T).min() * SIDE / 2
        best.append((max(exact), max(hulls), offset))
    best = np.array(best)
    assert scores["best_iou"] == pytest.approx(best[:, 0].mean(), abs=1e-4)
    assert scores["best_corloc"] == (best[:, 0] >= 0.5).mean()
    assert scores["best_hull_iou"] == pytest.approx(best[:, 1].mean(), abs=1e-4)
    assert scores["best_center_error"] == pytest.approx(best[:, 2].mean(), abs=1e-3)
    # Nothing that would be set beside the score of a single rectangle.
    assert not {"iou", "corloc", "hull_iou", "center_error"} & scores.keys()
    # Those of the union are the mask's: it is open everywhere here.
    filled = [polygon(its).area / 4 for its in true[:2]]
    assert scores["mask_iou"] == pytest.approx(np.mean(filled), abs=0.02)


def test_in_the_table_they_are_one_answer():
    found, true = drawn(2, COUNT, COUNT), drawn(3, COUNT)
    mask = np.zeros((COUNT, SIDE, SIDE), np.float32)
    mask[:, 24, 24] = 1
    shown = Shown(layers={"layer": rectangular(found, mask)}, class_maps={})
    rows = yardstick_scores(lambda _: shown, [batch_with(true)], "rotated", None)
    row = rows["layer: rectangles"]
    assert "layer: rectangle" not in rows
    frame = shapely.box(-1, -1, 1, 1)
    unions = [shapely.union_all([polygon(each) for each in own]) for own in found]
    objects = [polygon(each) for each in true]
    areas = [(union & frame).area / 4 for union in unions]
    assert row["area"] == pytest.approx(np.mean(areas), abs=5e-3)
    # Pixels, inside the frame, where polygons are exact.
    expected = [iou(a & frame, b & frame) for a, b in zip(unions, objects, strict=True)]
    assert row["iou"] == pytest.approx(np.mean(expected), abs=0.02)
    boxes = [
        iou(a.envelope & frame, b.envelope & frame)
        for a, b in zip(unions, objects, strict=True)
    ]
    assert row["box_accuracy_0.3"] == pytest.approx(np.mean(np.array(boxes) >= 0.3))
    middle = shapely.Point(1 / 48, 1 / 48)
    assert row["pointing"] == np.mean([each.contains(middle) for each in objects])


def test_the_window_has_means_over_them_and_their_own_spread():
    several = drawn(4, COUNT, COUNT)
    weight = jnp.array([1.0, 0.0, 1.0])

    def record(rectangles):
        layer = rectangular(rectangles, np.full((COUNT, 4, 4), 0.25))
        sums = {"weight": weight.sum(), "layers": {"a": layer_sums(layer, weight)}}
        return window_record(jax.device_get(empty_window(sums) | sums))

    found = record(several)
    alone = [record(several[:, k]) for k in range(COUNT)]
    assert found.keys() == alone[0].keys()
    for name in ("a/center_x", "a/half_height", "a/mask_area"):
        assert found[name] == pytest.approx(np.mean([each[name] for each in alone]))
    squares = [each["a/center_spread"] ** 2 for each in alone]
    assert found["a/center_spread"] == pytest.approx(np.mean(squares) ** 0.5)
    stuck = np.broadcast_to(several[:1], several.shape)
    assert record(stuck)["a/center_spread"] == pytest.approx(0, abs=1e-3)


def test_the_equivariance_score_is_the_mean_over_them_by_number():
    base = Rectangle.from_array(jnp.asarray(drawn(5, COUNT, COUNT)))

    def show(images):
        # Each half of a batch shows other rectangles: moved ones are not where they
        # should be.
        shift = jnp.repeat(jnp.array([0.0, 0.1]), COUNT)[:, None]
        both = jax.tree.map(lambda leaf: jnp.tile(leaf, (2, 1)) + shift, base)
        mask = jnp.ones((len(images), 8, 8))
        layers = {
            str(k): {
                "mask": mask,
                "rectangle": jax.tree.map(lambda leaf, k=k: leaf[:, k], both),
            }
            for k in range(COUNT)
        }
        return layers | {"all": {"mask": mask, "rectangle": both}}

    batch = batch_with(drawn(6, COUNT), side=8)
    scores, _ = equivariance_scores(show, [batch], truth="none", fill=0.0, count=COUNT)
    for name in ("equivariance_iou", "equivariance_iou_still"):
        alone = [scores[f"{k}/{name}"] for k in range(COUNT)]
        assert 0 < min(alone) < max(alone) < 1
        assert scores[f"all/{name}"] == pytest.approx(np.mean(alone), abs=1e-5)


@pytest.mark.parametrize("size", [(300, 400), (500, 40)])
def test_predictions_list_all_and_their_area_is_that_of_the_union(size):
    height, width = size
    frame = shapely.box(0, 0, width, height)
    for seed in range(5):
        rectangles = drawn(seed, 4).astype(np.float64)
        view = eval_view(size, (96, 96))
        sight = Sight({"a": rectangles, "b": rectangles[1]}, {}, view, size)
        records = json.loads(json.dumps(as_record(sight)))["rectangles"]
        assert len(records["a"]) == 4
        for number, record in enumerate(records["a"]):
            alone = Sight({"a": rectangles[number]}, {}, view, size)
            assert record == as_record(alone)["rectangles"]["a"]
        assert records["b"] == records["a"][1]
        union = shapely.union_all([shapely.Polygon(r["corners"]) for r in records["a"]])
        expected = (union & frame).area / frame.area
        assert sight.area("a") == pytest.approx(expected, abs=2e-3)
        assert area_lines(sight)[0].startswith(f"a area {sight.area('a'):.1%} of")


def test_one_that_is_wider_than_the_picture_does_not_hide_the_others():
    view, image = eval_view((300, 300), (96, 96)), np.full((300, 300, 3), 128, np.uint8)
    small, wide = [0.2, 0.3, 0.3, 0.2, 0.5], [0, 0, 1.6, 1.6, 0.1]

    def picture(*rectangles):
        numbers = np.array(rectangles, np.float64)
        sight = Sight({"a": numbers}, {}, view, (300, 300))
        return sight, draw_sight(sight, image, "cat")

    sight, both = picture(small, wide)
    assert sight.covers("a")
    assert sight.area("a") == 1
    assert "one rectangle is wider" in area_lines(sight)[0]
    assert [r["covers_picture"] for r in as_record(sight)["rectangles"]["a"]] == [0, 1]
    (_, first), (_, second) = picture(small), picture(wide)
    below = slice(60, -8)  # of the lines of text, and of the frame
    np.testing.assert_array_equal(both[below, 8:-8], first[below, 8:-8])
    assert (first[below, 8:-8] != second[below, 8:-8]).any()
    np.testing.assert_array_equal(both[-4:], second[-4:])


def test_the_grid_of_an_evaluation_shows_all_of_an_image():
    found = drawn(7, COUNT, COUNT)
    image = np.zeros((SIDE, SIDE, 3), np.uint8)
    evidence = {"a": rectangular(found, np.ones((COUNT, 6, 6)))}
    evidence = jax.device_get(evidence)
    together = picture_of(image, evidence, 1, None)
    for k in range(COUNT):
        one = {"a": rectangular(found[:, k], np.ones((COUNT, 6, 6)))}
        alone = picture_of(image, jax.device_get(one), 1, None)
        line = alone.max(-1) > 200
        assert line.any()
        # Its line is there, but where the border of a later one crosses it.
        assert (together[line].max(-1) > 200).mean() > 0.8
    assert_close(picture_of(image, evidence, 2, None).shape, together.shape)
