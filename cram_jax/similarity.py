"""Similarities of the plane: mirror, turn, scale, shift.

A similarity maps a point p to `scale * R(angle) * diag(flip, 1) * p + shift`, with
flip +1 or -1 (-1 mirrors left and right, before anything else), R(angle) the turn
by a positive angle (clockwise on screen), and p and the shift in the isotropic
coordinates of `cram_jax.coordinates`. In those a turn is a turn also on a map that is
not square. Similarities form a group, and map rectangles to rectangles exactly.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from cram_jax.coordinates import map_extents, pixel_centers
from cram_jax.rectangle import Rectangle

__all__ = [
    "Similarity",
    "inside_mask",
    "sample_similarity",
    "transform_points",
    "transform_rectangle",
    "warp_image",
]


@jax.tree_util.register_pytree_with_keys_class
@dataclasses.dataclass(frozen=True, init=False)
class Similarity:
    """A batch of similarities: five arrays of one shape `[...]`, float32 or better.

    The constructor broadcasts its arguments, numbers or arrays, to that shape.

    Attributes:
      angle: radians, positive from +x towards +y (clockwise on screen).
      scale: positive factor of all lengths.
      shift_x: to the right; 2 is the longer side of the map.
      shift_y: downwards, in the same unit.
      flip: -1 where x is mirrored first, else +1.
    """

    angle: jax.Array
    scale: jax.Array
    shift_x: jax.Array
    shift_y: jax.Array
    flip: jax.Array

    def __init__(
        self,
        angle: jax.typing.ArrayLike,
        scale: jax.typing.ArrayLike = 1.0,
        shift_x: jax.typing.ArrayLike = 0.0,
        shift_y: jax.typing.ArrayLike = 0.0,
        flip: jax.typing.ArrayLike = 1.0,
    ):
        values = (angle, scale, shift_x, shift_y, flip)
        dtype = jnp.result_type(*values, jnp.float32)
        values = jnp.broadcast_arrays(*(jnp.asarray(v, dtype) for v in values))
        for field, value in zip(dataclasses.fields(self), values, strict=True):
            object.__setattr__(self, field.name, value)

    def tree_flatten_with_keys(self):
        """For jax: the five fields, by name."""
        names = [field.name for field in dataclasses.fields(self)]
        key = jax.tree_util.GetAttrKey
        return [(key(name), getattr(self, name)) for name in names], None

    @classmethod
    def tree_unflatten(cls, _, children) -> Similarity:
        """For jax: takes any leaves as they are, not only arrays of one shape."""
        similarity = object.__new__(cls)
        for field, value in zip(dataclasses.fields(cls), children, strict=True):
            object.__setattr__(similarity, field.name, value)
        return similarity

    @classmethod
    def identity(cls, shape: tuple[int, ...] = ()) -> Similarity:
        """The similarity that moves nothing, `[*shape]`."""
        return cls(jnp.zeros(shape))

    def compose(self, other: Similarity) -> Similarity:
        """First `other`, then `self`: the order of a product of matrices."""
        shift_x, shift_y = _transform(self, other.shift_x, other.shift_y)
        return Similarity(
            angle=self.angle + self.flip * other.angle,
            scale=self.scale * other.scale,
            shift_x=shift_x,
            shift_y=shift_y,
            flip=self.flip * other.flip,
        )

    def inverse(self) -> Similarity:
        """The similarity that undoes this one."""
        linear = Similarity(-self.flip * self.angle, 1 / self.scale, flip=self.flip)
        shift_x, shift_y = _transform(linear, -self.shift_x, -self.shift_y)
        return dataclasses.replace(linear, shift_x=shift_x, shift_y=shift_y)


def _transform(
    similarity: Similarity, x: jax.Array, y: jax.Array
) -> tuple[jax.Array, jax.Array]:
    cos = similarity.scale * jnp.cos(similarity.angle)
    sin = similarity.scale * jnp.sin(similarity.angle)
    x = similarity.flip * x
    return (
        cos * x - sin * y + similarity.shift_x,
        sin * x + cos * y + similarity.shift_y,
    )


def sample_similarity(
    key: jax.Array,
    shape: tuple[int, ...] = (),
    *,
    max_angle: float,
    max_scale: float,
    max_shift: float,
    flip: bool = False,
) -> Similarity:
    """Draws independent random similarities.

    Args:
      key: a PRNG key.
      shape: of the batch.
      max_angle: angles are uniform in [-max_angle, max_angle], radians.
      max_scale: at least 1; the logarithm of the scale is uniform between those of
        1 / max_scale and max_scale.
      max_shift: each coordinate of the shift is uniform in [-max_shift, max_shift];
        0.5 is a quarter of the longer side.
      flip: mirror every second one, at random.

    Returns:
      Similarities `[*shape]`, float32.

    Raises:
      ValueError: if max_scale < 1, or max_angle or max_shift is negative.
    """
    if not (max_scale >= 1 and max_angle >= 0 and max_shift >= 0):
        raise ValueError(
            "Ranges need max_scale >= 1, max_angle >= 0 and max_shift >= 0, got "
            f"max_scale={max_scale}, max_angle={max_angle}, max_shift={max_shift}; "
            "max_scale=1.25 draws scales from 0.8 to 1.25."
        )
    keys = jax.random.split(key, 5)
    limits = (max_angle, math.log(max_scale), max_shift, max_shift)
    angle, log_scale, shift_x, shift_y = (
        limit * jax.random.uniform(k, shape, jnp.float32, -1, 1)
        for k, limit in zip(keys[:4], limits, strict=True)
    )
    mirrored = jax.random.bernoulli(keys[4], 0.5 if flip else 0.0, shape)
    sign = jnp.where(mirrored, -1.0, 1.0)
    return Similarity(angle, jnp.exp(log_scale), shift_x, shift_y, sign)


def transform_points(similarity: Similarity, points: jax.typing.ArrayLike) -> jax.Array:
    """Moves points.

    Args:
      similarity: similarities `[...]`.
      points: `[..., 2]` as (x, y); the leading axes broadcast with `[...]`.

    Returns:
      `[..., 2]`.

    Raises:
      ValueError: if the last axis of `points` does not have length 2.
    """
    points = jnp.asarray(points)
    if points.ndim == 0 or points.shape[-1] != 2:
        raise ValueError(
            f"Points have (x, y) on their last axis, got shape {points.shape}."
        )
    return jnp.stack(_transform(similarity, points[..., 0], points[..., 1]), axis=-1)


def transform_rectangle(similarity: Similarity, rectangle: Rectangle) -> Rectangle:
    """Moves rectangles, in closed form: the image of a rectangle is a rectangle.

    A mirrored rectangle has the angle pi - a, which is the region of -a.

    Args:
      similarity: similarities `[...]`.
      rectangle: rectangles that broadcast with them.

    Returns:
      Rectangles `[...]`.
    """
    center_x, center_y = _transform(similarity, rectangle.center_x, rectangle.center_y)
    return Rectangle(
        center_x=center_x,
        center_y=center_y,
        half_width=similarity.scale * rectangle.half_width,
        half_height=similarity.scale * rectangle.half_height,
        angle=similarity.angle + similarity.flip * rectangle.angle,
    )


def warp_image(
    similarity: Similarity, image: jax.typing.ArrayLike, *, fill: float = 0.0
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
      ValueError: if the image has fewer than three axes, or is not floating point.
    """
    image = jnp.asarray(image)
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

    def warp_one(image: jax.Array, *fields: jax.Array) -> jax.Array:
        height, width, channels = image.shape
        index, weight = _neighbours(Similarity(*fields), height, width)
        # One gather for the four neighbours and all channels of every pixel.
        values = image.reshape(height * width, channels)[index]
        outside = 1 - jnp.sum(weight, axis=0)
        moved = jnp.einsum("khw,khwc->hwc", weight, values.astype(weight.dtype))
        return (moved + fill * outside[..., None]).astype(image.dtype)

    signature = "(h,w,c),(),(),(),(),()->(h,w,c)"
    fields = jax.tree.leaves(similarity)
    return jnp.vectorize(warp_one, signature=signature)(image, *fields)


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
        return jnp.sum(_neighbours(Similarity(*fields), height, width)[1], axis=0)

    fields = jax.tree.leaves(similarity)
    return jnp.vectorize(one, signature="(),(),(),(),()->(h,w)")(*fields)


