"""The images of `cluttered_digits` 1.1.0: one whole digit amid fragments of others.

Everything here is a pure function of (split, index), in numpy and scipy alone. The
handwriting is scikit-learn's: 1,797 real 8x8 digits, which come with the package.

Frozen: a change of any constant or of the order of random draws is a new version.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

VERSION = "1.1.0"
SIDE = 48  # pixels of the square canvas
SPLIT_SIZES = {"train": 16_000, "test": 2_000}
CLASS_NAMES = tuple("0123456789")

_SEED = 20_250_310
_SPLIT_SEEDS = {"train": 1, "test": 2}
_TEST_SHARE = 0.25  # of the digits of each class
_UPSAMPLING = 8  # samples per source pixel
_MARGIN = 1  # source pixels of empty border round the upsampled ink
_INK = 0.25  # a sample at or above this share of full ink belongs to the digit
_HEIGHT_RANGE = (14.0, 26.0)  # pixels on the canvas of a whole digit's box
_MAX_ANGLE = np.pi / 4  # so that 6 and 9 stay apart
_CONTRAST_RANGE = (0.6, 1.0)
_FRAGMENTS = (6, 10)  # fewest and most per image, both included
_FRAGMENT_SIDE = 4  # source pixels
_FRAGMENT_MIN_INK = 3.0  # sum over its 16 source pixels, each in [0, 1]
_MAX_OVERLAP = 0.25  # share of a fragment's window inside the digit's rectangle
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


class Pose(NamedTuple):
    """Source pixels to canvas pixels: p -> scale * R(angle) p + (x, y)."""

    x: float
    y: float
    scale: float
    angle: float


def make_sample(split: str, index: int) -> Sample:
    """Image `index` of `split`, the same on every machine."""
    rng = _generator(split, index)
    digits, labels = _digits_of(split)
    label = int(rng.integers(len(CLASS_NAMES)))
    chosen = int(rng.choice(np.flatnonzero(labels == label)))
    ink = upsample(digits[chosen])
    box = ink_box(ink)
    pose = _digit_pose(rng, box)
    digit = render(ink, pose)
    canvas = rng.uniform(*_CONTRAST_RANGE) * digit
    for _ in range(int(rng.integers(_FRAGMENTS[0], _FRAGMENTS[1] + 1))):
        fragment, fragment_pose = _fragment(rng, digits, chosen, box, pose)
        contrast = rng.uniform(*_CONTRAST_RANGE)
        canvas = np.maximum(canvas, contrast * render(fragment, fragment_pose))
    canvas = canvas + rng.normal(0.0, _NOISE, canvas.shape)
    image = np.round(255.0 * np.clip(canvas, 0.0, 1.0)).astype(np.uint8)
    return Sample(image, label, _isotropic_rectangle(box, pose), digit >= _INK)


def make_clean_digit(split: str, index: int) -> np.ndarray:
    """The ink of the digit of `make_sample` alone, float64 [48, 48] in [0, 1]."""
    rng = _generator(split, index)
    digits, labels = _digits_of(split)
    label = int(rng.integers(len(CLASS_NAMES)))
    ink = upsample(digits[int(rng.choice(np.flatnonzero(labels == label)))])
    return render(ink, _digit_pose(rng, ink_box(ink)))


@functools.cache
def split_digits(split: str) -> np.ndarray:
    """Indices into scikit-learn's digits that `split` is made of, sorted.

    A quarter of each class is kept for "test"; no digit is in both.
    """
    from sklearn.datasets import load_digits

    _, target = load_digits(return_X_y=True)
    rng = np.random.Generator(np.random.PCG64(_SEED))
    chosen = []
    for label in range(len(CLASS_NAMES)):
        order = rng.permutation(np.flatnonzero(target == label))
        cut = round(_TEST_SHARE * len(order))
        chosen.append(order[:cut] if split == "test" else order[cut:])
    return np.sort(np.concatenate(chosen))


def upsample(source: np.ndarray) -> np.ndarray:
    """Smooth ink in [0, 1] on a grid 8 times finer, with a border of 1 source pixel.

    Keys' cubic convolution, clipped; [n, n] -> [8 (n + 2), 8 (n + 2)].
    """
    weights = _upsampling_weights(len(source))
    # einsum without `optimize` sums in a fixed order; a BLAS product need not.
    rows = np.einsum("ai,ij->aj", weights, source)
    return np.clip(np.einsum("bj,aj->ab", weights, rows), 0.0, 1.0)


def ink_box(ink: np.ndarray) -> tuple[float, float, float, float]:
    """Tight box of upsampled ink: (xmin, ymin, xmax, ymax) in source pixels.

    Counted from the middle of the array, x right and y down.
    """
    present = ink >= _INK
    columns = np.flatnonzero(present.any(axis=0))
    rows = np.flatnonzero(present.any(axis=1))
    middle = len(ink) / 2
    xmin, xmax = columns[0] - middle, columns[-1] + 1 - middle
    ymin, ymax = rows[0] - middle, rows[-1] + 1 - middle
    u = _UPSAMPLING
    return float(xmin / u), float(ymin / u), float(xmax / u), float(ymax / u)


def render(ink: np.ndarray, pose: Pose) -> np.ndarray:
    """Upsampled ink on the canvas at `pose`, float64 [48, 48]."""
    from scipy.ndimage import affine_transform

    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    # scipy pulls: (row, column) of the canvas -> (row, column) of the ink.
    matrix = np.array([[cos, -sin], [sin, cos]]) * (_UPSAMPLING / pose.scale)
    canvas_middle = np.array([pose.y, pose.x]) - 0.5
    ink_middle = np.full(2, len(ink) / 2 - 0.5)
    offset = ink_middle - np.array(
        [
            matrix[0, 0] * canvas_middle[0] + matrix[0, 1] * canvas_middle[1],
            matrix[1, 0] * canvas_middle[0] + matrix[1, 1] * canvas_middle[1],
        ]
    )
    shape = (SIDE, SIDE)
    # scipy's type stubs know only one offset for all axes.
    return affine_transform(ink, matrix, offset, shape, order=1)  # pyright: ignore


def _generator(split: str, index: int) -> np.random.Generator:
    if split not in SPLIT_SIZES:
        raise ValueError(f"split must be one of {sorted(SPLIT_SIZES)}, got {split!r}.")
    return np.random.Generator(np.random.PCG64([_SEED, _SPLIT_SEEDS[split], index]))


@functools.cache
def _digits_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits [n, 8, 8] in [0, 1] and labels [n] of one split."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    chosen = split_digits(split)
    return pixels[chosen].reshape(-1, 8, 8) / 16.0, target[chosen]


@functools.cache
def _upsampling_weights(n: int) -> np.ndarray:
    """[8 (n + 2), n] weights of Keys' cubic kernel (a = -1/2)."""
    samples = (np.arange(_UPSAMPLING * (n + 2 * _MARGIN)) + 0.5) / _UPSAMPLING
    distance = np.abs(samples[:, None] - _MARGIN - (np.arange(n)[None] + 0.5))
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def _digit_pose(rng: np.random.Generator, box: tuple[float, ...]) -> Pose:
    """A random pose that keeps the whole box on the canvas."""
    xmin, ymin, xmax, ymax = box
    scale = rng.uniform(*_HEIGHT_RANGE) / (ymax - ymin)
    angle = rng.uniform(-_MAX_ANGLE, _MAX_ANGLE)
    corners = np.array([(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax)])
    x = scale * (np.cos(angle) * corners[:, 0] - np.sin(angle) * corners[:, 1])
    y = scale * (np.sin(angle) * corners[:, 0] + np.cos(angle) * corners[:, 1])
    return Pose(
        x=rng.uniform(-x.min(), SIDE - x.max()),
        y=rng.uniform(-y.min(), SIDE - y.max()),
        scale=scale,
        angle=angle,
    )


