"""Equivariance error of networks whose error is known beforehand."""

import dataclasses
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_mask
from tests.tiny_runs import tiny_config, tiny_experiment
from train.evidence.equivariance_error import draw_curves, equivariance_scores
from train.learning.devices import JitParallel
from train.learning.evaluator import shown_by

SIDE = 48
BATCHED = ("image", "label", "weight", "rectangle", "rectangle_weight")


class Finder(nn.Module):
    """Looks at the bright rectangle (its moments), or always at one place."""

    moves: bool

    @nn.compact
    def __call__(self, images, *, train=False):
        light = jax.nn.relu(images[..., 0] - 1.0)
        grid = (jnp.arange(SIDE) + 0.5) / SIDE * 2 - 1
        share = light / light.sum((1, 2), keepdims=True)
        mean_x, mean_y = (share.sum(axis) @ grid for axis in (1, 2))
        dx, dy = grid - mean_x[:, None], grid - mean_y[:, None]
        xx = jnp.einsum("bhw,bw->b", share, dx**2)
        yy = jnp.einsum("bhw,bh->b", share, dy**2)
        xy = jnp.einsum("bhw,bh,bw->b", share, dy, dx)
        angle = jnp.arctan2(2 * xy, xx - yy) / 2
        root = jnp.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        long, short = (jnp.sqrt(3 * ((xx + yy) / 2 + r)) for r in (root, -root))
        found = Rectangle(mean_x, mean_y, long, short, angle)
        if not self.moves:
            found = jax.tree.map(lambda leaf: 0 * leaf + 0.3, found)
        self.sow("intermediates", "rectangle", found)
        mask = render_mask(found, SIDE, SIDE, sharpness=30.0)
        self.sow("intermediates", "mask", mask)
        return jnp.zeros((images.shape[0], 2))


class Net(nn.Module):
    """A network of one such layer."""

    moves: bool

    def setup(self):
        """The layer gives its name to the scores."""
        self.look = Finder(self.moves)

    def __call__(self, images, *, train=False):
        """Logits, all zero."""
        return self.look(images)


def batch(count=6):
    """Bright rectangles on black, with their truth; the last image is padding."""
    rng = np.random.default_rng(0)
    center = rng.uniform(-0.3, 0.3, (2, count))
    rectangles = np.stack(
        [*center, np.full(count, 0.35), np.full(count, 0.2), rng.uniform(-1, 1, count)],
        axis=-1,
    ).astype(np.float32)
    masks = render_mask(Rectangle.from_array(rectangles), SIDE, SIDE, sharpness=30.0)
    image = np.array(np.round(255 * masks), np.uint8)[..., None].repeat(3, -1)
    weight = np.ones(count, np.float32)
    weight[-1], image[-1] = 0, 0
    return {
        "image": image,
        "label": np.zeros(count, np.int32),
        "weight": weight,
        "rectangle": rectangles,
        "rectangle_weight": np.ones(count, np.float32),
    }


def scores_of(moves, images=None, truth="rotated", count=100):
    experiment = dataclasses.replace(
        tiny_experiment(tiny_config(), JitParallel()),
        model=Net(moves),
        schedule=lambda _: {},
        mean=(0.0,) * 3,
        std=(0.5,) * 3,
    )
    images = [batch(), batch()] if images is None else images
    show = shown_by(experiment, {}, jnp.zeros((), jnp.int32))
    return equivariance_scores(show, images, truth=truth, fill=0.0, count=count)


@pytest.fixture(scope="module")
def exact():
    return scores_of(True)


@pytest.fixture(scope="module")
def fixed():
    return scores_of(False)


def test_a_mask_that_moves_with_the_image_scores_near_one(exact):
    mixed, curves = exact
    assert mixed["look/equivariance_iou"] > 0.93  # what leaves the frame is not seen
    assert mixed["look/equivariance_mask_iou"] > 0.85
    for axis in ("angle", "scale"):
        assert min(p["look/equivariance_iou"] for p in curves[axis]) > 0.95


def test_a_mask_that_stays_scores_what_staying_scores(exact, fixed):
    mixed, curves = fixed
    assert np.isclose(
        mixed["look/equivariance_iou"], mixed["look/equivariance_iou_still"]
    )
    assert mixed["look/equivariance_iou"] < exact[0]["look/equivariance_iou"] - 0.3
    ends = curves["shift"][0], curves["shift"][-1]
    assert all(point["look/equivariance_iou"] < 0.5 for point in ends)


def test_without_movement_every_mask_scores_one(exact, fixed):
    for _, curves in (exact, fixed):
        for axis, points in curves.items():
            middle = points[len(points) // 2]
            assert np.isclose(middle[axis], 1.0 if axis == "scale" else 0.0, atol=1e-6)
            assert middle["look/equivariance_iou"] > 0.99
            assert middle["look/equivariance_mask_iou"] > 0.99


def dealt(images, size):
    """The same images in batches of another size, padded with the first."""
    whole = {name: np.concatenate([each[name] for each in images]) for name in BATCHED}
    total = len(whole["weight"])
    for first in range(0, total, size):
        rows = np.arange(first, first + size)
        part = {name: values[rows % total] for name, values in whole.items()}
        part["weight"] = part["weight"] * (rows < total)
        yield part


@pytest.mark.parametrize(("size", "count"), [(4, 100), (5, 100), (4, 7), (12, 7)])
def test_scores_do_not_depend_on_the_size_of_a_batch(exact, size, count):
    images = [batch(), batch()]
    expected = exact if count == 100 else scores_of(True, images, count=count)
    found = scores_of(True, dealt(images, size), count=count)
    if count == 7:  # of the first batch's six images one is padding
        middle = found[1]["shift"][len(found[1]["shift"]) // 2]
        assert middle["images_in_sight"] == 6
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for value, wanted in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert value == pytest.approx(wanted, abs=1e-5)


def test_images_of_a_batch_are_moved_apart(exact):
    """Twice the same images: each has a movement of its own."""
    one = scores_of(True, [batch()])[0]
    assert exact[0]["look/equivariance_iou_still"] != pytest.approx(
        one["look/equivariance_iou_still"], abs=1e-4
    )


def test_curves_are_drawn(exact, tmp_path):
    draw_curves(exact[1], tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 10_000


def test_the_number_of_pairs_in_sight_comes_with_the_scores(exact):
    mixed, curves = exact
    # Ten images without padding; shifted by a quarter of the side, some are half out.
    assert 0 < mixed["images_in_sight"] <= 10
    middle = curves["shift"][len(curves["shift"]) // 2]
    assert middle["images_in_sight"] == 10


def test_without_a_pair_in_sight_there_is_no_score(tmp_path):
    nothing = batch()
    nothing["weight"][:] = 0
    mixed, curves = scores_of(False, [nothing])
    assert mixed == {"images_in_sight": 0}
    for axis, points in curves.items():
        assert all(point.keys() == {axis, "images_in_sight"} for point in points)
    draw_curves(curves, tmp_path / "empty.png")


def test_curves_are_drawn_where_some_points_have_no_score(tmp_path):
    corner = batch()
    # In sight where it is, out of sight when shifted to the right.
    corner["rectangle"][:] = [0.95, 0, 0.1, 0.1, 0]
    mixed, curves = scores_of(False, [corner])
    shown = [point["images_in_sight"] for point in curves["shift"]]
    assert shown[0] == 5
    assert shown[-1] == 0
    assert "look/equivariance_iou" not in curves["shift"][-1]
    json.dumps((mixed, curves), allow_nan=False)
    draw_curves(curves, tmp_path / "curves.png")
