"""Colours and erasing: each operation does what it says, and nothing moves."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from train.config.data import DataConfig
from train.data.augmentation import appearance
from train.data.augmentation.appearance import (
    COLOR_OPERATIONS,
    altered,
    color_operation,
    erase_part,
    jitter_color,
    trivial_augment,
)

LUMA = np.array([0.299, 0.587, 0.114])


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
def test_no_jitter_changes_nothing(channels):
    image = np.random.default_rng(4).integers(0, 256, (5, 7, channels), np.uint8)
    same = jitter_color(image, brightness=1, contrast=1, saturation=1)
    np.testing.assert_array_equal(same, image)


def test_brightness_contrast_and_saturation_do_what_they_say():
    image = np.random.default_rng(5).integers(60, 140, (6, 6, 3), np.uint8)
    one = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0}
    bright = jitter_color(image, **(one | {"brightness": 1.5}))
    np.testing.assert_allclose(bright, 1.5 * image, atol=0.51)
    flat = jitter_color(image, **(one | {"contrast": 0.0}))
    assert np.ptp(flat) == 0
    grey = jitter_color(image, **(one | {"saturation": 0.0}))
    np.testing.assert_allclose(grey[..., 0], grey[..., 2])
    luma = image @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey[..., 1], luma, atol=0.51)
    spread = jitter_color(image, **(one | {"contrast": 2.0}))
    np.testing.assert_allclose(
        spread - luma.mean(), 2.0 * (image - luma.mean()), atol=0.6
    )
    assert jitter_color(image, **(one | {"brightness": 9.0})).max() == 255


# TrivialAugment


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", COLOR_OPERATIONS)
def test_no_strength_changes_nothing_and_nothing_changes_its_place(name, channels):
    image = noise(8, 11, channels)
    image[0, :2] = [[0], [255]]  # so that the full range is there already
    if name != "equalize":
        np.testing.assert_array_equal(color_operation(name, image, 0.0), image)
    for strength in (-1.0, 0.4, 1.0):
        changed = color_operation(name, image, strength)
        assert changed.shape == image.shape
        assert changed.dtype == np.uint8
        mirrored = color_operation(name, np.ascontiguousarray(image[:, ::-1]), strength)
        np.testing.assert_array_equal(mirrored, changed[:, ::-1])


def test_operations_do_what_their_names_say():
    image = noise(9, 9, 3, seed=1)

    def by(name, strength):
        return color_operation(name, image, strength).astype(float)

    exact = image.astype(float)
    np.testing.assert_array_equal(by("posterize", 1.0), image & 0b11000000)
    np.testing.assert_array_equal(by("posterize", -0.5), image & 0b11111000)
    np.testing.assert_array_equal(by("solarize", 1.0), 255 - image)
    np.testing.assert_array_equal(
        by("solarize", 0.5), np.where(image >= 128, 255 - exact, exact)
    )
    for strength in (-0.7, 0.7):
        factor = 1 + 0.99 * strength
        bright = np.clip(factor * exact, 0, 255)
        np.testing.assert_allclose(by("brightness", strength), bright, atol=1)
        grey = (exact @ LUMA)[..., None]
        vivid = np.clip(grey + factor * (exact - grey), 0, 255)
        np.testing.assert_allclose(by("saturation", strength), vivid, atol=2)
        strong = np.clip(grey.mean() + factor * (exact - grey.mean()), 0, 255)
        np.testing.assert_allclose(by("contrast", strength), strong, atol=2)
    narrow = (image // 4 + 60).astype(np.uint8)
    wide = color_operation("autocontrast", narrow, 1.0)
    assert wide.min() == 0
    assert wide.max() == 255
    dark = (noise(60, 60, 1, seed=2) // 3).astype(np.uint8)
    even = color_operation("equalize", dark, 1.0)
    assert stats.kstest(dark.ravel() / 255, "uniform").statistic > 0.5
    assert stats.kstest(even.ravel() / 255, "uniform").statistic < 0.03
    step = np.repeat([[[100], [150]]], 6, axis=0).repeat(4, axis=1).astype(np.uint8)
    range_of = {s: int(np.ptp(color_operation("sharpness", step, s))) for s in (0, 1)}
    assert range_of[1] > range_of[0]
    # Pillow leaves the pixels along the image's edge.
    blurred = color_operation("sharpness", step, -1.0)[1:-1].astype(int)
    assert np.abs(np.diff(blurred[..., 0], axis=1)).max() < 50


def test_each_operation_and_strength_is_as_likely(monkeypatch):
    drawn: list[tuple[str, float]] = []

    def recorder(name):
        return lambda picture, strength: drawn.append((name, strength)) or picture

    recorders: dict[str, Any] = {name: recorder(name) for name in COLOR_OPERATIONS}
    monkeypatch.setattr(appearance, "COLOR_OPERATIONS", recorders)
    rng, image = np.random.default_rng(3), noise(2, 2, 3)
    for _ in range(2790):
        trivial_augment(rng, image)
    names, strengths = zip(*drawn, strict=True)
    _, counts = np.unique(names, return_counts=True)
    assert len(counts) == 9
    assert stats.chisquare(counts).pvalue > 1e-3
    levels, counts = np.unique(np.round(np.abs(strengths) * 30), return_counts=True)
    np.testing.assert_array_equal(levels, np.arange(31))
    assert stats.chisquare(counts).pvalue > 1e-3
    assert abs(np.mean(np.sign(strengths))) < 0.1


# Erasing


def test_one_rectangle_is_replaced_by_noise():
    height, width = 40, 60
    ground = np.full((height, width, 3), 200, np.uint8)
    rng, areas, values, covered = np.random.default_rng(4), [], [], 0
    for _ in range(1000):
        erased = erase_part(rng, ground)
        # All three channels of a pixel of noise are 200 in one of 2**24 cases.
        changed = (erased != 200).any(-1)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        h, w = len(rows), len(columns)
        assert changed[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert 0.3 * 0.85 < h / w < 1.15 / 0.3
        areas.append(h * w / (height * width))
        values.append(erased[changed][:20].ravel())
        covered = covered + changed
    assert (ground == 200).all()
    assert 0.02 * 0.8 < min(areas) < 0.04
    assert 0.38 < max(areas) < 0.4 * 1.05
    assert np.concatenate(values).mean() == pytest.approx(127.5, abs=2)
    assert np.mean(np.asarray(covered) > 0) > 0.99


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 50, 3), (2, 2, 3), (50, 1, 1)])
def test_every_legal_image_is_altered_or_left(shape):
    config = DataConfig(trivial_augment=True, erasing=1.0, color_jitter=0.5)
    image = noise(*shape)
    before = image.copy()
    for seed in range(60):
        changed = altered(image, config, np.random.default_rng(seed))
        assert changed.shape == shape
        assert changed.dtype == np.uint8
    np.testing.assert_array_equal(image, before)


def test_erasing_has_its_probability():
    image, rng = noise(12, 12, 3), np.random.default_rng(5)
    config = DataConfig(erasing=0.3)
    changed = [(altered(image, config, rng) != image).any() for _ in range(1000)]
    assert np.mean(changed) == pytest.approx(0.3, abs=0.05)


def test_what_is_off_draws_nothing():
    image, rng = noise(6, 6, 3), np.random.default_rng(6)
    state = rng.bit_generator.state
    np.testing.assert_array_equal(altered(image, DataConfig(), rng), image)
    assert rng.bit_generator.state == state
    jitter = altered(image, DataConfig(color_jitter=0.4), np.random.default_rng(7))
    three = np.random.default_rng(7).uniform(0.6, 1.4, 3)
    names = ("brightness", "contrast", "saturation")
    expected = jitter_color(image, **dict(zip(names, three, strict=True)))
    np.testing.assert_array_equal(jitter, expected)
