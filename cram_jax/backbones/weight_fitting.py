"""The arrays of a file as our leaves, or all that keeps them from it in one message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.backbones.leaf_names import Tree, is_attention, leaves_of
from cram_jax.backbones.published import Naming, Path
from cram_jax.backbones.weight_files import State

__all__ = ["fitted_leaves", "has_other_head", "unused_names"]


def has_other_head(state: State, variables: Tree, names: Mapping[Path, str]) -> bool:
    """Whether the file has no last layer, or one of another shape."""
    for path, leaf in leaves_of(variables):
        if path[:2] == ("head", "dense"):
            array = state.get(names[path])
            if array is None or array.size != np.prod(leaf.shape):
                return True
    return False


def fitted_leaves(
    state: State,
    variables: Tree,
    names: Mapping[Path, str],
    naming: Naming,
    keep_head: bool,
) -> tuple[dict[Path, jax.Array], list[Path]]:
    """The file's arrays as our leaves, and the leaves that keep their values.

    Raises:
      ValueError: with all that does not fit.
    """
    new, kept, problems = {}, [], []
    for path, leaf in leaves_of(variables):
        name = names[path]
        absent = name not in state
        head = path[:2] == ("head", "dense") or (absent and path[0] == "head")
        if (head and keep_head) or (absent and is_attention(path)):
            kept.append(path)
            continue
        array = None
        if not absent:
            ours = is_attention(path) or naming.ours
            array = state[name] if ours else _from_torch(state[name], leaf)
        problem = _problem(name, path, leaf, state, array)
        if problem:
            problems.append(problem)
        else:
            new[path] = jnp.asarray(array, leaf.dtype)
    spare = set(state) - set(names.values())
    left = spare - set(unused_names(state, names, naming, keep_head))
    problems += [f"- {name} is left over" for name in state if name in left]
    if problems:
        raise ValueError(_misfit(problems))
    return new, kept


def unused_names(
    state: State, names: Mapping[Path, str], naming: Naming, keep_head: bool
) -> tuple[str, ...]:
    """The names in the file that are left over on purpose."""
    ours = set(names.values())
    dense = {names[path] for path in names if path[:2] == ("head", "dense")}
    dropped = keep_head or not any(path[0] == "head" for path in names)

    def on_purpose(name: str) -> bool:
        # A head that is not used may have more layers than ours.
        head = name.startswith(naming.head)
        return name.endswith("num_batches_tracked") or (dropped and head)

    spare = [name for name in state if name not in ours and on_purpose(name)]
    return tuple(spare + [name for name in state if name in dense and keep_head])


def _from_torch(array: np.ndarray, leaf: Any) -> np.ndarray:
    """Torch's layout to ours: OIHW to HWIO, OI (or OI11) to IO, the rest flat."""
    if leaf.ndim == 4:
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if leaf.ndim == 2:
        flat = array.reshape(array.shape[:2]) if array.shape[2:] == (1, 1) else array
        return flat.T
    return array.reshape(-1)


def _problem(
    name: str, path: Path, leaf: Any, state: State, array: np.ndarray | None
) -> str | None:
    """What keeps an array of the file from being our leaf, if anything does."""
    ours = "/".join(path)
    if array is None:
        return f"+ {name} (for our {ours}) is missing"
    if array.shape != leaf.shape:
        line = (
            f"! {name} has shape {state[name].shape}, which does not fit our {ours} of"
            f" {leaf.shape}"
        )
        first = path[0].startswith(("stem", "stage1_conv1"))
        if first and array.ndim == leaf.ndim == 4 and array.shape[2] != leaf.shape[2]:
            line += (
                f": the weights are for images of {array.shape[2]} channels, this"
                f" network takes {leaf.shape[2]}"
            )
        return line
    if not np.isfinite(np.asarray(array, np.float32)).all():
        return f"! {name} holds NaN or infinity"
    return None


def _misfit(problems: list[str], shown: int = 8) -> str:
    more = len(problems) - shown
    lines = problems[:shown] + ([f"... and {more} more"] if more > 0 else [])
    return "\n".join(
        [
            "The weights do not fit this backbone. Is it another size, or another"
            " number of classes? (`keep_head=True` leaves the last layer alone.)",
            *lines,
        ]
    )
