"""Handwritten digits and fragments of them as ink, and where they lie on a canvas.

What the embedded sets have in common. The handwriting is scikit-learn's: 1,797 real 8x8
digits, which come with the package. Everything here is numpy and scipy alone.

Frozen: a change of any constant or of the order of random draws is a new version of
every embedded set.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

CLASS_NAMES = tuple("0123456789")
INK = 0.25  # a sample at or above this share of full ink belongs to the digit
MAX_ANGLE = np.pi / 4  # so that 6 and 9 stay apart
FRAGMENT_SIDE = 4  # source pixels

_SEED = 20_250_310
_TEST_SHARE = 0.25  # of the digits of each class
_SOURCE_SIDE = 8  # source pixels
_UPSAMPLING = 8  # samples per source pixel
_MARGIN = 1  # source pixels of empty border round the upsampled ink
_FRAGMENT_MIN_INK = 3.0  # sum over its 16 source pixels, each in [0, 1]
_MAX_OVERLAP = 0.25  # share of a fragment's window inside a digit's rectangle

Box = tuple[float, float, float, float]  # xmin, ymin, xmax, ymax


class Pose(NamedTuple):
    """Source pixels to canvas pixels: p -> scale * R(angle) p + (x, y)."""

    x: float
    y: float
    scale: float
    angle: float


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


@functools.cache
def digits_of(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Digits [n, 8, 8] in [0, 1] and labels [n] of one split."""
    from sklearn.datasets import load_digits

    pixels, target = load_digits(return_X_y=True)
    chosen = split_digits(split)
    return pixels[chosen].reshape(-1, 8, 8) / 16.0, target[chosen]


def upsample(source: np.ndarray) -> np.ndarray:
    """Smooth ink in [0, 1] on a grid 8 times finer, with a border of 1 source pixel.

    Keys' cubic convolution, clipped; [n, n] -> [8 (n + 2), 8 (n + 2)].
    """
    weights = _upsampling_weights(len(source))
    # einsum without `optimize` sums in a fixed order; a BLAS product need not.
    rows = np.einsum("ai,ij->aj", weights, source)
    return np.clip(np.einsum("bj,aj->ab", weights, rows), 0.0, 1.0)


@functools.cache
def _upsampling_weights(n: int) -> np.ndarray:
    """[8 (n + 2), n] weights of Keys' cubic kernel (a = -1/2)."""
    samples = (np.arange(_UPSAMPLING * (n + 2 * _MARGIN)) + 0.5) / _UPSAMPLING
    distance = np.abs(samples[:, None] - _MARGIN - (np.arange(n)[None] + 0.5))
    near = (1.5 * distance - 2.5) * distance**2 + 1.0
    far = ((-0.5 * distance + 2.5) * distance - 4.0) * distance + 2.0
    return np.where(distance < 1, near, np.where(distance < 2, far, 0.0))


def ink_box(ink: np.ndarray) -> Box:
    """Tight box of upsampled ink: (xmin, ymin, xmax, ymax) in source pixels.

    Counted from the middle of the array, x right and y down.
    """
    present = ink >= INK
    columns = np.flatnonzero(present.any(axis=0))
    rows = np.flatnonzero(present.any(axis=1))
    middle = len(ink) / 2
    xmin, xmax = columns[0] - middle, columns[-1] + 1 - middle
    ymin, ymax = rows[0] - middle, rows[-1] + 1 - middle
    u = _UPSAMPLING
    return float(xmin / u), float(ymin / u), float(xmax / u), float(ymax / u)


def digit_pose(
    rng: np.random.Generator, box: Box, side: int, heights: tuple[float, float]
) -> Pose:
    """A random pose that keeps the whole box on a square canvas.

    Args:
        rng: drawn from, four times.
        box: the ink's.
        side: the canvas's, in pixels.
        heights: least and greatest height of the box in pixels.
    """
    xmin, ymin, xmax, ymax = box
    scale = rng.uniform(*heights) / (ymax - ymin)
    angle = rng.uniform(-MAX_ANGLE, MAX_ANGLE)
    corners = np.array([(xmin, ymin), (xmax, ymin), (xmax, ymax), (xmin, ymax)])
    x = scale * (np.cos(angle) * corners[:, 0] - np.sin(angle) * corners[:, 1])
    y = scale * (np.sin(angle) * corners[:, 0] + np.cos(angle) * corners[:, 1])
    return Pose(
        x=rng.uniform(-x.min(), side - x.max()),
        y=rng.uniform(-y.min(), side - y.max()),
        scale=scale,
        angle=angle,
    )


