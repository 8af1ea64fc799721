"""From a rectangle to a mask, and from a mask to gated features.

The soft mask is a product of four logistic edges. With (u, v) a pixel centre in the
rectangle's own frame, w and h its half sizes, E the logistic function and s the
sharpness::

    mask = E(s (w + u)) E(s (w - u)) E(s (h + v)) E(s (h - v))

(ours: the paper's text leaves its edge function open to us). It tends to the
indicator of the rectangle as s grows; an edge is about 1 / s wide, in units of half
the longer side of the map. The gradient reaches the rectangle only through its edges.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.coordinates import pixel_centers
from cram_jax.rectangle import MIN_HALF_SIZE, Rectangle

__all__ = [
    "apply_mask",
    "gate",
    "relative_sharpness",
    "render_hard_mask",
    "render_mask",
]


def check_sharpness(sharpness: jax.typing.ArrayLike) -> None:
    """Raises ValueError for a sharpness known now that is not positive."""
    if isinstance(sharpness, (int, float)) and not sharpness > 0:
        raise ValueError(
            f"The sharpness must be positive, got {sharpness}; 10 gives an edge a "
            "tenth of half the map wide."
        )


def check_floor(floor: float) -> None:
    """Raises ValueError unless 0 <= floor < 1."""
    if not 0 <= floor < 1:
        raise ValueError(
            f"The floor must be at least 0 and less than 1, got {floor}; 0 lets the "
            "mask shut completely."
        )


def check_features(features: jax.Array, minimum_rank: int = 3) -> None:
    """Raises ValueError unless `features` are floating [..., H, W, C], not empty."""
    if features.ndim < minimum_rank or 0 in features.shape[-3:]:
        raise ValueError(
            "Features need at least three axes, channels last, [..., H, W, C], none "
            f"of length 0; got shape {features.shape}."
        )
    if not jnp.issubdtype(features.dtype, jnp.floating):
        raise ValueError(
            f"Features must be floating point, got {features.dtype}; scale an integer "
            "image first, for example image / 255."
        )


def _own_frame(
    rectangle: Rectangle, height: int, width: int
) -> tuple[jax.Array, jax.Array]:
    """Pixel centres `[..., height, width]` in the rectangles' own frames."""
    x, y = pixel_centers(height, width)
    x = x - rectangle.center_x[..., None]
    y = y - rectangle.center_y[..., None]
    cos = jnp.cos(rectangle.angle)[..., None]
    sin = jnp.sin(rectangle.angle)[..., None]
    # Products of a row and a column first: H + W multiplications, not 2 H W.
    along = (cos * x)[..., None, :] + (sin * y)[..., :, None]
    across = (cos * y)[..., :, None] - (sin * x)[..., None, :]
    return along, across


def render_mask(
    rectangle: Rectangle,
    height: int,
    width: int,
    *,
    sharpness: jax.typing.ArrayLike,
) -> jax.Array:
    """The soft mask of each rectangle (see the module's docstring).

    Args:
      rectangle: rectangles `[...]`.
      height: rows of the mask.
      width: columns of the mask.
      sharpness: positive; a number, or an array that broadcasts with `[...]`.

    Returns:
      `[..., height, width]`, in [0, 1], of the rectangle's dtype.

    Raises:
      ValueError: if a side is less than 1, or a static sharpness is not positive.
    """
    check_sharpness(sharpness)
    along, across = _own_frame(rectangle, height, width)
    s = jnp.asarray(sharpness, along.dtype)[..., None, None]
    half_width = rectangle.half_width[..., None, None]
    half_height = rectangle.half_height[..., None, None]
    edge = jax.nn.sigmoid
    inside_width = edge(s * (half_width + along)) * edge(s * (half_width - along))
    inside_height = edge(s * (half_height + across)) * edge(s * (half_height - across))
    return inside_width * inside_height


def relative_sharpness(
    rectangle: Rectangle, sharpness: jax.typing.ArrayLike
) -> jax.Array:
    """The sharpness that makes edges soft in proportion to the rectangle (ours).

    `sharpness / sqrt(half_width * half_height)`: an edge is 1 / sharpness of the mean
    half size wide. Edges of fixed width make a rectangle of no size a soft blob of
    that width, which training likes: with a sharpness of 5 every rectangle shrank to
    a point. Relative edges leave such a rectangle with no mask at all. They are wide
    while the rectangle is large, at the start, and scale with the image.

    Args:
      rectangle: rectangles `[...]`; a mean half size below 0.05 counts as 0.05.
      sharpness: positive; broadcasts with `[...]`.

    Returns:
      `[...]`, for `render_mask`.

    Raises:
      ValueError: if a static sharpness is not positive.
    """
    check_sharpness(sharpness)
    area = jnp.maximum(rectangle.half_width * rectangle.half_height, MIN_HALF_SIZE**2)
    return sharpness / jnp.sqrt(area)


def render_hard_mask(rectangle: Rectangle, height: int, width: int) -> jax.Array:
    """The indicator of each rectangle at the pixel centres, border included.

    Args:
      rectangle: rectangles `[...]`.
      height: rows of the mask.
      width: columns of the mask.

    Returns:
      bool `[..., height, width]`.

    Raises:
      ValueError: if a side is less than 1.
    """
    along, across = _own_frame(rectangle, height, width)
    inside_width = jnp.abs(along) <= rectangle.half_width[..., None, None]
    inside_height = jnp.abs(across) <= rectangle.half_height[..., None, None]
    return inside_width & inside_height


@jax.custom_vjp
def _multiply(features: jax.Array, mask: jax.Array) -> jax.Array:
    return features * mask.astype(features.dtype)[..., None]


def _multiply_forward(features, mask):
    return _multiply(features, mask), (features, mask)


def _multiply_backward(residuals, cotangent):
    features, mask = residuals
    # Fused into the reduction, the mask's 4 logistic functions would be evaluated
    # again for every channel; here each product is one pass over the features.
    narrow = mask.astype(features.dtype)[..., None]
    products = cotangent.astype(mask.dtype) * features.astype(mask.dtype)
    return cotangent * narrow, jnp.sum(products, axis=-1)


_multiply.defvjp(_multiply_forward, _multiply_backward)


def apply_mask(features: jax.Array, mask: jax.Array) -> jax.Array:
    """Multiplies features by a mask, with a gradient that reads them once.

    The mask's cotangent is one reduction over the channels, accumulated in the
    mask's dtype. Reverse mode only: `jax.jvp` through it raises.

    Args:
      features: `[..., H, W, C]`, floating point.
      mask: `[..., H, W]`, of the same leading axes.

    Returns:
      `[..., H, W, C]` in the dtype of the features.
    """
    return _multiply(features, mask)


def gate(
    features: jax.Array,
    rectangle: Rectangle,
    *,
    sharpness: jax.typing.ArrayLike,
    floor: float = 0.0,
) -> jax.Array:
    """`features * (floor + (1 - floor) * mask)`.

    Args:
      features: `[..., H, W, C]`, floating point.
      rectangle: rectangles `[...]`.
      sharpness: see `render_mask`.
      floor: what the gate lets through far outside, in [0, 1).

    Returns:
      `[..., H, W, C]` in the dtype of the features.

    Raises:
      ValueError: on a wrong rank, integer features, a sharpness that is not
        positive, or a floor outside [0, 1).
    """
    check_features(features)
    check_floor(floor)
    mask = render_mask(rectangle, *features.shape[-3:-1], sharpness=sharpness)
    return apply_mask(features, floor + (1 - floor) * mask)
