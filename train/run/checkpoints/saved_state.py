"""A state as it was saved against the one that is wanted: pure functions.

Both are compared as leaves by path (`params/head/kernel`), so that what is damaged and
what merely does not fit are told apart.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from train.learning.optimizer import path_of

Leaves = dict[str, Any]

# The sums since the last record: a version that sums other things starts them anew.
_RENEWED = "window"
_SHOWN = 3


def leaves_by_path(tree: Any) -> Leaves:
    """The leaves of a tree by their path as text."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {path_of(path): leaf for path, leaf in leaves}


def checksums(state: Any) -> dict[str, int]:
    """CRC-32 of every leaf of a fetchable tree, by path."""
    return {
        path: zlib.crc32(np.ascontiguousarray(np.asarray(leaf)).tobytes())
        for path, leaf in leaves_by_path(state).items()
    }


def part_of(path: str) -> str:
    """The field of the state that a leaf belongs to: `params`, ..."""
    return path.partition("/")[0]


def _describe(leaf: Any) -> str:
    return f"{leaf.dtype} {list(leaf.shape)}"


def _castable(saved: Any, wanted: Any) -> bool:
    """The same numbers in another width: float64 to float32, int64 to int32."""
    return saved.dtype == wanted.dtype or any(
        np.issubdtype(saved.dtype, kind) and np.issubdtype(wanted.dtype, kind)
        for kind in (np.floating, np.signedinteger)
    )


def misfits(saved: Mapping[str, Any], like: Any) -> list[str]:
    """What differs between saved leaves and a wanted state, one line each.

    Args:
      saved: leaves by path, with shape and dtype.
      like: tree of leaves with shape and dtype; its parts (`params`, ...) are those
        that count.
    """
    wanted = leaves_by_path(like)
    found = [f"{path} is missing" for path in wanted if path not in saved]
    found += [f"{path} is not wanted" for path in saved if path not in wanted]
    found += [
        f"{path} is {_describe(saved[path])}, wanted is {_describe(leaf)}"
        for path, leaf in wanted.items()
        if path in saved
        and (saved[path].shape != leaf.shape or not _castable(saved[path], leaf))
    ]
    return [line for line in found if part_of(line.partition(" ")[0]) != _RENEWED]


def shorten(lines: list[str]) -> str:
    """The first few of them in one line."""
    more = f"; and {len(lines) - _SHOWN} more" if len(lines) > _SHOWN else ""
    return "; ".join(lines[:_SHOWN]) + more


def fitted(saved: Mapping[str, Any], like: Any) -> Any:
    """The wanted state with the saved values, in the wanted dtypes.

    Args:
      saved: leaves by path, without `misfits`.
      like: the wanted state; a window of other sums than the saved one stays as here.
    """
    renews = {path: leaf for path, leaf in saved.items() if part_of(path) == _RENEWED}
    wanted = {k: v for k, v in leaves_by_path(like).items() if part_of(k) == _RENEWED}
    keeps_window = renews.keys() == wanted.keys() and all(
        renews[path].shape == leaf.shape for path, leaf in wanted.items()
    )

    def take(path, leaf):
        name = path_of(path)
        if part_of(name) == _RENEWED and not keeps_window:
            return leaf
        return np.asarray(saved[name]).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(take, like)
