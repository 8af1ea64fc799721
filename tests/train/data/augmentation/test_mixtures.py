"""Mixtures: pixels and labels in the same shares, whoever makes the batch."""

import dataclasses

import numpy as np
import pytest
from scipy import stats

from tests.batches import train_batches
from tests.train.data.test_pipeline import Numbered, assert_equal, take
from train.config.data import DataConfig
from train.config.run import FitConfig
from train.data import pipeline
from train.data.augmentation.mixtures import Mixture, draw_mixture, mixed_rows
from train.data.pipeline import Share
from train.tasks.classification import Classification
from train.tasks.segmentation import Segmentation

# What mixing must leave alone: the row's own crop, colours, noise and mirror.
ALTERED = DataConfig(
    crop_area=(0.3, 0.9), flip=True, trivial_augment=True, erasing=0.5, image_size=15
)
MIXUP = dataclasses.replace(ALTERED, mixup=0.4)
CUTMIX = dataclasses.replace(ALTERED, cutmix=1.0)
BOTH = dataclasses.replace(ALTERED, mixup=0.4, cutmix=1.0)


def batches_of(config, count=4, size=12, source=None, **options):
    source = Numbered(31, "mask") if source is None else source
    return take(train_batches(source, config, size, seed=5, **options), count)


def pairs(config):
    """Mixed rows, and by themselves the images that they are made of."""
    for mixed, plain in zip(batches_of(config), batches_of(ALTERED), strict=True):
        other = {name: np.roll(values, 1, axis=0) for name, values in plain.items()}
        np.testing.assert_array_equal(mixed["label"], plain["label"])
        np.testing.assert_array_equal(mixed["other_label"], other["label"])
        yield mixed, plain["image"].astype(float), other["image"].astype(float)


def test_mixup_blends_neighbours_by_the_share_of_their_labels():
    for mixed, own, other in pairs(MIXUP):
        share = mixed["label_share"].astype(float)[:, None, None, None]
        expected = share * own + (1 - share) * other
        np.testing.assert_allclose(mixed["image"], expected, atol=0.501)
        assert len(np.unique(share)) > 1
        assert mixed["label_share"].dtype == np.float32


def test_cutmix_puts_a_rectangle_of_the_neighbour_in_its_place():
    areas = []
    for mixed, own, other in pairs(CUTMIX):
        image = mixed["image"]
        assert ((image == own) | (image == other)).all()
        for row, share in enumerate(mixed["label_share"]):
            count = round((1 - share) * 15 * 15)
            assert (1 - share) * 15 * 15 == pytest.approx(count, abs=1e-3)
            pasted = (image[row] != own[row]).any(-1)
            if count == 0:
                assert not pasted.any()
                continue
            y, x = np.nonzero(pasted)
            box = np.s_[y.min() : y.max() + 1, x.min() : x.max() + 1]
            # Here and there both images have one colour, also along an edge.
            assert 0.8 * count <= pasted[box].size <= count
            np.testing.assert_array_equal(image[row][box], other[row][box])
            areas.append(1 - share)
    assert min(areas) < 0.2
    assert max(areas) > 0.5


def test_of_a_mixture_no_object_is_known():
    small = dataclasses.replace(ALTERED, cutmix=0.1)
    for config in (MIXUP, small):
        whole = 0
        for mixed, plain in zip(batches_of(config), batches_of(ALTERED), strict=True):
            own = mixed["label_share"] == 1
            assert (plain["rectangle_weight"] > 0).any()
            for name in ("rectangle", "rectangle_weight", "object_mask"):
                assert not mixed[name][~own].any()
                np.testing.assert_array_equal(mixed[name][own], plain[name][own])
                assert mixed[name].dtype == plain[name].dtype
            whole += own.sum()
            np.testing.assert_array_equal(mixed["weight"], plain["weight"])
        assert whole > 0 or config == MIXUP


