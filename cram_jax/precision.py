"""Float32 statistics of bfloat16 features, without a float32 copy of them."""

from __future__ import annotations

from typing import TypeVar

import jax
import jax.numpy as jnp

Arrays = TypeVar("Arrays")


def at_least_float32(array: jax.Array) -> jax.Array:
    """The array in at least float32: means over many half floats lose digits."""
    return array.astype(jnp.promote_types(array.dtype, jnp.float32))


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
