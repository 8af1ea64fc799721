"""The rectangle that a layer could have found at best: fitted to the object's mask.

No rotated rectangle has a larger IoU with the mask, up to the resolution of the search:
it starts from the rectangle with the mask's mean and covariance, from each half of it,
and from the mask's tight box, and changes one of its five numbers at a time, by steps
that halve where nothing is won. (Ours.)
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from cram_jax.geometry.coordinates import pixel_centers
from cram_jax.geometry.overlap import mask_iou
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask

# Longest side in pixels of the masks that the search compares.
_SIDE = 64
_ROUNDS = 40
_FIRST_STEP, _LEAST_HALF_SIZE = 0.1, 1e-3


def oracle_rectangle(masks: jax.Array) -> Rectangle:
    """The rotated rectangles `[B]` that overlap masks `[B, H, W]` best.

    Args:
      masks: bool. The rectangle of an empty one means nothing, but is finite.
    """
    height, width = masks.shape[1:]
    scale = min(1.0, _SIDE / max(height, width))
    size = max(1, round(height * scale)), max(1, round(width * scale))
    small = jax.image.resize(masks.astype(jnp.float32), (len(masks), *size), "linear")
    moments = moment_rectangle(small)
    starts = moments, _half(moments, -1), _half(moments, 1), _tight_box(small)
    searched = [_search(small, start.as_array()) for start in starts]
    values = jnp.stack([value for _, value in searched])
    numbers = jnp.stack([numbers for numbers, _ in searched])
    best = jnp.argmax(values, axis=0)
    return Rectangle.from_array(
        jnp.take_along_axis(numbers, best[None, :, None], axis=0)[0]
    )


def moment_rectangle(masks: jax.Array) -> Rectangle:
    """The rectangles `[B]` whose uniform density has the masks' mean and covariance.

    Args:
      masks: `[B, H, W]`, not negative. An empty one gives the whole picture's.
    """
    x, y = pixel_centers(*masks.shape[1:])
    total = jnp.sum(masks, axis=(1, 2))
    share = jnp.where(total[:, None, None] > 0, masks, 1.0)
    share /= jnp.sum(share, axis=(1, 2), keepdims=True)

    def mean(values):
        return jnp.sum(share * values, axis=(1, 2))

    center_x, center_y = mean(x), mean(y[:, None])
    right = x - center_x[:, None, None]
    down = y[:, None] - center_y[:, None, None]
    xx, xy, yy = mean(right**2), mean(right * down), mean(down**2)
    spread = jnp.hypot((xx - yy) / 2, xy)
    middle = (xx + yy) / 2
    return Rectangle(
        center_x=center_x,
        center_y=center_y,
        half_width=jnp.sqrt(3 * (middle + spread)),
        half_height=jnp.sqrt(3 * jnp.maximum(middle - spread, 0.0)),
        angle=jnp.arctan2(2 * xy, xx - yy) / 2,
    )


def _half(rectangle: Rectangle, side: int) -> Rectangle:
    """The half of a rectangle on one side of its shorter middle line."""
    offset = side * rectangle.half_width / 2
    return dataclasses.replace(
        rectangle,
        center_x=rectangle.center_x + offset * jnp.cos(rectangle.angle),
        center_y=rectangle.center_y + offset * jnp.sin(rectangle.angle),
        half_width=rectangle.half_width / 2,
    )


def _tight_box(masks: jax.Array) -> Rectangle:
    """The upright rectangles `[B]` round the pixels above one half."""
    x, y = pixel_centers(*masks.shape[1:])
    half = 1 / max(masks.shape[1:])

    def ends(values, lines):
        low = jnp.min(jnp.where(lines, values, 1.0), axis=1) - half
        high = jnp.max(jnp.where(lines, values, -1.0), axis=1) + half
        return (low + high) / 2, jnp.maximum(high - low, 0.0) / 2

    center_x, half_width = ends(x, jnp.any(masks > 0.5, axis=1))
    center_y, half_height = ends(y, jnp.any(masks > 0.5, axis=2))
    return Rectangle(center_x, center_y, half_width, half_height, center_x * 0)


def _search(masks: jax.Array, start: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rectangles `[B, 5]` climbed to from a start `[B, 5]`, and their IoU `[B]`."""
    moves = jnp.concatenate([jnp.zeros((1, 5)), jnp.eye(5), -jnp.eye(5)])

    def value(numbers: jax.Array) -> jax.Array:
        """IoU `[11, B]` of rectangles `[11, B, 5]`."""
        found = render_hard_mask(Rectangle.from_array(numbers), *masks.shape[1:])
        return mask_iou(found, masks[None])

    def climb(_, state):
        numbers, step, _ = state
        candidates = numbers + moves[:, None] * step[:, None]
        # Sizes stay positive; every legal rectangle has them so.
        sizes = jnp.maximum(candidates[..., 2:4], _LEAST_HALF_SIZE)
        candidates = candidates.at[..., 2:4].set(sizes)
        values = value(candidates)
        best = jnp.argmax(values, axis=0)
        chosen = jnp.take_along_axis(candidates, best[None, :, None], axis=0)[0]
        step = jnp.where(best == 0, step / 2, step)
        return chosen, step, jnp.max(values, axis=0)

    step = jnp.full(masks.shape[0], _FIRST_STEP)
    first = start, step, jnp.zeros(masks.shape[0])
    numbers, _, iou = jax.lax.fori_loop(0, _ROUNDS, climb, first)
    return numbers, iou
