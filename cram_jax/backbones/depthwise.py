"""One depthwise convolution for all families, fast on CPU too.

XLA's grouped convolution is slow on CPU, where a sum of shifted products (one for each
tap of the kernel) does the same in a fraction of the time, forward and backward; on
accelerators the grouped convolution is the fast one. The platform decides.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from cram_jax.numerics import at_least_float32

Padding = tuple[tuple[int, int], tuple[int, int]]


def depthwise_conv(
    features: jax.Array,
    kernel: jax.Array,
    *,
    strides: int = 1,
    padding: Padding = ((0, 0), (0, 0)),
) -> jax.Array:
    """Convolves every channel with its own kernel (a correlation, as in torch).

    Reverse-mode differentiation only: `jax.jvp` through it raises.

    Args:
      features: `[..., H, W, C]`.
      kernel: `[h, w, 1, C]`, as of `nn.Conv` with `feature_group_count=C`.
      strides: step in both directions.
      padding: pixels of zeros `((top, bottom), (left, right))`.

    Returns:
      `[..., H', W', C]` in the dtype of the features; sums are in at least float32.
    """
    if features.ndim == 4:
        return jnp.asarray(_convolve(features, kernel, strides, padding))
    batch = features.reshape(-1, *features.shape[-3:])
    result = jnp.asarray(_convolve(batch, kernel, strides, padding))
    return result.reshape(*features.shape[:-3], *result.shape[1:])


def grouped_conv(
    features: jax.Array, kernel: jax.Array, *, strides: int, padding: Padding
) -> jax.Array:
    """The same by XLA's grouped convolution; features `[N, H, W, C]`."""
    return lax.conv_general_dilated(
        features,
        kernel,
        (strides, strides),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=features.shape[-1],
    )


def _shifts(padded: jax.Array, size: Sequence[int], kernel: jax.Array, strides: int):
    """What each tap of the kernel sees: pairs of the tap and `[N, H', W', C]`."""
    batch, _, _, channels = padded.shape
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            seen = lax.slice(
                padded,
                (0, row, column, 0),
                (
                    batch,
                    row + strides * (size[0] - 1) + 1,
                    column + strides * (size[1] - 1) + 1,
                    channels,
                ),
                (1, strides, strides, 1),
            )
            yield (row, column), seen


def _pad(features: jax.Array, padding: Padding, dilation: int = 1) -> jax.Array:
    """Zeros around, and `dilation - 1` between; negative padding cuts."""
    rows, columns = ((*pair, dilation - 1) for pair in padding)
    zero = jnp.zeros((), features.dtype)
    return lax.pad(features, zero, ((0, 0, 0), rows, columns, (0, 0, 0)))


def _wide(array: jax.Array) -> jax.Array:
    return at_least_float32(array)


def _sum_of_shifts(padded: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    size = tuple(
        (side - taps) // strides + 1
        for side, taps in zip(padded.shape[1:3], kernel.shape[:2], strict=True)
    )
    wide = _wide(kernel)
    products = (
        _wide(seen) * wide[row : row + 1, column : column + 1]
        for (row, column), seen in _shifts(padded, size, kernel, strides)
    )
    return functools.reduce(jnp.add, products).astype(padded.dtype)


def _shifted(
    features: jax.Array, kernel: jax.Array, *, strides: int, padding: Padding
) -> jax.Array:
    return _sum_of_shifts(_pad(features, padding), kernel, strides)


def _shifted_gradient(
    features: jax.Array,
    kernel: jax.Array,
    cotangent: jax.Array,
    *,
    strides: int,
    padding: Padding,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of features and kernel, each a sum over shifts again.

    Transposed tap by tap, as autodiff would, the features' cotangent would be built
    from as many padded copies as there are taps.
    """
    size = cotangent.shape[1:3]
    seen = _shifts(_pad(features, padding), size, kernel, strides)
    products = [_wide(cotangent) * _wide(shift) for _, shift in seen]
    # One reduction with as many results as taps reads the features once.
    sums = lax.reduce(
        products,
        [jnp.zeros((), product.dtype) for product in products],
        lambda left, right: [a + b for a, b in zip(left, right, strict=True)],
        (0, 1, 2),
    )
    kernel_cotangent = jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)
    # The transpose is the same sum over the cotangent, spread by the stride, with
    # the kernel turned by half.
    spread = [
        (
            taps - 1 - before,
            side + before - 1 - strides * (out - 1),
        )
        for side, taps, out, (before, _) in zip(
            features.shape[1:3], kernel.shape[:2], size, padding, strict=True
        )
    ]
    turned = kernel[::-1, ::-1]
    wide = _pad(cotangent, (spread[0], spread[1]), strides)
    return _sum_of_shifts(wide, turned, 1), kernel_cotangent


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _convolve(
    features: jax.Array, kernel: jax.Array, strides: int, padding: Padding
) -> jax.Array:
    kernel = kernel.astype(features.dtype)
    settings = {"strides": strides, "padding": padding}
    return lax.platform_dependent(
        features,
        kernel,
        cpu=functools.partial(_shifted, **settings),
        default=functools.partial(grouped_conv, **settings),
    )


def padding_for(
    kernel: int, strides: int, sides: Sequence[int], *, same: bool
) -> Padding:
    """The zeros around a map of `sides` (height, width).

    Torch's `(kernel - 1) // 2` all round; or, with `same`, TensorFlow's "SAME", which
    at a stride may put one row more below than above.
    """
    if not same:
        margin = (kernel - 1) // 2
        return ((margin, margin), (margin, margin))
    totals = [max((-(-n // strides) - 1) * strides + kernel - n, 0) for n in sides]
    top, left = (total // 2 for total in totals)
    return ((top, totals[0] - top), (left, totals[1] - left))


def _convolve_forward(features, kernel, strides, padding):
    return _convolve(features, kernel, strides, padding), (features, kernel)


def _convolve_backward(strides, padding, residuals, cotangent):
    settings = {"strides": strides, "padding": padding}

    def grouped_gradient(features, kernel, cotangent):
        return jax.vjp(functools.partial(grouped_conv, **settings), features, kernel)[
            1
        ](cotangent)

    features, kernel = residuals
    narrow = kernel.astype(features.dtype)
    gradients = lax.platform_dependent(
        features,
        narrow,
        cotangent,
        cpu=functools.partial(_shifted_gradient, **settings),
        default=grouped_gradient,
    )
    return gradients[0], gradients[1].astype(kernel.dtype)


_convolve.defvjp(_convolve_forward, _convolve_backward)
