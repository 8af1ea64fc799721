"""The objects of images in the rows of a batch: arrays of one shape for every image.

A row has room for `M` objects: "objects" float32 `[M, 5]` in isotropic coordinates,
"object_labels" int32 `[M]`, -1 where there is no object, and "object_ignored" bool
`[M]`. What stands in "objects" where there is none is a rectangle like any other, with
sides of positive length, so that no logarithm or quotient of it is infinite.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import Similarity, transform_rectangle
from train.data.sources.base import Objects

NO_OBJECT = -1
_NO_RECTANGLE = (0.0, 0.0, 1.0, 1.0, 0.0)


class Padded(NamedTuple):
    """The objects of an image in the shapes of a row.

    Attributes:
      arrays: by name; see above.
      left_out: the number of objects for which there was no room.
    """

    arrays: dict[str, np.ndarray]
    left_out: int


def blank_objects(count: int) -> dict[str, np.ndarray]:
    """The row of an image without objects, with room for `count`."""
    return {
        "objects": np.tile(np.array(_NO_RECTANGLE, np.float32), (count, 1)),
        "object_labels": np.full(count, NO_OBJECT, np.int32),
        "object_ignored": np.zeros(count, bool),
    }


def padded_objects(objects: Objects, count: int) -> Padded:
    """A row with room for `count` objects, those of the image first, in their order.

    Where there are more, those that are not ignored are kept before others, and the
    larger ones before the smaller.

    Args:
      objects: in isotropic coordinates, as `visible_objects` gives them.
      count: the room.
    """
    areas = objects.rectangles[:, 2] * objects.rectangles[:, 3]
    ranked = np.lexsort((-areas, objects.ignored))  # its last key is the first one
    kept = objects.chosen(np.sort(ranked[:count]))
    row = blank_objects(count)
    row["objects"][: len(kept)] = kept.rectangles
    row["object_labels"][: len(kept)] = kept.labels
    row["object_ignored"][: len(kept)] = kept.ignored
    return Padded(row, len(objects) - len(kept))


def mirrored_objects(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows `[..., M]` of images that are mirrored left to right."""
    # The sign of center_x and that of the angle turn.
    mirrored = rows["objects"] * np.array([-1, 1, 1, 1, -1], np.float32)
    return {**rows, "objects": mirrored}


def moved_objects(
    similarities: Similarity, rows: Mapping[str, jax.Array], size: tuple[int, int]
) -> dict[str, jax.Array]:
    """Rows of images that are moved: objects move along, or leave.

    An object whose centre leaves the image is none any more. An upright rectangle is
    turned with its image like any other, and no rectangle is cut.

    Args:
      similarities: `[B]`, one for each image.
      rows: those of `B` images.
      size: (height, width) of the images.
    """
    each = jax.tree.map(lambda leaf: leaf[:, None], similarities)
    moved = transform_rectangle(each, Rectangle.from_array(rows["objects"]))
    extent_x, extent_y = map_extents(*size)
    inside = jnp.abs(moved.center_x) <= extent_x
    inside &= jnp.abs(moved.center_y) <= extent_y
    labels = jnp.where(inside, rows["object_labels"], NO_OBJECT)
    objects = moved.as_array().astype(rows["objects"].dtype)
    return {**rows, "objects": objects, "object_labels": labels}
