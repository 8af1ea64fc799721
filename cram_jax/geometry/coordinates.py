"""The conventions of the package, stated once; everything else links here.

**Axes.** Images and feature maps are channels-last: `[..., height, width, channels]`.
Masks are `[..., height, width]`.

**Coordinates** are (x, y): x to the right, y down. They are *isotropic*: the longer
side of a map spans [-1, 1] and the shorter one [-s/l, s/l], so that a right angle
stays a right angle in a map that is not square. For a map of height 2 and width 4::

    x:  -0.75  -0.25   0.25   0.75      (extent 1)
    y:  -0.25   0.25                    (extent 0.5)

**Pixel centres.** Pixel i of n along a side of extent e sits at
`((i + 0.5) / n * 2 - 1) * e`. This is *not* the corner-aligned convention: the first
and the last centre lie half a pixel inside the border. A map of one pixel is legal;
its centre is 0. Coordinates are never clamped; beyond the extents lies what the
image does not show.

**Angles** are radians. A positive angle turns +x towards +y, which is *clockwise* on
screen because y points down: 90 degrees turn "right" into "down".

**Precision.** Geometry is float32 or better, whatever the dtype of the features;
results go back in the dtype of the features.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.checks import check_count

__all__ = ["map_extents", "pixel_centers"]


def map_extents(height: int, width: int) -> tuple[float, float]:
    """Half the side lengths of a map in isotropic coordinates.

    Args:
      height: number of rows, at least 1.
      width: number of columns, at least 1.

    Returns:
      `(extent_x, extent_y)`; the larger of the two is 1.

    Raises:
      ValueError: if a side is less than 1, or no whole number.
    """
    try:
        check_count("height", height)
        check_count("width", width)
    except ValueError as error:
        raise ValueError(
            f"A map needs at least one pixel per side, got height={height} and "
            f"width={width}; pass the two middle axes of [..., H, W, C]."
        ) from error
    longer = max(height, width)
    return width / longer, height / longer


def pixel_centers(
    height: int, width: int, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> tuple[jax.Array, jax.Array]:
    """The coordinates of the pixel centres of a map.

    Args:
      height: number of rows, at least 1.
      width: number of columns, at least 1.
      dtype: dtype of the result.

    Returns:
      `(x [width], y [height])`, see the module's docstring for the convention.

    Raises:
      ValueError: if a side is less than 1, or no whole number.
    """
    extent_x, extent_y = map_extents(height, width)

    def centers(count: int, extent: float) -> jax.Array:
        index = jnp.arange(count, dtype=dtype)
        return ((2 * index + 1) / count - 1) * extent

    return centers(width, extent_x), centers(height, extent_y)
