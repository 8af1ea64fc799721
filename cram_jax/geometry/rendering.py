"""From a rectangle to a mask, and from a mask to gated features.

The soft mask is a product of four logistic edges. With (u, v) a pixel centre in the
rectangle's own frame, w and h its half sizes, E the logistic function and s the
sharpness::

    mask = E(s (w + u)) E(s (w - u)) E(s (h + v)) E(s (h - v))

(ours: the paper's text leaves its edge function open to us). It tends to the
indicator of the rectangle as s grows; an edge is about 1 / s wide, in units of half
the longer side of the map. The gradient reaches the rectangle only through its edges.

Derivatives are written down by hand (`jax.custom_jvp`, of which JAX makes the reverse
mode): the mask is evaluated once per position, never per channel, and its gradient is
one field per edge, summed along rows and columns. results/cost.md has what it costs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.checks import check_number
from cram_jax.geometry.batched import align, with_rank
from cram_jax.geometry.coordinates import pixel_centers
from cram_jax.geometry.edges import edge_terms, product_of_edges
from cram_jax.geometry.rectangle import MIN_HALF_SIZE, Rectangle
from cram_jax.numerics import at_least_float32, precise, read_apart

__all__ = [
    "apply_mask",
    "gate",
    "relative_sharpness",
    "render_hard_mask",
    "render_mask",
]

FILLS = ("zero", "mean")


def check_sharpness(sharpness: jax.typing.ArrayLike) -> None:
    """Raises ValueError for a sharpness known now that is not positive."""
    check_number(
        "The sharpness",
        sharpness,
        lambda value: value > 0,
        "be positive",
        "10 gives an edge a tenth of half the map wide",
    )


def check_floor(floor: jax.typing.ArrayLike) -> None:
    """Raises ValueError unless 0 <= floor < 1."""
    check_number(
        "The floor",
        floor,
        lambda value: (value >= 0) & (value < 1),
        "be at least 0 and less than 1",
        "0 lets the mask shut completely",
    )


def check_fill(fill: str) -> None:
    """Raises ValueError for an unknown filling."""
    if fill not in FILLS:
        raise ValueError(
            f"Unknown fill {fill!r}; what is masked becomes 'zero' or the 'mean' "
            "feature of the map."
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
    x, y = pixel_centers(height, width, dtype=rectangle.center_x.dtype)
    rank = rectangle.center_x.ndim
    x = with_rank(x, rank + 1) - rectangle.center_x[..., None]
    y = with_rank(y, rank + 1) - rectangle.center_y[..., None]
    cos = jnp.cos(rectangle.angle)[..., None]
    sin = jnp.sin(rectangle.angle)[..., None]
    # Products of a row and a column first: H + W multiplications, not 2 H W.
    along = (cos * x)[..., None, :] + (sin * y)[..., :, None]
    across = (cos * y)[..., :, None] - (sin * x)[..., None, :]
    return along, across


def _with_sharpness(
    rectangle: Rectangle, sharpness: jax.typing.ArrayLike
) -> tuple[Rectangle, jax.Array]:
    """Both in the rectangle's precision, with as many batch axes."""
    rectangle = precise(rectangle)
    sharpness = jnp.asarray(sharpness, rectangle.center_x.dtype)
    rectangle, sharpness = align(rectangle=(rectangle, 0), sharpness=(sharpness, 0))
    return rectangle, sharpness


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
      `[..., height, width]`, in [0, 1], of the rectangle's dtype, at least float32.

    Raises:
      ValueError: if a side is less than 1, a sharpness known now is not positive, or
        batch axes do not fit together.
    """
    check_sharpness(sharpness)
    rectangle, sharpness = _with_sharpness(rectangle, sharpness)
    x, y = pixel_centers(height, width, dtype=rectangle.center_x.dtype)
    return product_of_edges(*edge_terms(rectangle, y, sharpness), x)


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
      ValueError: if a sharpness known now is not positive, or batch axes do not fit
        together.
    """
    check_sharpness(sharpness)
    rectangle, sharpness = _with_sharpness(rectangle, sharpness)
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
    rectangle = precise(rectangle)
    along, across = _own_frame(rectangle, height, width)
    inside_width = jnp.abs(along) <= rectangle.half_width[..., None, None]
    inside_height = jnp.abs(across) <= rectangle.half_height[..., None, None]
    return inside_width & inside_height


