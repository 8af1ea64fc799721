"""Values per image against values per rectangle, whose first axes are the images'.

Arrays that broadcast are lined up from the right, so that `[B]` values of images meet
the *second* axis of rectangles `[B, K]`: an error where B and K differ, and a wrong sum
without a word where they are equal. Here they are lined up from the left.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import Similarity


def aligned(array: jax.Array, shape: tuple[int, ...], name: str) -> jax.Array:
    """Values of images as values that broadcast with rectangles.

    Args:
      array: `[B]` where `shape` is `[B, ...]`; a scalar; or of the rank of `shape`.
      shape: the rectangles' shape.
      name: what the error calls the values.

    Returns:
      The array with axes of size 1 behind, up to the rank of `shape`.

    Raises:
      ValueError: if the array fits neither the images nor the rectangles.
    """
    if array.ndim == len(shape):
        sizes = zip(array.shape, shape, strict=True)
        fits = all(own in (1, other) for own, other in sizes)
    else:
        fits = array.shape == shape[: array.ndim]
    if not fits:
        raise ValueError(
            f"The {name} {array.shape} do not fit rectangles {shape}; give one per"
            " image, or one per rectangle."
        )
    return array.reshape(array.shape + (1,) * (len(shape) - array.ndim))


def moves_of_images(similarities: Similarity, shape: tuple[int, ...]) -> Similarity:
    """Similarities of images, to be used with rectangles (or masks) of `shape`.

    A single rectangle, of shape `()`, goes with any.

    Raises:
      ValueError: if they fit neither the images nor the rectangles.
    """
    if not shape:
        return similarities
    return jax.tree.map(
        lambda leaf: aligned(jnp.asarray(leaf), shape, "similarities"), similarities
    )


def common_shape(original: Rectangle, moved: Rectangle) -> tuple[int, ...]:
    """The shape of rectangles that are compared one by one.

    Raises:
      ValueError: if the shapes differ.
    """
    shapes = jnp.shape(original.center_x), jnp.shape(moved.center_x)
    if shapes[0] != shapes[1]:
        raise ValueError(
            "Each rectangle is compared with one of the moved image; got rectangles"
            f" {shapes[0]} and moved rectangles {shapes[1]}."
        )
    return shapes[0]
