"""From a heat map to the rectangle that has its mean and covariance (ours).

A heat map lives on a small grid of square cells of a larger map; `pool_to_grid` makes
the grid.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.checks import check_count, check_number
from cram_jax.geometry.batched import with_rank
from cram_jax.geometry.coordinates import pixel_centers
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32, precise, read_apart

__all__ = ["heat_map_moments", "pool_to_grid", "rectangle_from_moments"]


def pool_to_grid(values: jax.Array, max_grid: int) -> jax.Array:
    """Averages `[..., H, W, C]` over square cells so that at most `max_grid` remain.

    The cell side is the smallest that does it, the same in both directions, so the
    result keeps the aspect ratio; but a side up to twice as large is preferred if it
    divides the map. Where none does, cells at the right and bottom border are cut;
    they average what they have.

    Args:
      values: `[..., H, W, C]`.
      max_grid: largest number of cells along the longer side, at least 1.

    Returns:
      `[..., h, w, C]` with h, w <= max_grid, of the same dtype.

    Raises:
      ValueError: if `max_grid` is less than 1.
    """
    check_count("max_grid", max_grid)
    height, width = values.shape[-3:-1]
    least = -(-max(height, width) // max_grid)
    if least == 1:
        return values
    dividing = (c for c in range(least, 2 * least + 1) if height % c == width % c == 0)
    cell = next(dividing, least)
    rows, columns = -(-height // cell), -(-width // cell)
    # A reshape and one reduction: XLA's reduce_window is far slower on CPU. One axis is
    # split at a time: of a batch spread over a mesh JAX follows no more (XLA makes one
    # reshape of both).
    padding = [(0, 0)] * (values.ndim - 3)
    padding += [(0, rows * cell - height), (0, columns * cell - width), (0, 0)]
    cut = height % cell or width % cell
    whole = jnp.pad(values, padding) if cut else read_apart(values)
    *batch, channels = *values.shape[:-3], values.shape[-1]
    whole = whole.reshape(*batch, rows, cell, columns * cell, channels)
    whole = whole.reshape(*batch, rows, cell, columns, cell, channels)
    means = jnp.mean(whole, axis=(-4, -2))
    count_y, count_x = (
        np.minimum(cell, side - np.arange(0, side, cell)) for side in (height, width)
    )
    share = count_y[:, None] * count_x / cell**2
    if not cut:
        return means
    return means / with_rank(jnp.asarray(share[..., None], means.dtype), means.ndim)


def heat_map_moments(
    logits: jax.Array, height: int, width: int, *, background: float = 0.0
) -> tuple:
    """Mean and covariance of the softmax of a heat map over the cells of a map.

    A cell counts with the number of its pixels, and as a little uniform square, not
    a point. So a constant heat map has exactly the moments of the whole map,
    whatever the grid, and no heat map has less variance than a cell.

    Args:
      logits: `[..., h, w]`, the map of `height` x `width` pixels pooled by
        `pool_to_grid`.
      height: rows of the original map.
      width: columns of the original map.
      background: in [0, 1): this share of a flat map's density is subtracted from
        every cell, down to 0. Many cells that each weigh next to nothing, far from
        the peak, would otherwise draw the mean to the middle of the map and widen the
        covariance; a flat map stays flat.

    Returns:
      `(mean_x, mean_y, variance_x, variance_y, covariance)`, each `[...]`.

    Raises:
      ValueError: if `background` is not in [0, 1).
    """
    check_number(
        "background is a share of a flat map's density and",
        background,
        lambda value: (value >= 0) & (value < 1),
        "lie in [0, 1)",
    )
    logits = at_least_float32(logits)
    dtype, rank = logits.dtype, logits.ndim
    # Constants of the shape: traced, their many small operations would run every time.
    with jax.ensure_compile_time_eval():
        centers = pixel_centers(height, width, dtype=dtype)
        x, y = (np.asarray(axis) for axis in centers)
    cell = -(-max(height, width) // max(logits.shape[-2:]))
    pixel = 2 / max(height, width)
    columns, rows = _cells(x, cell, pixel), _cells(y, cell, pixel)
    counts = rows[1][:, None], columns[1][None]
    log_counts = (with_rank(jnp.asarray(np.log(count)), rank) for count in counts)
    logits = functools.reduce(jnp.add, log_counts, logits)
    weights = jax.nn.softmax(logits, axis=(-2, -1))
    if background:
        flat = counts[0] * counts[1] / (height * width)
        # The weights sum to 1 as the flat map does, so something always exceeds it.
        weights = jax.nn.relu(weights - with_rank(jnp.asarray(background * flat), rank))
        weights = weights / weights.sum((-2, -1), keepdims=True)
    return _density_moments(weights, columns, rows)


def _cells(centers: np.ndarray, cell: int, pixel: float) -> tuple[np.ndarray, ...]:
    """Centres of the cells along an axis, their numbers of pixels, their variances."""
    groups = [centers[i : i + cell] for i in range(0, centers.size, cell)]
    means = np.array([group.mean() for group in groups], centers.dtype)
    sizes = np.array([group.size for group in groups], centers.dtype)
    return means, sizes, (sizes * pixel) ** 2 / 12


def _density_moments(weights: jax.Array, columns: tuple, rows: tuple) -> tuple:
    """Moments of weights `[..., h, w]` that sum to 1, over cells as `_cells` gives."""
    # All as `[..., h, w]`, so that no axis is added without a word.
    rank = weights.ndim
    center_x, spread_x = (
        with_rank(jnp.asarray(columns[i])[None], rank) for i in (0, 2)
    )
    center_y, spread_y = (
        with_rank(jnp.asarray(rows[i])[:, None], rank) for i in (0, 2)
    )

    def moment(values: jax.typing.ArrayLike) -> jax.Array:
        return jnp.sum(weights * values, (-2, -1))

    mean_x, mean_y = moment(center_x), moment(center_y)
    # The second moments may be taken about any fixed point: about (a copy of) the mean
    # nothing cancels, and their gradients need no further sums over the map.
    about_x, about_y = jax.lax.stop_gradient((mean_x, mean_y))
    from_x = center_x - about_x[..., None, None]
    from_y = center_y - about_y[..., None, None]
    off_x, off_y = mean_x - about_x, mean_y - about_y
    variance_x = moment(from_x**2 + spread_x) - off_x**2
    variance_y = moment(from_y**2 + spread_y) - off_y**2
    covariance = moment(from_x * from_y) - off_x * off_y
    return mean_x, mean_y, variance_x, variance_y, covariance


@jax.custom_jvp
def _half_angle(sine: jax.Array, cosine: jax.Array) -> jax.Array:
    """Half the angle of the vector (cosine, sine); a round map has no direction."""
    return jnp.arctan2(sine, cosine) / 2


@_half_angle.defjvp
def _half_angle_jvp(primals, tangents):
    sine, cosine = primals
    # The true derivative is unbounded where the two eigenvalues meet, and one such
    # example would throw away a whole batch's gradient. The floor bounds it.
    squared = sine**2 + cosine**2 + 1e-4
    turn = (cosine * tangents[0] - sine * tangents[1]) / (2 * squared)
    return _half_angle(sine, cosine), turn


def rectangle_from_moments(
    mean_x: jax.Array,
    mean_y: jax.Array,
    variance_x: jax.Array,
    variance_y: jax.Array,
    covariance: jax.Array,
    *,
    factor: jax.Array | float = 1.0,
) -> Rectangle:
    """The rectangle whose uniform density has the given moments (ours).

    Along an eigenvector of the covariance with eigenvalue l the half size is
    `factor * sqrt(3 l)`. The width belongs to the larger eigenvalue.

    Args:
      mean_x: mean of x; all moments are `[...]`.
      mean_y: mean of y.
      variance_x: variance of x.
      variance_y: variance of y.
      covariance: covariance of x and y.
      factor: scales both half sizes.

    Returns:
      Rectangles `[...]`; where the eigenvalues meet the angle is 0 and its gradient
      bounded.
    """
    moments = mean_x, mean_y, variance_x, variance_y, covariance
    mean_x, mean_y, variance_x, variance_y, covariance, factor = precise(
        *moments, factor
    )
    half_trace = (variance_x + variance_y) / 2
    half_difference = (variance_x - variance_y) / 2
    squared = half_difference**2 + covariance**2
    # sqrt has no finite gradient at 0; the offset is far below one cell's variance,
    # and what it hides is rounding that must not choose an angle.
    offset = 1e-12
    radius = jnp.sqrt(squared + offset)
    directed = squared > offset
    sine = jnp.where(directed, covariance, 0.0)
    cosine = jnp.where(directed, half_difference, 0.0)
    smallest = 1e-6
    large = jnp.maximum(half_trace + radius, smallest)
    small = jnp.maximum(half_trace - radius, smallest)
    return Rectangle(
        center_x=mean_x,
        center_y=mean_y,
        half_width=factor * jnp.sqrt(3 * large),
        half_height=factor * jnp.sqrt(3 * small),
        angle=_half_angle(sine, cosine),
    )