@pytest.mark.parametrize("count", [2, 3, 12])
def test_any_number_of_processes_makes_the_same_mixtures(count):
    shares = [batches_of(BOTH, share=Share(i, count)) for i in range(count)]
    joined = [
        {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        for parts in zip(*shares, strict=True)
    ]
    assert_equal(joined, batches_of(BOTH))


def test_both_are_done_in_half_of_the_batches_each():
    rng, size = np.random.default_rng(0), (10, 10)
    cut = [draw_mixture(rng, BOTH, 2, size).boxes is not None for _ in range(400)]
    assert np.mean(cut) == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 3.0])
def test_shares_are_drawn_from_the_beta_distribution(alpha):
    rng, size = np.random.default_rng(1), (1000, 600)
    blend = draw_mixture(rng, DataConfig(mixup=alpha), 4000, size)
    assert blend.boxes is None
    beta = stats.beta(alpha, alpha).cdf
    assert stats.kstest(blend.shares, beta).pvalue > 1e-3
    cut = draw_mixture(rng, DataConfig(cutmix=alpha), 4000, size)
    assert cut.boxes is not None
    top, bottom, left, right = cut.boxes.T
    assert (cut.boxes >= 0).all()
    assert (bottom <= 1000).all()
    assert (right <= 600).all()
    # A box that was not cut off at the edge is of the image's shape.
    inside = (top > 0) & (bottom < 1000) & (left > 0) & (right < 600)
    h, w = (bottom - top)[inside] / 1000, (right - left)[inside] / 600
    assert inside.sum() > 200
    np.testing.assert_allclose(h, w, atol=2e-3 + 1 / 600)
    # The share that the box was drawn for, from its longest side.
    kept = 1 - np.maximum((bottom - top) / 1000, (right - left) / 600) ** 2
    assert (cut.shares >= kept - 0.01).all()
    # A small box is seldom cut off, whatever its place.
    centers = (left + right)[inside & (cut.shares > 0.98)] / 1200
    if len(centers) > 100:
        assert stats.kstest(centers, "uniform").pvalue > 1e-3


def test_an_image_that_cannot_be_read_is_mixed_with_none():
    source = Numbered(12, "mask", broken=5)
    skip = dataclasses.replace(CUTMIX, on_bad_image="skip", crop_area=(1.0, 1.0))
    (mixed,) = batches_of(skip, 1, source=source)
    (plain,) = batches_of(dataclasses.replace(skip, cutmix=0.0), 1, source=source)
    (lost,) = np.flatnonzero(mixed["weight"] == 0)
    after = (lost + 1) % 12
    assert mixed["label_share"][after] == 1
    for name in ("image", "rectangle", "object_mask"):
        np.testing.assert_array_equal(mixed[name][after], plain[name][after])
    np.testing.assert_array_equal(mixed["weight"], plain["weight"])


def test_regions_move_along_and_blended_ones_are_refused():
    generator = np.random.default_rng(2)

    def rows():
        return {
            "image": generator.integers(0, 256, (3, 4, 6, 3), np.uint8),
            "regions": generator.integers(0, 5, (3, 4, 6), np.uint8),
            "weight": np.ones(3, np.float32),
        }

    own, other = rows(), rows()
    boxes = np.array([[0, 4, 0, 6], [1, 3, 2, 6], [2, 2, 0, 6]])
    shares = np.array([0, 1 - 8 / 24, 1], np.float32)
    mixed = mixed_rows(own, other, Mixture(shares, boxes), Segmentation())
    for name in ("image", "regions"):
        np.testing.assert_array_equal(mixed[name][0], other[name][0])
        np.testing.assert_array_equal(mixed[name][2], own[name][2])
        expected = own[name][1].copy()
        expected[1:3, 2:6] = other[name][1][1:3, 2:6]
        np.testing.assert_array_equal(mixed[name][1], expected)
    assert mixed.keys() == own.keys()


def test_evaluation_mixes_nothing():
    (batch,) = pipeline.eval_batches(Numbered(4), BOTH, 4, task=Classification())
    assert "other_label" not in batch


def test_a_batch_of_one_image_cannot_be_mixed():
    with pytest.raises(ValueError, match="batch_size must be 2 or more for"):
        FitConfig(batch_size=1, data=MIXUP)