def random_fragment(
    rng: np.random.Generator, digits: np.ndarray, shown: Collection[int]
) -> np.ndarray:
    """Ink [4, 4] of a piece of a digit that is not shown whole."""
    side = FRAGMENT_SIDE
    while True:
        other = int(rng.integers(len(digits)))
        row, column = rng.integers(0, digits.shape[1] - side + 1, size=2)
        piece = digits[other, row : row + side, column : column + side]
        if other not in shown and piece.sum() >= _FRAGMENT_MIN_INK:
            return piece


def fragment_pose(
    rng: np.random.Generator,
    taken: Sequence[tuple[Box, Pose]],
    side: int,
    heights: tuple[float, float],
) -> Pose:
    """A random pose of a fragment that spares the digits, whose boxes are given."""
    while True:
        pose = Pose(
            x=rng.uniform(0.0, side),
            y=rng.uniform(0.0, side),
            # A whole digit is about 8 source pixels tall.
            scale=rng.uniform(*heights) / _SOURCE_SIDE,
            angle=rng.uniform(-MAX_ANGLE, MAX_ANGLE),
        )
        if all(_overlap(pose, *each) <= _MAX_OVERLAP for each in taken):
            return pose


@functools.cache
def _window_points() -> tuple[np.ndarray, np.ndarray]:
    """8x8 points of a fragment's window, in source pixels from its middle."""
    ticks = (np.arange(8) + 0.5) / 8 * FRAGMENT_SIDE - FRAGMENT_SIDE / 2
    u, v = np.meshgrid(ticks, ticks)
    return u, v


def _overlap(fragment: Pose, box: Box, pose: Pose) -> float:
    """Share of the fragment's window that lies in the digit's box, on 8x8 points."""
    if _far_apart(fragment, box, pose):
        return 0.0
    u, v = _window_points()
    cos, sin = np.cos(fragment.angle), np.sin(fragment.angle)
    x = fragment.scale * (cos * u - sin * v) + fragment.x - pose.x
    y = fragment.scale * (sin * u + cos * v) + fragment.y - pose.y
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    u, v = (cos * x + sin * y) / pose.scale, (cos * y - sin * x) / pose.scale
    inside = (u >= box[0]) & (u <= box[2]) & (v >= box[1]) & (v <= box[3])
    return float(inside.mean())


def _far_apart(fragment: Pose, box: Box, pose: Pose) -> bool:
    """Whether not even circles round the fragment and the digit touch: quickly said."""
    reach = fragment.scale * FRAGMENT_SIDE * math.sqrt(0.5)
    reach += pose.scale * math.hypot(max(-box[0], box[2]), max(-box[1], box[3]))
    return math.hypot(fragment.x - pose.x, fragment.y - pose.y) > reach


def isotropic_rectangle(box: Box, pose: Pose, side: int) -> np.ndarray:
    """The box at `pose` as a rectangle in isotropic coordinates, float32 [5].

    Args:
        box: in source pixels.
        pose: on a square canvas.
        side: the canvas's, in pixels.
    """
    xmin, ymin, xmax, ymax = box
    u, v = (xmin + xmax) / 2, (ymin + ymax) / 2
    cos, sin = np.cos(pose.angle), np.sin(pose.angle)
    x = pose.x + pose.scale * (cos * u - sin * v)
    y = pose.y + pose.scale * (sin * u + cos * v)
    unit = 2.0 / side
    half_width = pose.scale * (xmax - xmin) / 2 * unit
    half_height = pose.scale * (ymax - ymin) / 2 * unit
    values = (x * unit - 1, y * unit - 1, half_width, half_height, pose.angle)
    return np.array(values, np.float32)


def render(ink: np.ndarray, pose: Pose, shape: tuple[int, int]) -> np.ndarray:
    """Upsampled ink on a canvas at `pose`, float64 of the shape (height, width)."""
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
    # scipy's type stubs know only one offset for all axes.
    return affine_transform(ink, matrix, offset, shape, order=1)  # pyright: ignore


def render_within(
    canvas: np.ndarray, ink: np.ndarray, pose: Pose, contrast: float
) -> None:
    """Lays upsampled ink on a canvas at `pose`, where it is the brighter of the two.

    Args:
        canvas: float64 [H, W], changed where the ink lies.
        ink: in [0, 1].
        pose: on the canvas.
        contrast: factor of the ink.
    """
    turn = abs(np.cos(pose.angle)) + abs(np.sin(pose.angle))
    reach = pose.scale * turn * len(ink) / _UPSAMPLING / 2
    left, top = max(int(pose.x - reach), 0), max(int(pose.y - reach), 0)
    window = canvas[top : int(pose.y + reach) + 1, left : int(pose.x + reach) + 1]
    its_pose = pose._replace(x=pose.x - left, y=pose.y - top)
    np.maximum(window, contrast * render(ink, its_pose, window.shape), out=window)