def _neighbours(
    similarity: Similarity, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Flat indices and weights `[4, H, W]` of the pixels each pixel is mixed from.

    The weight of a neighbour outside of the image is 0, its index is any legal one.
    """
    x, y = pixel_centers(height, width, dtype=similarity.angle.dtype)
    from_x, from_y = _transform(similarity.inverse(), x, y[:, None])
    extent_x, extent_y = map_extents(height, width)

    def along_axis(position: jax.Array, extent: float, count: int):
        # The inverse of pixel_centers. Far outside is as good as just outside, and
        # the clip keeps the conversion to integers defined.
        position = (position / extent + 1) * (count / 2) - 0.5
        position = jnp.clip(position, -1, count)
        first = jnp.floor(position)
        fraction = position - jax.lax.stop_gradient(first)
        index = first.astype(jnp.int32) + jnp.array([0, 1])[:, None, None]
        weight = jnp.stack([1 - fraction, fraction])
        weight = jnp.where((index >= 0) & (index < count), weight, 0.0)
        return jnp.clip(index, 0, count - 1), weight

    column, weight_x = along_axis(from_x, extent_x, width)
    row, weight_y = along_axis(from_y, extent_y, height)
    index = row[:, None] * width + column[None]
    weight = weight_y[:, None] * weight_x[None]
    return index.reshape(4, height, width), weight.reshape(4, height, width)
