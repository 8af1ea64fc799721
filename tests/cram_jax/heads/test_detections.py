"""Decoding inverts encoding; peaks and suppression against slow oracles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cram_jax.geometry.distances import rectangle_distance
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.heads.detection_targets import detection_targets
from cram_jax.heads.detections import Detections, decode_detections, rotated_nms
from tests.checks import assert_close
from tests.cram_jax.geometry.test_overlap import float32, shapely_iou

HEIGHT, WIDTH, CATEGORIES = 9, 12, 2
EXTENTS = (1.0, 35 / 48)


@functools.partial(jax.jit, static_argnames=("count", "max_iou"))
def decode(outputs, count, max_iou=None):
    return decode_detections(outputs, count, extents=EXTENTS, max_iou=max_iou)


# The limit is compiled in.
@functools.partial(jax.jit, static_argnames="max_iou")
def suppress(array, score, label, max_iou=0.4):
    return rotated_nms(Rectangle.from_array(array), score, label, max_iou=max_iou)


@jax.jit
def perfect_outputs(rectangles, labels):
    """What a network that has learnt its targets says of one image."""
    found = detection_targets(
        rectangles,
        labels,
        None,
        HEIGHT,
        WIDTH,
        num_categories=CATEGORIES,
        extents=EXTENTS,
    )
    boxes = jnp.zeros((HEIGHT * WIDTH, 6))
    # What was not asked for must not be read.
    boxes = boxes.at[found.cell].set(found.boxes).reshape(HEIGHT, WIDTH, 6)
    heat = jax.scipy.special.logit(jnp.clip(found.heat, 1e-4, 0.999))
    return {"heat": heat, "boxes": boxes}


@pytest.mark.parametrize("first", np.arange(-6, 7) * np.pi / 6 + 1e-6)
def test_decoding_inverts_encoding_at_every_angle(first):
    angles = first + np.array([0, np.pi / 4, np.pi / 2, -1e-6, 2.9])
    centers = [[-0.8, -0.6], [-0.1, -0.4], [0.7, -0.5], [-0.5, 0.4], [0.4, 0.35]]
    sizes = [[0.3, 0.1], [0.1, 0.2], [0.2, 0.2], [0.25, 0.002], [0.15, 0.14]]
    rectangles = np.concatenate([centers, sizes, angles[:, None]], -1)
    rectangles = rectangles.astype(np.float32)
    labels = np.array([0, 1, 0, 0, 1])
    found = decode(perfect_outputs(rectangles, labels), count=7)
    assert (found.score[:5] > 0.99).all()
    # The order of what is equally sure is that of cells.
    order = [0, 1, 2, 4, 3] if centers[4][1] < centers[3][1] else range(5)
    nearest = [np.abs(rectangles[:, 0] - x).argmin() for x in found.rectangle.center_x]
    assert sorted(nearest[:5]) == sorted(order)
    assert np.asarray(found.label[:5]).tolist() == labels[nearest[:5]].tolist()
    given = Rectangle.from_array(rectangles[nearest[:5]])
    decoded = jax.tree.map(lambda leaf: leaf[:5], found.rectangle)
    distance = rectangle_distance(given, decoded, metric="corners")
    assert float(distance.max()) < 1e-4


def test_peaks_are_scipys_local_maxima_and_the_best_come_first():
    heat = np.random.default_rng(0).normal(size=(3, HEIGHT, WIDTH, CATEGORIES))
    # Ties: neighbours with equal values are both peaks.
    heat = np.round(heat, 1).astype(np.float32)
    outputs = {"heat": heat, "boxes": np.zeros((3, HEIGHT, WIDTH, 6), np.float32)}
    count = HEIGHT * WIDTH * CATEGORIES + 3
    found = decode(outputs, count=count)
    assert found.score.shape == (3, count)
    filtered = scipy.ndimage.maximum_filter(
        heat, size=(1, 3, 3, 1), mode="constant", cval=-np.inf
    )
    for image in range(3):
        peaks = np.where(heat == filtered, heat, -np.inf)[image]
        order = np.argsort(-peaks.reshape(-1), kind="stable")
        number = int(np.isfinite(peaks).sum())
        assert (np.asarray(found.score[image]) > 0).sum() == number
        best = order[:number]
        expected = 1 / (1 + np.exp(-peaks.reshape(-1)[best]))
        assert_close(found.score[image, :number], expected, atol=1e-6)
        label = np.asarray(found.label[image])
        assert label[:number].tolist() == (best % CATEGORIES).tolist()
        assert (label[number:] == -1).all()


def random_detections(seed, count=40):
    rng = np.random.default_rng(seed)
    array = np.concatenate(
        [
            rng.uniform(-0.5, 0.5, (count, 2)),
            rng.uniform(0.05, 0.6, (count, 2)),
            rng.uniform(-4, 4, (count, 1)),
        ],
        axis=-1,
    )
    # Duplicates, ties, and places without a detection.
    array[1::7] = array[0]
    score = np.round(rng.uniform(0, 1, count), 1)
    return array.astype(np.float32), score.astype(np.float32), rng.integers(0, 2, count)


def oracle_nms(array, score, label, max_iou):
    kept: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        rivals = [j for j in kept if label[j] == label[i]]
        overlaps = shapely_iou(array[[i] * len(rivals)], array[rivals])
        if score[i] > 0 and (overlaps <= max_iou).all():
            kept.append(int(i))
    return np.isin(np.arange(len(score)), kept)


def test_suppression_is_the_greedy_one_with_shapely():
    batches = [random_detections(seed) for seed in range(6)]
    together = suppress(*map(np.stack, zip(*batches, strict=True)))
    assert together.size / 4 < together.sum() < together.size - 30
    for kept, batch in zip(together, batches, strict=True):
        expected = oracle_nms(*batch, 0.4)
        np.testing.assert_array_equal(kept, expected)


def test_suppression_under_vmap_and_in_another_order():
    array, score, label = random_detections(5, count=11)
    score = score + np.arange(11, dtype=np.float32) * 1e-3
    kept = oracle_nms(array, score, label, 0.4)
    batch = [np.stack([part, part[::-1]]) for part in (array, score, label)]
    with jax.numpy_dtype_promotion("strict"):
        mapped = jax.vmap(suppress)(*batch)
    np.testing.assert_array_equal(mapped, [kept, kept[::-1]])


def test_decoding_with_suppression_zeroes_what_overlaps():
    # Two peaks of one category that tell the same box.
    heat = np.full((HEIGHT, WIDTH, CATEGORIES), -9, np.float32)
    heat[4, 4, 0], heat[4, 6, 0], heat[4, 8, 1] = 3, 2, 1
    boxes = np.zeros((HEIGHT, WIDTH, 6), np.float32)
    boxes[4, 4, 0], boxes[4, 6, 0], boxes[4, 8, 0] = 1, -1, -3
    outputs = {"heat": heat, "boxes": boxes}
    best = 1 / (1 + np.exp(-float32([3, 2, 1])))
    all_of_them = decode(outputs, count=7)
    assert_close(all_of_them.score[:3], best, atol=1e-6)
    left = decode(outputs, count=3, max_iou=0.5)
    assert isinstance(left, Detections)
    assert_close(left.score, best * [1, 0, 1], atol=1e-6)
    assert np.asarray(left.label).tolist() == [0, -1, 1]


def test_without_jit_a_map_of_one_cell_gives_one_detection_of_each_category():
    outputs = {
        "heat": jnp.array([[[0.0, 1.0]]], jnp.bfloat16),
        "boxes": jnp.array([[[0.25, 0, 0, 0, 1, 0]]], jnp.bfloat16),
    }
    found = decode_detections(outputs, 4)
    assert np.asarray(found.label).tolist() == [1, 0, -1, -1]
    assert found.score.dtype == jnp.float32
    assert_close(found.score[2:], [0, 0])
    assert_close(found.rectangle.center_x[:2], [0.5, 0.5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": 0}, "count must be a whole number"),
        ({"boxes": np.zeros((3, 2, 6))}, r"boxes \[\.\.\., h, w, 6\]; got shapes"),
        ({"max_iou": 1.5}, "max_iou must be in 0 to 1"),
    ],
)
def test_mistakes_are_refused_with_the_rule(change, message):
    given = {"count": 3, "boxes": np.zeros((2, 3, 6)), "max_iou": None} | change
    outputs = {"heat": np.zeros((2, 3, 1)), "boxes": given["boxes"]}
    with pytest.raises(ValueError, match=message):
        decode_detections(outputs, given["count"], max_iou=given["max_iou"])
