"""When the image moves, its rectangle must move with it (ours).

Two rectangles are compared: the one found in an image, moved by the similarity that
moved the image, and the one found in the moved image. `equivariance_loss` trains a
network to make them equal; `cram_jax.losses.equivariance_scores` measures how equal
they are.

Several rectangles of one image are compared by their number, the k-th with the k-th: a
predictor has a heat map for each. (Matched by a Hungarian algorithm instead, two of
them ended no better in scratch runs on digits, two seeds.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from cram_jax.geometry.overlap import visible_fraction
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import Similarity, transform_rectangle
from cram_jax.losses.alignment import aligned, common_shape, moves_of_images
from cram_jax.losses.relative_distances import METRICS, pair_distance
from cram_jax.numerics import at_least_float32

__all__ = [
    "METRICS",
    "equivariance_distance",
    "equivariance_loss",
    "equivariance_terms",
    "mean_of_terms",
]


def equivariance_distance(
    rectangle: Rectangle,
    moved_rectangle: Rectangle,
    similarity: Similarity,
    *,
    metric: str = "gaussian",
    relative: bool = True,
) -> jax.Array:
    """The squared distance of the moved rectangle to the rectangle of the moved image.

    Args:
      rectangle: found in the image, `[...]`.
      moved_rectangle: found in the moved image, `[...]`.
      similarity: what moved the image, `[...]`.
      metric: `"gaussian"`, `"parameters"` or `"corners"`: the square of
        `cram_jax.geometry.distances.rectangle_distance`; or `"mask"`: the squared
        difference of the two soft masks, summed, over the sum of their squares, which
        is at most 1.
      relative: measure in units of the rectangles' own size (see
        `cram_jax.losses.relative_distances`), else in units of the map. Angles
        and the values of masks have no unit.

    Returns:
      `[...]`, 0 where the rectangle moved exactly with the image.

    Raises:
      ValueError: on an unknown metric, or shapes that do not belong together.
    """
    moves = moves_of_images(similarity, common_shape(rectangle, moved_rectangle))
    expected = transform_rectangle(moves, rectangle)
    return pair_distance(expected, moved_rectangle, metric=metric, relative=relative)


def equivariance_loss(
    rectangles: Rectangle | Mapping[str, Rectangle],
    moved_rectangles: Rectangle | Mapping[str, Rectangle],
    similarities: Similarity,
    *,
    metric: str = "gaussian",
    relative: bool = True,
    stop_gradient: Literal["none", "original", "moved"] = "none",
    min_inside: float = 0.5,
    extent_x: float = 1.0,
    extent_y: float = 1.0,
    weights: jax.typing.ArrayLike | None = None,
) -> jax.Array:
    """The mean squared distance of moved rectangles to those of the moved images.

    Args:
      rectangles: found in the images, `[B]` or `[B, ...]`, where several belong to one
        image; or one such batch per layer, by name, as `attended_rectangles` gives.
      moved_rectangles: found in the moved images, in the same form.
      similarities: what moved each image, `[B]` (or the shape of the rectangles).
      metric: see `equivariance_distance`.
      relative: see `equivariance_distance`.
      stop_gradient: the side whose rectangles are fixed targets, if any.
      min_inside: pairs count only if at least this fraction of the moved rectangle
        lies inside the frame (or of the frame inside the rectangle, if that is the
        larger one): the network cannot find what it cannot see.
      extent_x: half the frame's width (see `map_extents`).
      extent_y: half its height.
      weights: like the similarities; 0 for padding, which may hold anything.

    Returns:
      A scalar: the weighted mean over the pairs that count, then over the layers; 0 if
      no pair counts.

    Raises:
      ValueError: for an unknown metric or side, and layers or shapes that do not fit.
    """
    sums, counts = equivariance_terms(
        rectangles,
        moved_rectangles,
        similarities,
        metric=metric,
        relative=relative,
        stop_gradient=stop_gradient,
        min_inside=min_inside,
        extent_x=extent_x,
        extent_y=extent_y,
        weights=weights,
    )
    return mean_of_terms(sums, counts)


def equivariance_terms(
    rectangles: Rectangle | Mapping[str, Rectangle],
    moved_rectangles: Rectangle | Mapping[str, Rectangle],
    similarities: Similarity,
    *,
    metric: str = "gaussian",
    relative: bool = True,
    stop_gradient: Literal["none", "original", "moved"] = "none",
    min_inside: float = 0.5,
    extent_x: float = 1.0,
    extent_y: float = 1.0,
    weights: jax.typing.ArrayLike | None = None,
) -> tuple[jax.Array, jax.Array]:
    """What `equivariance_loss` is the quotient of, for batches that come in parts.

    How many pairs are in sight differs from part to part, so a mean of means is wrong.
    Add both results up over all parts and devices, then take `mean_of_terms`; for a
    gradient, divide the sums of each part by the weights of *all* parts. The arguments
    are those of `equivariance_loss`, and so are the errors.

    Returns:
      Two arrays `[layers]`, in the order of the layers: the weighted sum of distances
      over the pairs that count, and the sum of their weights, which has no gradient.
    """
    if stop_gradient not in ("none", "original", "moved"):
        raise ValueError(
            f"Unknown side {stop_gradient!r} for stop_gradient; choose 'none', "
            "'original' or 'moved'."
        )
    layers, moved_layers = _same_layers(rectangles, moved_rectangles)
    given = at_least_float32(jnp.asarray(1.0 if weights is None else weights))
    terms = []
    for name in layers:
        original, moved = layers[name], moved_layers[name]
        shape = common_shape(original, moved)
        moves = moves_of_images(similarities, shape)
        expected = transform_rectangle(moves, original)
        # A rectangle that is not a number counts, so that it shows in the loss.
        unseen = visible_fraction(expected, extent_x, extent_y) < min_inside
        weight = jnp.where(unseen, 0.0, aligned(given, shape, "weights"))
        original = _held(original, stop_gradient == "original")
        moved = _held(moved, stop_gradient == "moved")
        terms.append(
            _layer_term(
                original, moved, moves, weight, metric=metric, relative=relative
            )
        )
    sums, counts = zip(*terms, strict=True)
    return jnp.stack(sums), jnp.stack(counts)


def _layer_term(
    original: Rectangle,
    moved: Rectangle,
    moves: Similarity,
    weight: jax.Array,
    *,
    metric: str,
    relative: bool,
) -> tuple[jax.Array, jax.Array]:
    """The weighted sum of one layer's distances, and the sum of their weights."""
    weight = jax.lax.stop_gradient(weight)
    distances = equivariance_distance(
        _counted(original, weight),
        _counted(moved, weight),
        moves,
        metric=metric,
        relative=relative,
    )
    distances = jnp.where(weight > 0, weight * distances, 0.0)
    return jnp.sum(distances), jnp.sum(weight)


