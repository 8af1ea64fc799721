"""The four logistic edges of a mask, and their derivatives written down by hand."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cram_jax.geometry.batched import with_rank
from cram_jax.geometry.rectangle import Rectangle

__all__ = ["edge_terms", "product_of_edges"]


def edge_terms(
    rectangle: Rectangle, y: jax.Array, sharpness: jax.typing.ArrayLike
) -> tuple[jax.Array, jax.Array]:
    """Terms `[..., 4, height]` of rows and slopes `[..., 4]` of columns of each edge.

    An edge's argument, s (w + u), s (w - u), s (h + v) or s (h - v), is at any angle a
    number for the row plus a slope times x.
    """
    s = jnp.asarray(sharpness, y.dtype)
    cos, sin = s * jnp.cos(rectangle.angle), s * jnp.sin(rectangle.angle)
    # u and v are 0 at the centre, so this is what they subtract from each pixel's.
    center_u = cos * rectangle.center_x + sin * rectangle.center_y
    center_v = cos * rectangle.center_y - sin * rectangle.center_x
    half_width, half_height = s * rectangle.half_width, s * rectangle.half_height

    def edges(*numbers: jax.Array) -> jax.Array:
        return jnp.stack(jnp.broadcast_arrays(*numbers), axis=-1)

    # All that depends on the rectangle is three numbers per edge: the gradient's sums
    # over pixels are then three small ones, whatever the five parameters do with them.
    constants = edges(
        half_width - center_u,
        half_width + center_u,
        half_height - center_v,
        half_height + center_v,
    )
    per_row = edges(sin, -sin, cos, -cos)[..., None]
    rows = constants[..., None] + per_row * with_rank(y, per_row.ndim)
    return rows, edges(cos, -cos, -sin, sin)


@jax.custom_jvp
def product_of_edges(rows: jax.Array, slopes: jax.Array, x: jax.Array) -> jax.Array:
    """Product over edges k of E(rows[k, i] + slopes[k] x[j]): `[..., H, W]`."""
    x = with_rank(x, rows.ndim)
    product = jnp.ones((), rows.dtype)
    for k in range(4):
        argument = rows[..., k, :, None] + slopes[..., k, None, None] * x
        product = product * (1 + jnp.exp(-argument))
    # One division at the end: XLA does not repeat a division for every channel, as it
    # does the product of four quotients.
    return 1 / product


@product_of_edges.defjvp
def _product_of_edges_jvp(primals, tangents):
    rows, slopes, x = primals
    mask = product_of_edges(rows, slopes, x)
    x = with_rank(x, rows.ndim + 1)
    arguments = rows[..., None] + slopes[..., None, None] * x
    outside = jax.nn.sigmoid(-arguments)
    # d log E(z) = (1 - E(z)) dz. Transposed, this is one field per edge and two sums of
    # it along each row, in one go; x, the pixel centres, is a constant.
    row_slopes = jnp.broadcast_to(tangents[1][..., None], rows.shape)
    change = tangents[0][..., None] + row_slopes[..., None] * x
    return mask, jnp.sum(mask[..., None, :, :] * outside * change, axis=-3)
