"""The table of yardsticks: who is right scores 1, whatever the truth's form."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask
from train.evidence.answers import CENTER, CONSTANT, ORACLE, WHOLE, Shown
from train.evidence.yardsticks import choose, yardstick_scores

SIDE = 48
RNG = np.random.default_rng(0)
RIGHT = {
    "box_accuracy_0.3",
    "box_accuracy_0.5",
    "box_accuracy_0.7",
    "iou",
    "corloc",
    "pointing",
}


def batch_of(truth, count=6, seed=0):
    """Objects with whole pixels as edges, if they are upright; the last is padding."""
    rng = np.random.default_rng(seed)
    center = rng.integers(-6, 7, (count, 2)) / 24
    half = rng.integers(8, 12, (count, 2)) / 24
    angle = rng.uniform(0.2, 1.2, (count, 1)) * (truth == "rotated")
    rectangle = np.concatenate([center, half, angle], axis=1).astype(np.float32)
    batch = {
        "image": np.zeros((count, SIDE, SIDE, 1), np.uint8),
        "weight": np.ones(count, np.float32),
        "rectangle": rectangle,
        "rectangle_weight": np.ones(count, np.float32),
    }
    batch["weight"][-1] = 0
    if truth == "mask":
        batch["object_mask"] = np.asarray(filled(rectangle), np.uint8)
    return batch


def filled(numbers):
    rectangle = Rectangle.from_array(jnp.asarray(numbers))
    return np.asarray(render_hard_mask(rectangle, SIDE, SIDE))


def sees_all(batch):
    """A network whose rectangle, mask and class map are the object; one class wrong."""
    objects = filled(batch["rectangle"]).astype(np.float32)
    noise = 0.4 * RNG.random(objects.shape).astype(np.float32)
    correct = np.ones(len(objects), bool)
    correct[0] = False
    rectangle = Rectangle.from_array(jnp.asarray(batch["rectangle"]))
    layers = {
        "attention1": {"mask": objects, "rectangle": rectangle},
        "attention2": {"mask": 0.1 + 0.3 * objects},
    }
    return Shown(layers, {"CAM": np.maximum(objects, noise)}, correct)


@pytest.fixture(params=["rotated", "box", "mask"])
def truth(request):
    return request.param


def test_what_is_right_scores_one(truth):
    choices = choose(sees_all, [batch_of(truth, seed=1), batch_of(truth)], truth)
    assert choices is not None
    assert choices.images == 10
    rows = yardstick_scores(sees_all, [batch_of(truth)], truth, choices)
    names = ["attention1: rectangle", ORACLE, "attention2: mask", "CAM"]
    for name in names:
        for score in RIGHT:
            # A rotated object has no whole pixels, and its map's box has.
            if truth == "rotated" and name in names[2:] and score == "box_accuracy_0.7":
                continue
            assert rows[name][score] == pytest.approx(1, abs=1e-3), (name, score)
        # One of five known images has the wrong class.
        assert rows[name]["top1_box_accuracy_0.5"] == pytest.approx(0.8)
    assert list(rows) == [
        "attention1: rectangle",
        WHOLE,
        CENTER,
        CONSTANT,
        ORACLE,
        "attention2: mask",
        "CAM",
    ]


def test_yardsticks_are_what_they_say(truth):
    batch = batch_of(truth)
    choices = choose(sees_all, [batch_of(truth, seed=1)], truth)
    rows = yardstick_scores(sees_all, [batch], truth, choices)
    objects = filled(batch["rectangle"])[:5]
    share = objects.mean(axis=(1, 2))
    assert rows[WHOLE]["area"] == 1
    assert rows[WHOLE]["mass_on_object"] == pytest.approx(share.mean())
    if truth == "mask":
        assert rows[WHOLE]["iou"] == pytest.approx(share.mean())
        assert rows[WHOLE]["pixel_average_precision"] == pytest.approx(share.mean())
    else:
        assert "pixel_average_precision" not in rows[WHOLE]
    center = objects[:, SIDE // 2, SIDE // 2].mean()
    assert rows[CENTER] == {"pointing": pytest.approx(center)}
    assert rows[WHOLE]["pointing"] == pytest.approx(center)
    assert 0 < rows[CONSTANT]["iou"] < 1


def test_pixel_average_precision_is_scikit_learns_over_all_batches():
    batches = [batch_of("mask"), batch_of("mask", seed=3)]
    maps = RNG.random((2, 6, SIDE, SIDE)).astype(np.float32)
    objects = [filled(batch["rectangle"])[:5] for batch in batches]
    maps[:, :5] = np.where(objects, maps[:, :5] ** 0.5, maps[:, :5])
    shown = iter(maps)
    rows = yardstick_scores(
        lambda _: Shown({}, {"CAM": next(shown)}), batches, "mask", None
    )
    expected = average_precision_score(np.ravel(objects), maps[:, :5].ravel())
    found = rows["CAM"]["pixel_average_precision"]
    assert found == pytest.approx(expected, abs=2e-3)


def test_without_held_out_images_nothing_is_cut_and_no_box_is_constant(truth):
    rows = yardstick_scores(sees_all, [batch_of(truth)], truth, None)
    assert CONSTANT not in rows
    for name in ("attention2: mask", "CAM"):
        cut = {"iou", "corloc", "area"} | {s for s in rows[name] if "box" in s}
        assert not cut & set(rows[name])
        assert rows[name]["pointing"] == 1
    assert rows["attention1: rectangle"]["box_accuracy_0.5"] == 1


def test_the_threshold_is_chosen_where_it_is_told_and_nowhere_else():
    held_out, scored = batch_of("mask", seed=1), batch_of("mask")

    def faint(batch):
        whole = sees_all(batch)
        maps = 0.3 * np.asarray(whole.class_maps["CAM"])
        maps[:, 0, 0] = 1.0
        return whole._replace(class_maps={"CAM": maps})

    choices = choose(sees_all, [held_out], "mask")
    assert choices is not None
    # On the scored images a threshold of 0.2 would be right; 0.7 is what it was told.
    told = dataclasses.replace(choices, thresholds={"CAM": (0.7, 0.7)})
    rows = yardstick_scores(faint, [scored], "mask", told)
    assert rows["CAM"]["box_accuracy_0.3"] == 0
    told = dataclasses.replace(choices, thresholds={"CAM": (0.2, 0.2)})
    rows = yardstick_scores(faint, [scored], "mask", told)
    assert rows["CAM"]["box_accuracy_0.7"] == 1


def test_objects_that_are_not_known_do_not_count(truth):
    batch = batch_of(truth)
    batch["rectangle"][0] = np.nan
    batch["rectangle_weight"][0] = 0
    if truth == "mask":
        batch["object_mask"][1] = 0
    rows = yardstick_scores(sees_all, [batch], truth, None)
    assert rows["attention1: rectangle"]["iou"] == pytest.approx(1, abs=1e-3)
    batch["rectangle_weight"][:] = 0
    assert yardstick_scores(sees_all, [batch], truth, None) == {}
    assert choose(sees_all, [batch], truth) is None
    assert choose(sees_all, [], truth) is None


def test_a_network_without_finite_numbers_scores_nothing(truth):
    def broken(batch):
        nothing = np.full(batch["image"].shape[:3], np.nan, np.float32)
        numbers = jnp.full((len(nothing), 5), jnp.nan)
        layers = {
            "a": {"mask": nothing, "rectangle": Rectangle.from_array(numbers)},
            "b": {"mask": nothing},
        }
        return Shown(layers, {"CAM": nothing}, np.zeros(len(nothing), bool))

    batch = batch_of(truth)
    choices = choose(broken, [batch], truth)
    rows = yardstick_scores(broken, [batch], truth, choices)
    for name in ("a: rectangle", "b: mask", "CAM"):
        assert rows[name]["box_accuracy_0.3"] == 0
        assert rows[name].get("iou", 0) == 0
    assert rows[ORACLE]["iou"] == pytest.approx(1, abs=1e-3)
