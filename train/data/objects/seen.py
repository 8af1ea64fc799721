"""What the network sees of the objects of an image."""

from __future__ import annotations

import dataclasses

import numpy as np

from train.data.sources.base import Objects
from train.data.views import View, rectangle_to_network


def visible_objects(view: View, objects: Objects, *, min_share: float = 0.0) -> Objects:
    """The objects that a view shows, in isotropic coordinates of the network's input.

    A rotated rectangle is kept whole (a cut one is no rectangle) if its centre is in
    view. An upright one (angle 0) is cut at the edge of the view, and kept if at least
    a pixel of each side is left; one that lies in view whole is kept, however small.

    Args:
        view: what is seen of the source image.
        objects: in pixels of the source image.
        min_share: how much of the area of an upright rectangle must be left.

    Returns:
        Those that are kept, in their order.

    Raises:
        ValueError: the view changes the aspect and a rectangle is rotated.
    """
    seen = rectangle_to_network(view, objects.rectangles)
    longer = max(view.height, view.width)
    limit = np.array([view.width, view.height]) / longer
    center, half = seen[:, :2], seen[:, 2:4]
    low, high = center - half, center + half
    whole = ((low >= -limit) & (high <= limit)).all(axis=1)
    low, high = np.clip(low, -limit, limit), np.clip(high, -limit, limit)
    left = high - low
    enough = left.prod(axis=1) >= min_share * (2 * half).prod(axis=1)
    enough &= (left >= 2 / longer).all(axis=1)
    upright = objects.rectangles[:, 4] == 0
    cut = upright & ~whole
    seen[cut, :2], seen[cut, 2:4] = (low + high)[cut] / 2, left[cut] / 2
    in_view = (np.abs(center) <= limit).all(axis=1)
    kept = np.where(upright, whole | enough, in_view)
    return dataclasses.replace(objects, rectangles=seen).chosen(kept)
