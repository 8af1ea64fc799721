"""Images moved by similarities.

Coordinates are those of `cram_jax.geometry.coordinates`: isotropic, so that a turned
image is turned and not sheared, whatever its sides.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.checks import check_number
from cram_jax.geometry.batched import align
from cram_jax.geometry.coordinates import map_extents, pixel_centers
from cram_jax.geometry.similarity import Similarity, transform_coordinates
from cram_jax.numerics import precise, wide_dtype

__all__ = ["inside_mask", "warp_image", "warp_labels"]

# Row and column of a pixel, and the weight with which it enters: all `[H, W]`.
Neighbour = tuple[jax.Array, jax.Array, jax.Array]


def warp_image(
    similarity: Similarity,
    image: jax.typing.ArrayLike,
    *,
    fill: float | np.number = 0.0,
) -> jax.Array:
    """Moves the content of images, by bilinear interpolation.

    Every pixel of the result looks up, through the inverse, where it came from.
    Outside of the image there lie pixels of value `fill`, with which the outermost
    ones blend. Shrinking does not smooth first: below a scale of about 1/2 details
    alias. Masks `[..., H, W]` are warped as images with one channel, or as the
    channels of one image.

    Args:
      similarity: similarities `[...]`.
      image: `[..., H, W, C]`, floating point; batch axes broadcast with `[...]`.
      fill: the value of what came from outside.

    Returns:
      `[..., H, W, C]` in the dtype of the image.

    Raises:
      ValueError: if the image has fewer than three axes, or is not floating point, and
        if batch axes do not fit together.
    """
    images = jnp.asarray(image)
    _check_image(images)
    check_number("fill", fill, np.isfinite, "be a finite number")
    dtype = wide_dtype(*jax.tree.leaves(similarity), images)
    similarity = jax.tree.map(lambda field: jnp.asarray(field, dtype), similarity)
    outside = jnp.asarray(fill, dtype)

    def warp_one(image: jax.Array, *fields: jax.Array) -> jax.Array:
        neighbours = _neighbours(Similarity(*fields), *image.shape[:2])
        # Each gather serves all channels; stacked into one they would not fuse
        # (measured on CPU: four times as slow).
        moved = outside * (1 - _total_weight(neighbours))[..., None]
        for row, column, weight in neighbours:
            moved += weight[..., None] * image[row, column].astype(dtype)
        return moved.astype(image.dtype)

    similarity, images = align(similarity=(similarity, 0), image=(images, 3))
    fields = _spread_like(images[..., 0, 0, 0], similarity)
    signature = "(h,w,c),(),(),(),(),()->(h,w,c)"
    return jnp.vectorize(warp_one, signature=signature)(images, *fields)


def _spread_like(values: jax.Array, similarity: Similarity) -> list[jax.Array]:
    """The fields of similarities, spread over a mesh as the values `[...]` are."""
    fields = jax.tree.leaves(similarity)
    return [field + jnp.zeros_like(values, field.dtype) for field in fields]


def _check_image(image: jax.Array) -> None:
    if image.ndim < 3:
        raise ValueError(
            "An image to warp has the axes [..., H, W, C], got shape "
            f"{image.shape}; add a channel axis to a mask."
        )
    if not jnp.issubdtype(image.dtype, jnp.floating):
        raise ValueError(
            f"An image to warp must be floating point, got {image.dtype}; scale it "
            "first, for example image / 255."
        )


def inside_mask(similarity: Similarity, height: int, width: int) -> jax.Array:
    """How much of each pixel of a warped image came from inside the image.

    Args:
      similarity: similarities `[...]`.
      height: rows of the image.
      width: columns of the image.

    Returns:
      `[..., height, width]` in [0, 1]: the weight that is not the fill's in
      `warp_image`, 1 well inside and 0 outside.
    """

    def one(*fields: jax.Array) -> jax.Array:
        return _total_weight(_neighbours(Similarity(*fields), height, width))

    fields = jax.tree.leaves(precise(similarity))
    return jnp.vectorize(one, signature="(),(),(),(),()->(h,w)")(*fields)


def warp_labels(
    similarity: Similarity, labels: jax.typing.ArrayLike, *, fill: int
) -> jax.Array:
    """Moves the content of label maps: each pixel takes the one that it came from.

    Numbers of classes cannot be mixed, so this is `warp_image` by the nearest pixel.

    Args:
      similarity: similarities `[...]`.
      labels: integers `[..., H, W]`; batch axes broadcast with `[...]`.
      fill: the value of pixels whose centre came from outside.

    Returns:
      `[..., H, W]` in the dtype of the labels.

    Raises:
      ValueError: if the labels have fewer than two axes, or are no integers, and if
        batch axes do not fit together.
    """
    maps = jnp.asarray(labels)
    if maps.ndim < 2 or not jnp.issubdtype(maps.dtype, jnp.integer):
        raise ValueError(
            "Labels to warp are integers [..., H, W], got"
            f" {maps.dtype} of shape {maps.shape}; warp_image takes images."
        )

    def warp_one(labels: jax.Array, *fields: jax.Array) -> jax.Array:
        (row, rows), (column, columns) = _positions(Similarity(*fields), *labels.shape)
        row, column = (
            jnp.floor(each + 0.5).astype(jnp.int32) for each in (row, column)
        )
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        found = labels[jnp.clip(row, 0, rows - 1), jnp.clip(column, 0, columns - 1)]
        return jnp.where(inside, found, jnp.asarray(fill, labels.dtype))

    similarity, maps = align(similarity=(precise(similarity), 0), labels=(maps, 2))
    fields = _spread_like(maps[..., 0, 0], similarity)
    signature = "(h,w),(),(),(),(),()->(h,w)"
    return jnp.vectorize(warp_one, signature=signature)(maps, *fields)


def _positions(
    similarity: Similarity, height: int, width: int
) -> tuple[tuple[jax.Array, int], tuple[jax.Array, int]]:
    """Row and column that each pixel came from, `[H, W]`, and how many there are."""
    x, y = pixel_centers(height, width, dtype=similarity.angle.dtype)
    from_x, from_y = transform_coordinates(similarity.inverse(), x[None], y[:, None])
    extent_x, extent_y = map_extents(height, width)

    def pixels(position: jax.Array, extent: float, count: int) -> jax.Array:
        # The inverse of pixel_centers. Far outside is as good as just outside, and
        # the clip keeps the conversion to integers defined.
        position = (position / extent + 1) * (count / 2) - 0.5
        return jnp.clip(position, -1, count)

    row, column = pixels(from_y, extent_y, height), pixels(from_x, extent_x, width)
    return (row, height), (column, width)


def _neighbours(similarity: Similarity, height: int, width: int) -> list[Neighbour]:
    """The four pixels each pixel is mixed from: row, column, weight, all `[H, W]`.

    The weight of a neighbour outside of the image is 0, its index is any legal one.
    """

    def along_axis(position: jax.Array, count: int):
        first = jnp.floor(position)
        fraction = position - jax.lax.stop_gradient(first)
        first = first.astype(jnp.int32)
        for index, weight in ((first, 1 - fraction), (first + 1, fraction)):
            known = (index >= 0) & (index < count)
            yield jnp.clip(index, 0, count - 1), jnp.where(known, weight, 0.0)

    row_and_rows, column_and_columns = _positions(similarity, height, width)
    columns = list(along_axis(*column_and_columns))
    rows = along_axis(*row_and_rows)
    return [
        (row, column, weight_y * weight_x)
        for row, weight_y in rows
        for column, weight_x in columns
    ]


def _total_weight(neighbours: list[Neighbour]) -> jax.Array:
    return sum((weight for _, _, weight in neighbours[1:]), start=neighbours[0][2])
