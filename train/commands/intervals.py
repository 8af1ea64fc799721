"""Confidence intervals over seeds, for any number of them, and of shares of images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95


def student_within(t: float, degrees: int) -> float:
    """The probability that a Student's t variable lies between -t and t.

    For whole degrees of freedom it is a finite sum (Abramowitz and Stegun, 26.7.3 and
    26.7.4), so that no special function is needed.
    """
    theta = math.atan(t / math.sqrt(degrees))
    odd = degrees % 2
    term = math.cos(theta) if odd else 1.0
    total = 0.0
    for k in range(1 + odd, degrees, 2):
        total += term
        term *= math.cos(theta) ** 2 * k / (k + 1)
    if odd:
        return (theta + math.sin(theta) * total) * 2 / math.pi
    return math.sin(theta) * total


def student_point(degrees: int, confidence: float = CONFIDENCE) -> float:
    """The t beyond which, on both sides, lies what `confidence` leaves.

    Args:
      degrees: degrees of freedom, 1 or more.
      confidence: between 0 and 1.
    """
    if degrees < 1 or not 0 < confidence < 1:
        raise ValueError(
            "Student's t needs 1 degree of freedom or more and a confidence between 0"
            f" and 1; got {degrees} and {confidence}."
        )
    low, high = 0.0, 1.0
    while student_within(high, degrees) < confidence:
        high *= 2
    while True:
        middle = (low + high) / 2
        if middle in (low, high):
            return middle
        if student_within(middle, degrees) < confidence:
            low = middle
        else:
            high = middle


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half width of its 95% confidence interval (Student's t).

    The half width of a single value is None: one run says nothing about spread.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, None
    deviation = float(np.std(values, ddof=1))
    return mean, student_point(count - 1) * deviation / count**0.5


def share_interval(share: float, count: int) -> tuple[float, float]:
    """The 95% interval of a share that was measured on `count` images.

    Wilson's score interval (Wilson, JASA 1927): it stays within [0, 1] and does not
    shrink to nothing where all images, or none, are right.

    Args:
      share: from 0 to 1.
      count: 1 or more.

    Returns:
      Its lower and its upper end.
    """
    if count < 1 or not 0 <= share <= 1:
        raise ValueError(
            "An interval of a share needs one image or more and a share from 0 to 1;"
            f" got {count} and {share}."
        )
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    scale = 1 + z * z / count
    center = (share + z * z / (2 * count)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / count + (z / (2 * count)) ** 2)
    return max(center - half, 0.0), min(center + half, 1.0)