def _fragment(rng, digits, chosen, box, pose) -> tuple[np.ndarray, Pose]:
    """Upsampled ink of a piece of another digit, and a pose that spares the digit."""
    side = _FRAGMENT_SIDE
    while True:
        other = int(rng.integers(len(digits)))
        row, column = rng.integers(0, digits.shape[1] - side + 1, size=2)
        piece = digits[other, row : row + side, column : column + side]
        if other != chosen and piece.sum() >= _FRAGMENT_MIN_INK:
            break
    while True:
        fragment_pose = Pose(
            x=rng.uniform(0.0, SIDE),
            y=rng.uniform(0.0, SIDE),
            # A whole digit is about 8 source pixels tall.
            scale=rng.uniform(*_HEIGHT_RANGE) / digits.shape[1],
            angle=rng.uniform(-_MAX_ANGLE, _MAX_ANGLE),
        )
        if _overlap(fragment_pose, box, pose) <= _MAX_OVERLAP:
            return upsample(piece), fragment_pose


@functools.cache
def _window_points() -> tuple[np.ndarray, np.ndarray]:
    """8x8 points of a fragment's window, in source pixels from its middle."""
    ticks = (np.arange(8) + 0.5) / 8 * _FRAGMENT_SIDE - _FRAGMENT_SIDE / 2
    u, v = np.meshgrid(ticks, ticks)
    return u, v


def _overlap(fragment_pose: Pose, box: tuple[float, ...], pose: Pose) -> float:
    """Share of the fragment's window that lies in the digit's box, on 8x8 points."""
    u, v = _window_points()
    cos, sin = np.cos(fragment_pose.angle), np.sin(fragment_pose.angle)
    x = fragment_pose.scale * (cos * u - sin * v) + fragment_pose.x - pose.x
    y = fragment_pose.scale * (sin * u + cos * v) + fragment_pose.y - pose.y
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    u, v = (cos * x + sin * y) / pose.scale, (cos * y - sin * x) / pose.scale
    inside = (u >= box[0]) & (u <= box[2]) & (v >= box[1]) & (v <= box[3])
    return float(inside.mean())


def _isotropic_rectangle(box: tuple[float, ...], pose: Pose) -> np.ndarray:
    """The box at `pose` as a rectangle in isotropic coordinates, float32 [5]."""
    xmin, ymin, xmax, ymax = box
    u, v = (xmin + xmax) / 2, (ymin + ymax) / 2
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    x = pose.x + pose.scale * (cos * u - sin * v)
    y = pose.y + pose.scale * (sin * u + cos * v)
    unit = 2.0 / SIDE
    half_width = pose.scale * (xmax - xmin) / 2 * unit
    half_height = pose.scale * (ymax - ymin) / 2 * unit
    values = (x * unit - 1, y * unit - 1, half_width, half_height, pose.angle)
    return np.array(values, np.float32)