@jax.custom_jvp
def _multiply(features: jax.Array, mask: jax.Array) -> jax.Array:
    return features * mask.astype(features.dtype)[..., None]


@_multiply.defjvp
def _multiply_jvp(primals, tangents):
    features, mask = primals
    change, mask_change = tangents
    gated = _multiply(features, mask)
    # In the mask's dtype, so that its transpose, the sum over channels that makes the
    # mask's cotangent, is accumulated in it.
    apart, _ = read_apart((features, mask))
    turned = apart.astype(mask.dtype) * mask_change[..., None]
    turned = read_apart(turned.astype(features.dtype))
    return gated, _multiply(change, mask) + turned


def apply_mask(
    features: jax.Array, mask: jax.Array, *, fill: str = "zero"
) -> jax.Array:
    """Multiplies features by a mask, with a gradient that reads them once.

    The mask's cotangent is one reduction over the channels, accumulated in the
    mask's dtype. Forward and reverse mode, derivatives of any order, vmap, remat and
    a batch sharded over devices all work, as they do for `render_mask`.

    Args:
      features: `[..., H, W, C]`, floating point.
      mask: `[..., H, W]`; batch axes broadcast.
      fill: what takes the place of what is masked: "zero", or "mean", the mean
        feature of each map, `mask * features + (1 - mask) * mean` (ours). A network
        trained without masks has seen maps like the latter. The mean is that of the
        whole map, so it tells something of what is masked.

    Returns:
      `[..., H, W, C]` in the dtype of the features.

    Raises:
      ValueError: for an unknown fill, if the maps differ in size, or if batch axes do
        not fit together.
    """
    check_fill(fill)
    if mask.ndim < 2 or features.shape[-3:-1] != mask.shape[-2:]:
        raise ValueError(
            "A mask [..., H, W] has the sides of the features [..., H, W, C], got"
            f" {mask.shape} for {features.shape}."
        )
    features, mask = align(features=(features, 3), mask=(mask, 2))
    if fill == "zero":
        return _multiply(features, mask)
    mean = jnp.mean(at_least_float32(read_apart(features)), (-3, -2), keepdims=True)
    filling = jnp.broadcast_to(mean.astype(features.dtype), features.shape)
    return _multiply(features, mask) + _multiply(filling, 1 - mask)


def raise_floor(mask: jax.Array, floor: jax.typing.ArrayLike) -> jax.Array:
    """The mask, moved from [0, 1] into [floor, 1]."""
    # A Python number takes the mask's dtype, a NumPy one would not.
    floor = floor.astype(mask.dtype) if isinstance(floor, jax.Array) else float(floor)
    return floor + (1 - floor) * mask


def gate(
    features: jax.Array,
    rectangle: Rectangle,
    *,
    sharpness: jax.typing.ArrayLike,
    floor: float = 0.0,
    fill: str = "zero",
) -> jax.Array:
    """`features * (floor + (1 - floor) * mask)`.

    Args:
      features: `[..., H, W, C]`, floating point.
      rectangle: rectangles `[...]`.
      sharpness: see `render_mask`.
      floor: what the gate lets through far outside, in [0, 1).
      fill: see `apply_mask`.

    Returns:
      `[..., H, W, C]` in the dtype of the features.

    Raises:
      ValueError: on a wrong rank, integer features, a sharpness that is not
        positive, a floor outside [0, 1), an unknown fill, or batch axes that do not
        fit together.
    """
    check_features(features)
    check_floor(floor)
    mask = render_mask(rectangle, *features.shape[-3:-1], sharpness=sharpness)
    return apply_mask(features, raise_floor(mask, floor), fill=fill)
