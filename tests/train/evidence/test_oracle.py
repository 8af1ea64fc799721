"""The oracle rectangle: as good as another optimiser's, better than simple ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import differential_evolution

from cram_jax.geometry.overlap import mask_iou
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask
from train.evidence.box_accuracy import region_boxes
from train.evidence.oracle import moment_rectangle, oracle_rectangle

SIZE = 48, 64


def filled(numbers):
    rectangle = Rectangle.from_array(jnp.asarray(numbers, jnp.float32))
    return render_hard_mask(rectangle, *SIZE)


def overlap(rectangle, masks):
    return np.asarray(mask_iou(render_hard_mask(rectangle, *SIZE), masks))


def blobs():
    """Two crossing bars, a triangle, a disc with a hole, and two parts."""
    bars = filled([0, 0, 0.6, 0.1, 0.5]) | filled([0, 0, 0.1, 0.4, 0.5])
    y, x = jnp.mgrid[:48, :64]
    triangle = (x > 10) & (y > 5) & (x + y < 60)
    radius = jnp.hypot(x - 40, y - 20)
    parts = filled([-0.5, -0.2, 0.2, 0.15, 0.3]) | filled([0.5, 0.2, 0.1, 0.1, 0.0])
    return jnp.stack([bars, triangle, (radius < 18) & (radius > 6), parts])


def test_a_rectangle_is_found_again():
    numbers = np.random.default_rng(0).uniform(
        [-0.3, -0.2, 0.15, 0.1, -1.5], [0.3, 0.2, 0.5, 0.3, 1.5], (16, 5)
    )
    masks = filled(numbers)
    assert overlap(jax.jit(oracle_rectangle)(masks), masks).min() > 0.9


def test_no_simple_rectangle_is_better():
    masks = blobs()
    best = overlap(oracle_rectangle(masks), masks)
    moments = overlap(moment_rectangle(masks.astype(jnp.float32)), masks)
    boxes = np.zeros(masks.shape, bool)
    for region, box in zip(boxes, region_boxes(np.asarray(masks)), strict=True):
        left, top, right, bottom = box.astype(int)
        region[top:bottom, left:right] = True
    # The search sees masks of 64 pixels at most, as these are.
    assert (best >= moments - 1e-6).all()
    assert (best >= np.asarray(mask_iou(boxes, masks)) - 1e-6).all()


def test_another_optimiser_finds_hardly_more():
    masks = blobs()
    best = overlap(oracle_rectangle(masks), masks)
    limits = [(-1, 1), (-0.75, 0.75), (0.02, 1), (0.02, 1), (-np.pi / 2, np.pi / 2)]
    score = jax.jit(lambda n, m: mask_iou(filled(n), m))
    for index, mask in enumerate(masks):

        def loss(numbers, mask=mask):
            return -float(score(numbers, mask))

        found = differential_evolution(loss, limits, rng=0, maxiter=25, popsize=10)
        assert best[index] > -found.fun - 0.04


def test_moments_of_a_rectangle_are_its_own_and_nothing_is_not_finite():
    numbers = np.array([[0.1, -0.1, 0.5, 0.3, 0.4]])
    found = moment_rectangle(filled(numbers).astype(jnp.float32)).as_array()
    np.testing.assert_allclose(found, numbers, atol=0.02)
    for mask in (np.zeros((1, *SIZE), bool), np.ones((1, *SIZE), bool)):
        assert np.isfinite(oracle_rectangle(jnp.asarray(mask)).as_array()).all()


@pytest.mark.parametrize("size", [(1, 1), (30, 100), (200, 300)])
def test_any_size_of_mask(size):
    mask = np.ones((1, *size), bool)
    found = oracle_rectangle(jnp.asarray(mask))
    assert mask_iou(render_hard_mask(found, *size), mask)[0] > 0.9