def mean_of_terms(sums: jax.Array, weights: jax.Array) -> jax.Array:
    """The mean over layers of sums over weights, both `[layers]`; 0 for no weight."""
    some = weights > 0
    return jnp.mean(jnp.where(some, sums / jnp.where(some, weights, 1.0), 0.0))


def _held(rectangle: Rectangle, hold: bool) -> Rectangle:
    return jax.lax.stop_gradient(rectangle) if hold else rectangle


def _counted(rectangle: Rectangle, weight: jax.Array) -> Rectangle:
    """The rectangles that count, others in place of those that may hold anything."""
    return jax.tree.map(lambda leaf: jnp.where(weight > 0, leaf, 0.5), rectangle)


def _same_layers(
    rectangles: Rectangle | Mapping[str, Rectangle],
    moved_rectangles: Rectangle | Mapping[str, Rectangle],
) -> tuple[Mapping[str, Rectangle], Mapping[str, Rectangle]]:
    layers, moved_layers = _by_name(rectangles), _by_name(moved_rectangles)
    if layers.keys() != moved_layers.keys() or not layers:
        raise ValueError(
            "The loss compares the same layers, at least one, on both sides; got "
            f"{sorted(layers)} and {sorted(moved_layers)}."
        )
    return layers, moved_layers


def _by_name(
    rectangles: Rectangle | Mapping[str, Rectangle],
) -> Mapping[str, Rectangle]:
    return {"": rectangles} if isinstance(rectangles, Rectangle) else rectangles
