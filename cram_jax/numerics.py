"""Which precision numbers are computed in, and how half floats are read for it."""

from __future__ import annotations

import functools
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

Arrays = TypeVar("Arrays")
Dtype = jax.typing.DTypeLike


def wide_dtype(*values: Any) -> Any:
    """The common dtype of arrays and numbers, at least float32.

    Integers and Python numbers alone give JAX's default: float32, or float64 where
    `jax_enable_x64` is on. The same under strict promotion, since it is asked for.
    """
    with jax.numpy_dtype_promotion("standard"):
        return jnp.promote_types(jnp.result_type(*values, float), jnp.float32)


def at_least_float32(array: jax.typing.ArrayLike) -> jax.Array:
    """The array in at least float32: means over many half floats lose digits."""
    array = jnp.asarray(array)
    return array.astype(wide_dtype(array))


def precise(*trees: Any) -> Any:
    """The tree, or the tuple of trees, with all leaves in one dtype (`wide_dtype`)."""
    dtype = wide_dtype(*jax.tree.leaves(trees))
    cast = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), trees)
    return cast if len(trees) > 1 else cast[0]


def read_apart(arrays: Arrays) -> Arrays:
    """The arrays, for a reader that shares no conversion to float32 with others (ours).

    XLA on CPU converts a bfloat16 map while it reads it. But where several readers
    convert the same map it first writes the map in float32, twice the size, for all of
    them to read. A barrier keeps the conversions apart; two readers of the same map
    need two different trees of arrays, for equal barriers are merged. Other dtypes
    (float16 is copied in any case) and other devices are left alone.
    """
    if all(leaf.dtype != jnp.bfloat16 for leaf in jax.tree.leaves(arrays)):
        return arrays
    return jax.lax.platform_dependent(
        arrays, cpu=jax.lax.optimization_barrier, default=lambda arrays: arrays
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest(array: jax.Array, axis: int | tuple[int, ...]) -> jax.Array:
    """The maximum over axes; its gradient is never NaN, equal entries share it (ours).

    The gradient of `jnp.max` asks which entries equal the maximum. Where XLA computes
    the array anew for that question, in another order, none may, and the share of each
    is 0 / 0: seen on CPU without XLA's optimisations, behind a convolution and
    BatchNorm. Here entries count as equal within 64 roundings.
    """
    return array.max(axis)


@largest.defjvp
def _largest_jvp(axis, primals, tangents):
    (array,), (tangent,) = primals, tangents
    maximum = array.max(axis, keepdims=True)
    tolerance = 64 * jnp.finfo(array.dtype).eps * jnp.abs(maximum)
    equal = array >= maximum - tolerance
    shared = jnp.maximum(jnp.sum(equal, axis, dtype=tangent.dtype), 1)
    moved = jnp.sum(jnp.where(equal, tangent, 0), axis) / shared
    return maximum.squeeze(axis), moved
