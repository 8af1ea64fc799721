"""Weights of torch networks into ours, and ours into a file that torch can read."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.backbones import torch_names
from cram_jax.backbones.leaf_names import (
    Path,
    Tree,
    is_attention,
    match,
    names_in,
    namings,
)
from cram_jax.backbones.leaf_names import leaves_of as _leaves
from cram_jax.backbones.weight_files import (
    PACKAGED,
    State,
    packaged_weights,
    read_state_dict,
)
from cram_jax.backbones.weight_files import require as _require

__all__ = [
    "PACKAGED",
    "LoadReport",
    "load_state",
    "load_torch_weights",
    "packaged_weights",
    "read_state_dict",
    "save_safetensors",
    "torch_state",
]


@dataclasses.dataclass(frozen=True)
class LoadReport:
    """What became of the names; `str` of it reads like a diff.

    Attributes:
      loaded: our leaves that came from the file.
      kept: our leaves that the file has nothing for and that kept their values:
        attention layers, and the head where it was to stay.
      unused: names in the file that were left over on purpose.
    """

    loaded: tuple[str, ...]
    kept: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"  {len(self.loaded)} arrays loaded"]
        lines += [f"+ {name} (ours, keeps its values)" for name in self.kept]
        lines += [f"- {name} (theirs, not used)" for name in self.unused]
        return "\n".join(lines)


def _from_torch(array: np.ndarray, leaf: Any) -> np.ndarray:
    """Torch's layout to ours: OIHW to HWIO, OI (or OI11) to IO, the rest flat."""
    if leaf.ndim == 4:
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
    if leaf.ndim == 2:
        flat = array.reshape(array.shape[:2]) if array.shape[2:] == (1, 1) else array
        return flat.T
    return array.reshape(-1)


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Our layout to torch's; linear layers become `[O, I]`."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(array.T)


def load_torch_weights(
    path: str | pathlib.Path, variables: Tree, *, keep_head: bool | None = False
) -> tuple[dict[str, Any], LoadReport]:
    """Puts the weights of a torch network of the same architecture into `variables`.

    Torchvision's and timm's ResNet, MobileNetV3, EfficientNet and ConvNeXt are known,
    and the networks of efficientnet-lite-pytorch. Attention layers, which the file does
    not have, keep their values. What stands in front of all names ("module.", "model.",
    "_orig_mod.", "backbone.", several of them) is taken off; names outside of it are
    not used.

    Args:
      path: `.safetensors`, or a file of torch's, see `read_state_dict`.
      variables: what the backbone's `init` returned, at the image channels and classes
        of the file.
      keep_head: whether the last dense layer keeps its values, for other classes;
        None: if the file has none, or one of another number of classes.

    Returns:
      The new variables, in our dtypes, and the report of what was loaded.

    Raises:
      ValueError: if the file does not fit, with the first names that differ, or cannot
        be read (see `read_state_dict`).
    """
    return load_state(read_state_dict(path), variables, keep_head=keep_head)


def load_state(
    state: State, variables: Tree, *, keep_head: bool | None = False
) -> tuple[dict[str, Any], LoadReport]:
    """`load_torch_weights` for arrays already read, `{name: array}`."""
    naming, state, outside = match(variables, state)
    names = names_in(variables, naming)
    if keep_head is None:
        keep_head = _has_other_head(state, variables, names)
    new, kept, problems = {}, [], []
    for path, leaf in _leaves(variables):
        name = names[path]
        absent = name not in state
        head = path[:2] == ("head", "dense") or (absent and path[0] == "head")
        if (head and keep_head) or (absent and is_attention(path)):
            kept.append("/".join(path))
            continue
        ours = is_attention(path) or naming is torch_names.own
        array = None if absent else _from_file(state[name], leaf, ours)
        problem = _problem(name, path, leaf, state, array)
        if problem:
            problems.append(problem)
        else:
            new[path] = jnp.asarray(array, leaf.dtype)
    spare = [name for name in state if name not in set(names.values())]
    # A head that is not used may have more layers than ours.
    heads = {names[p].split(".")[0] + "." for p in names if p[:2] == ("head", "dense")}
    on_purpose = [
        name
        for name in spare
        if name.endswith("num_batches_tracked")
        or (keep_head and any(map(name.startswith, heads)))
    ]
    problems += [f"- {name} is left over" for name in spare if name not in on_purpose]
    if problems:
        raise ValueError(_misfit(problems))
    dense = [names[path] for path in names if path[:2] == ("head", "dense")]
    dropped = [name for name in dense if keep_head and name in state]
    report = LoadReport(
        tuple("/".join(path) for path in new),
        tuple(kept),
        tuple(on_purpose + dropped) + outside,
    )
    return _replace(variables, new), report


def _from_file(array: np.ndarray, leaf: Any, ours: bool) -> np.ndarray:
    return array if ours else _from_torch(array, leaf)


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


def _has_other_head(state: State, variables: Tree, names: Mapping[Path, str]) -> bool:
    """Whether the file has no last layer, or one of another shape."""
    for path, leaf in _leaves(variables):
        if path[:2] == ("head", "dense"):
            array = state.get(names[path])
            if array is None or array.size != np.prod(leaf.shape):
                return True
    return False


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


def _replace(variables: Tree, new: Mapping[tuple[str, ...], jax.Array]) -> dict:
    def choose(path, leaf):
        keys = tuple(str(entry.key) for entry in path)
        weights = keys[0] in ("params", "batch_stats")
        return new.get(keys[1:], leaf) if weights else leaf

    return jax.tree_util.tree_map_with_path(choose, dict(variables))


def torch_state(variables: Tree) -> State:
    """Our variables under torchvision's names, in torch's layout.

    Attention layers, and backbones that torch does not have, keep our names and layout.
    """
    backbone = {path[:-1] for path, _ in _leaves(variables) if not is_attention(path)}
    naming = namings(backbone)[0][1]
    state, leaves = {}, dict(_leaves(variables))
    for path, name in names_in(variables, naming).items():
        leaf = leaves[path]
        foreign = naming is not torch_names.own and not is_attention(path)
        array = np.asarray(leaf)
        if foreign:
            shape = (-1, 1, 1) if path[-1] == "layer_scale" else None
            array = array.reshape(shape) if shape else _to_torch(array)
            if len(path) > 2 and path[1] == "squeeze" and array.ndim == 2:
                array = array[:, :, None, None]
        state[name] = array
    return state


def save_safetensors(path: str | pathlib.Path, variables: Tree) -> None:
    """Writes parameters and statistics so that torchvision's network can load them.

    See `torch_state` for the names; `load_torch_weights` reads the file back. Needs the
    package safetensors.
    """
    _require("safetensors.numpy").save_file(torch_state(variables), path)
