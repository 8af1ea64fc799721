"""The images of `cluttered_digits` 1.1.0: one whole digit amid fragments of others.

Everything here is a pure function of (split, index), in numpy and scipy alone.

Frozen: a change of any constant or of the order of random draws is a new version.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from train.data.sources.digits.ink import (
    CLASS_NAMES,
    INK,
    digit_pose,
    digits_of,
    fragment_pose,
    ink_box,
    isotropic_rectangle,
    random_fragment,
    render,
    upsample,
)

VERSION = "1.1.0"
SIDE = 48  # pixels of the square canvas
SPLIT_SIZES = {"train": 16_000, "test": 2_000}

_SHAPE = (SIDE, SIDE)
_SEED = 20_250_310
_SPLIT_SEEDS = {"train": 1, "test": 2}
_HEIGHT_RANGE = (14.0, 26.0)  # pixels on the canvas of a whole digit's box
_CONTRAST_RANGE = (0.6, 1.0)
_FRAGMENTS = (6, 10)  # fewest and most per image, both included
_NOISE = 0.04  # standard deviation, share of full ink


class Sample(NamedTuple):
    """One image and its truth.

    Attributes:
        image: uint8 [48, 48].
        label: 0 to 9.
        rectangle: float32 [5]: center_x, center_y, half_width, half_height, angle in
            isotropic coordinates (`cram_jax.geometry.coordinates`).
        mask: bool [48, 48], the ink that the rectangle encloses.
    """

    image: np.ndarray
    label: int
    rectangle: np.ndarray
    mask: np.ndarray


def make_sample(split: str, index: int) -> Sample:
    """Image `index` of `split`, the same on every machine."""
    rng = _generator(split, index)
    digits, labels = digits_of(split)
    label = int(rng.integers(len(CLASS_NAMES)))
    chosen = int(rng.choice(np.flatnonzero(labels == label)))
    ink = upsample(digits[chosen])
    box = ink_box(ink)
    pose = digit_pose(rng, box, SIDE, _HEIGHT_RANGE)
    digit = render(ink, pose, _SHAPE)
    canvas = rng.uniform(*_CONTRAST_RANGE) * digit
    for _ in range(int(rng.integers(_FRAGMENTS[0], _FRAGMENTS[1] + 1))):
        fragment = upsample(random_fragment(rng, digits, (chosen,)))
        its_pose = fragment_pose(rng, [(box, pose)], SIDE, _HEIGHT_RANGE)
        contrast = rng.uniform(*_CONTRAST_RANGE)
        canvas = np.maximum(canvas, contrast * render(fragment, its_pose, _SHAPE))
    canvas = canvas + rng.normal(0.0, _NOISE, canvas.shape)
    image = np.round(255.0 * np.clip(canvas, 0.0, 1.0)).astype(np.uint8)
    return Sample(image, label, isotropic_rectangle(box, pose, SIDE), digit >= INK)


def make_clean_digit(split: str, index: int) -> np.ndarray:
    """The ink of the digit of `make_sample` alone, float64 [48, 48] in [0, 1]."""
    rng = _generator(split, index)
    digits, labels = digits_of(split)
    label = int(rng.integers(len(CLASS_NAMES)))
    ink = upsample(digits[int(rng.choice(np.flatnonzero(labels == label)))])
    return render(ink, digit_pose(rng, ink_box(ink), SIDE, _HEIGHT_RANGE), _SHAPE)


def _generator(split: str, index: int) -> np.random.Generator:
    if split not in SPLIT_SIZES:
        raise ValueError(f"split must be one of {sorted(SPLIT_SIZES)}, got {split!r}.")
    return np.random.Generator(np.random.PCG64([_SEED, _SPLIT_SEEDS[split], index]))
