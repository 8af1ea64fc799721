"""The images of `many_digits` 1.0.0: 1 to 8 whole digits amid fragments of others.

Everything here is a pure function of (split, index), in numpy and scipy alone.

Frozen: a change of any constant or of the order of random draws is a new version.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from train.data.sources.digits.ink import (
    CLASS_NAMES,
    Box,
    Pose,
    digit_pose,
    digits_of,
    fragment_pose,
    ink_box,
    isotropic_rectangle,
    random_fragment,
    render_within,
    upsample,
)

VERSION = "1.0.0"
SIDE = 96  # pixels of the square canvas
SPLIT_SIZES = {"train": 4_000, "test": 1_000}

_SEED = 20_251_125
_SPLIT_SEEDS = {"train": 1, "test": 2}
_DIGITS = (1, 8)  # fewest and most per image, both included
_HEIGHT_RANGE = (16.0, 30.0)  # pixels on the canvas of a whole digit's box
_CONTRAST_RANGE = (0.6, 1.0)
_FRAGMENTS = (4, 10)  # fewest and most per image, both included
_NOISE = 0.04  # standard deviation, share of full ink


class Sample(NamedTuple):
    """One image and its truth, of N digits.

    Attributes:
        image: uint8 [96, 96].
        labels: int64 [N], each 0 to 9.
        rectangles: float32 [N, 5]: center_x, center_y, half_width, half_height, angle
            in isotropic coordinates (`cram_jax.geometry.coordinates`).
    """

    image: np.ndarray
    labels: np.ndarray
    rectangles: np.ndarray


class _Digit(NamedTuple):
    """A digit on the canvas: its place among those of its split, ink, box and pose."""

    number: int
    ink: np.ndarray
    box: Box
    pose: Pose


def make_sample(split: str, index: int) -> Sample:
    """Image `index` of `split`, the same on every machine."""
    if split not in SPLIT_SIZES:
        raise ValueError(f"split must be one of {sorted(SPLIT_SIZES)}, got {split!r}.")
    rng = np.random.Generator(np.random.PCG64([_SEED, _SPLIT_SEEDS[split], index]))
    digits, labels = digits_of(split)
    placed = _placed(rng, digits, labels)
    canvas = np.zeros((SIDE, SIDE))
    for digit in placed:
        contrast = rng.uniform(*_CONTRAST_RANGE)
        render_within(canvas, digit.ink, digit.pose, contrast)
    shown = [digit.number for digit in placed]
    taken = [(digit.box, digit.pose) for digit in placed]
    for _ in range(int(rng.integers(_FRAGMENTS[0], _FRAGMENTS[1] + 1))):
        fragment = upsample(random_fragment(rng, digits, shown))
        pose = fragment_pose(rng, taken, SIDE, _HEIGHT_RANGE)
        render_within(canvas, fragment, pose, rng.uniform(*_CONTRAST_RANGE))
    canvas = canvas + rng.normal(0.0, _NOISE, canvas.shape)
    image = np.round(255.0 * np.clip(canvas, 0.0, 1.0)).astype(np.uint8)
    rectangles = [isotropic_rectangle(box, pose, SIDE) for box, pose in taken]
    return Sample(image, labels[shown].astype(np.int64), np.stack(rectangles))


def _placed(
    rng: np.random.Generator, digits: np.ndarray, labels: np.ndarray
) -> list[_Digit]:
    """Digits whose centres keep apart, so that none hides another one."""
    placed: list[_Digit] = []
    for _ in range(int(rng.integers(_DIGITS[0], _DIGITS[1] + 1))):
        label = int(rng.integers(len(CLASS_NAMES)))
        number = int(rng.choice(np.flatnonzero(labels == label)))
        ink = upsample(digits[number])
        box = ink_box(ink)
        while True:
            pose = digit_pose(rng, box, SIDE, _HEIGHT_RANGE)
            digit = _Digit(number, ink, box, pose)
            if all(_apart(digit, other) for other in placed):
                break
        placed.append(digit)
    return placed


def _apart(one: _Digit, other: _Digit) -> bool:
    """Whether circles with the areas of the two boxes do not overlap but touch.

    So boxes may touch, and overlap at their corners and ends.
    """
    (x, y, reach), (other_x, other_y, other_reach) = map(_circle, (one, other))
    distance = float(np.hypot(x - other_x, y - other_y))
    return distance >= reach + other_reach


def _circle(digit: _Digit) -> tuple[float, float, float]:
    """Centre of a digit's box, and the radius of a circle of its area, in pixels."""
    x, y, half_width, half_height, _ = isotropic_rectangle(digit.box, digit.pose, SIDE)
    area = 4 * float(half_width) * float(half_height)
    pixel = SIDE / 2
    return float(x) * pixel, float(y) * pixel, float(np.sqrt(area / np.pi)) * pixel
