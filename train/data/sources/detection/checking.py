"""What a file says of the objects of an image, checked: rectangles, or why not."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from cram_jax.checks import nearest
from train.data.sources.base import Objects, UnreadableImageError

# Radians between a turn and back; whoever has more means degrees.
MAX_ANGLE = 2 * math.pi


def checked_objects(
    rectangles: Sequence[Sequence[float]] | np.ndarray,
    labels: Sequence[int] | np.ndarray,
    ignored: Sequence[bool] | np.ndarray,
    *,
    size: tuple[int, int],
    names: Sequence[str],
) -> Objects:
    """The objects of an image; upright rectangles are cut at its edge.

    Args:
        rectangles: `[N, 5]` in pixel coordinates; see `train.data.sources.base`.
        labels: `[N]`.
        ignored: `[N]`.
        size: (height, width) of the image.
        names: what messages call each object, as in "boxes[0] of train/x.png".

    Raises:
        UnreadableImageError: names an object that has no area, or lies outside.
    """
    found = np.array(rectangles, np.float64).reshape(-1, 5)
    for name, rectangle in zip(names, found, strict=True):
        if not np.isfinite(rectangle).all():
            raise UnreadableImageError(
                f"{name} must be finite numbers, got {_listed(rectangle)}."
            )
        width, height = 2 * rectangle[2:4]
        if width <= 0 or height <= 0:
            raise UnreadableImageError(
                f"{name} must have a positive width and height, got {width:g} and"
                f" {height:g}; correct or remove it."
            )
    upright = found[:, 4] == 0
    limit = np.array([size[1], size[0]], np.float64)
    low = np.clip(found[:, :2] - found[:, 2:4], 0, limit)
    high = np.clip(found[:, :2] + found[:, 2:4], 0, limit)
    inside = ((found[:, :2] >= 0) & (found[:, :2] <= limit)).all(axis=1)
    inside = np.where(upright, (high > low).all(axis=1), inside)
    for position in np.flatnonzero(~inside).tolist():
        raise UnreadableImageError(
            f"{names[position]} lies outside of its image of {size[1]} x {size[0]}"
            f" pixels: its centre is ({_listed(found[position, :2])}), its sides"
            f" {_listed(2 * found[position, 2:4])}; correct or remove it."
        )
    # What is whole keeps its very numbers.
    cut = upright & ((high - low) < 2 * found[:, 2:4] * (1 - 1e-12)).any(axis=1)
    found[cut, :2], found[cut, 2:4] = (low + high)[cut] / 2, (high - low)[cut] / 2
    return Objects(found, np.array(labels, np.int64), np.array(ignored, bool))


def upright_rectangle(x: float, y: float, width: float, height: float) -> list[float]:
    """The rectangle of a box by its left and upper edge and its size."""
    return [x + width / 2, y + height / 2, width / 2, height / 2, 0.0]


def check_radians(angle: float, name: str) -> None:
    """Refuses an angle that is more than a turn.

    Raises:
        ValueError: for the whole set, since all of its angles will be degrees.
    """
    if abs(angle) > MAX_ANGLE:
        raise ValueError(
            f"{name} has the angle {angle:g}, more than a turn: angles are radians,"
            " clockwise on screen; multiply degrees by pi / 180."
        )


def numbers(values: Any, count: int, name: str, form: str) -> list[float]:
    """The values, if they are so many finite numbers.

    Args:
        values: from a file, anything.
        count: how many there must be.
        name: what messages call them.
        form: what they mean, as in "[x, y, width, height]".

    Raises:
        UnreadableImageError: they are not.
    """
    are = isinstance(values, list) and len(values) == count
    if not are or not all(map(is_number, values)):
        raise UnreadableImageError(
            f"{name} must be {count} numbers {form}, got {str(values)[:80]}."
        )
    return values


def is_number(value: Any) -> bool:
    """Whether a value of a JSON file is a finite number."""
    kind = isinstance(value, (int, float)) and not isinstance(value, bool)
    return kind and math.isfinite(value)


def unknown_category(name: str, category: str, categories: Sequence[str]) -> str:
    """A sentence on a category that the set does not have."""
    near = nearest(category, categories)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    shown = ", ".join(categories[:20]) + (", ..." if len(categories) > 20 else "")
    return (
        f"{name} has the category {category!r}, and the set has {shown}; correct it,"
        f" or name the category.{hint}"
    )


def _listed(values: np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in values)
