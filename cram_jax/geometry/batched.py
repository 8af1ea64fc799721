"""Batches of a few numbers each: how they become pytrees, and how their axes meet.

`Rectangle` and `Similarity` are frozen dataclasses of arrays of one shape `[...]`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, TypeVar

import flax.serialization
import jax
import jax.export
import jax.numpy as jnp

from cram_jax.checks import known
from cram_jax.numerics import wide_dtype

Type = TypeVar("Type", bound=type)
# A size is a whole number, or symbolic where `jax.export` leaves it open.
Shape = tuple[Any, ...]


def register(cls: Type) -> Type:
    """Makes a dataclass of arrays a pytree for JAX, `jax.export` and flax's files."""
    names = tuple(field.name for field in dataclasses.fields(cls))

    def leaves(value):
        return [getattr(value, name) for name in names], None

    def leaves_with_keys(value):
        key = jax.tree_util.GetAttrKey
        return [(key(name), getattr(value, name)) for name in names], None

    def make(_, children):
        # Any leaves are taken as they are: JAX puts more than arrays into trees.
        value = object.__new__(cls)
        for name, child in zip(names, children, strict=True):
            object.__setattr__(value, name, child)
        return value

    def to_state(value):
        to_state_dict = flax.serialization.to_state_dict
        return {name: to_state_dict(getattr(value, name)) for name in names}

    def from_state(target, state):
        if set(state) != set(names):
            raise ValueError(
                f"A {cls.__name__} has the fields {', '.join(names)}; the file has"
                f" {', '.join(map(str, state)) or 'none'}."
            )
        restore = flax.serialization.from_state_dict
        return make(None, [restore(getattr(target, n), state[n], n) for n in names])

    jax.tree_util.register_pytree_with_keys(cls, leaves_with_keys, make, leaves)
    jax.export.register_pytree_node_serialization(
        cls,
        serialized_name=f"cram_jax.{cls.__name__}",
        serialize_auxdata=lambda _: b"",
        deserialize_auxdata=lambda _: None,
    )
    flax.serialization.register_serialization_state(cls, to_state, from_state)
    return cls


def number_fields(what: str, values: dict[str, Any]) -> dict[str, jax.Array]:
    """Numbers and arrays as arrays of one dtype, float32 or better.

    Raises:
      ValueError: for what is no number: a bool, a string, None.
    """
    for name, value in values.items():
        kind: Any = getattr(value, "dtype", None)
        kind = getattr(known(value), "dtype", None) if kind is None else kind
        if not any(jnp.issubdtype(kind, k) for k in (jnp.floating, jnp.integer)):
            raise ValueError(
                f"A {what} is made of numbers, got {name}={value!r}; pass numbers or"
                " arrays of them."
            )
    arrays = {name: jnp.asarray(value) for name, value in values.items()}
    dtype = wide_dtype(*values.values())
    return {name: array.astype(dtype) for name, array in arrays.items()}


def batch_shape(**shapes: Shape) -> Shape:
    """The shape of batch axes that meet, by NumPy's rule where it does not guess.

    `[B]` beside `[B, B]` is refused: whoever means "one for each row" would get one
    for each column. `[B, 1]` or `[1, B]` says which.

    Raises:
      ValueError: if shapes do not broadcast, or only by that guess.
    """
    given = " and ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
    try:
        result = jnp.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ValueError(
            f"The batch axes do not fit together: {given}; add axes of length 1 where"
            " they are to be repeated, for example [B, 1] beside [B, K]."
        ) from None
    for short in shapes.values():
        for long in shapes.values():
            rank = len(short)
            guess = 0 < rank < len(long) and short == long[:rank] == long[-rank:]
            if guess and max(short) > 1:
                raise ValueError(
                    f"The batch axes can be paired in two ways: {given}; say which by"
                    " an axis of length 1, [B, 1] or [1, B]."
                )
    return result


def one_shape(arrays: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """The arrays, broadcast to one shape (see `batch_shape`).

    Those that were smaller are spread over a mesh as an array of that shape is.
    """
    shape = batch_shape(**{name: array.shape for name, array in arrays.items()})
    whole = [array for array in arrays.values() if array.shape == shape]

    def widen(array):
        if array.shape == shape:
            return array
        if not whole:
            return jnp.broadcast_to(array, shape)
        return with_rank(array, len(shape)) + jnp.zeros_like(whole[0])

    return {name: widen(array) for name, array in arrays.items()}


def with_rank(array: jax.Array, rank: int) -> jax.Array:
    """The array with axes of length 1 in front, so that it has `rank` axes."""
    return jax.lax.expand_dims(array, range(rank - array.ndim))


def align(**parts: tuple[Any, int]) -> list[Any]:
    """Pytrees with batch axes in front of others, all with as many batch axes.

    So nothing that follows depends on how arrays of different rank broadcast.

    Args:
      **parts: by name, a pytree of arrays and how many axes come after the batch's.

    Returns:
      The pytrees, axes of length 1 put in front where there were fewer.

    Raises:
      ValueError: see `batch_shape`.
    """

    def batch(leaf, own):
        return leaf.shape[: leaf.ndim - own]

    shapes = {
        name: jnp.broadcast_shapes(
            *(batch(leaf, own) for leaf in jax.tree.leaves(tree))
        )
        for name, (tree, own) in parts.items()
    }
    rank = len(batch_shape(**shapes))
    return [
        jax.tree.map(lambda leaf, own=own: with_rank(leaf, rank + own), tree)
        for tree, own in parts.values()
    ]
