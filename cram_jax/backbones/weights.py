"""Weights of torch networks into ours, and ours into a file that torch can read."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from cram_jax.backbones.leaf_names import (
    COLLECTIONS,
    Tree,
    is_attention,
    leaves_of,
    match,
    modules_of,
    names_in,
    place_of,
    subtree,
)
from cram_jax.backbones.published import Naming, Path
from cram_jax.backbones.registry import NAMINGS, PACKAGED
from cram_jax.backbones.weight_files import (
    State,
    import_package,
    packaged_weights,
    read_state_dict,
)
from cram_jax.backbones.weight_fitting import (
    fitted_leaves,
    has_other_head,
    unused_names,
)

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


def _to_torch(array: np.ndarray) -> np.ndarray:
    """Our layout to torch's; linear layers become `[O, I]`."""
    if array.ndim == 4:
        return np.ascontiguousarray(array.transpose(3, 2, 0, 1))
    return np.ascontiguousarray(array.T)


def load_torch_weights(
    path: str | pathlib.Path,
    variables: Tree,
    *,
    keep_head: bool | None = False,
    at: str = "",
    naming: Naming | None = None,
) -> tuple[dict[str, Any], LoadReport]:
    """Puts the weights of a torch network of the same architecture into `variables`.

    Torchvision's and timm's ResNet, MobileNetV3, EfficientNet and ConvNeXt are known,
    and the networks of efficientnet-lite-pytorch. Attention layers, which the file does
    not have, keep their values. What stands in front of all names ("module.", "model.",
    "_orig_mod.", "backbone.", several of them) is taken off; names outside of it are
    not used. A backbone inside another network is found by its modules; all around it
    keeps its values, and a classifier that it does not have is not used.

    Args:
      path: `.safetensors`, or a file of torch's, see `read_state_dict`.
      variables: what `init` of the backbone, or of a network with a backbone in it,
        returned, at the image channels and classes of the file.
      keep_head: whether the last dense layer keeps its values, for other classes;
        None: if the file has none, or one of another number of classes.
      at: the module in which to look for the backbone, "/" between names; needed where
        there are several.
      naming: what the file calls the leaves at `at`, for a network of your own.

    Returns:
      The new variables, in our dtypes, and the report of what was loaded.

    Raises:
      ValueError: if the file does not fit, with the first names that differ, or cannot
        be read (see `read_state_dict`); if there is no backbone, or more than one.
    """
    state = read_state_dict(path)
    return load_state(state, variables, keep_head=keep_head, at=at, naming=naming)


def load_state(
    state: State,
    variables: Tree,
    *,
    keep_head: bool | None = False,
    at: str = "",
    naming: Naming | None = None,
) -> tuple[dict[str, Any], LoadReport]:
    """`load_torch_weights` for arrays already read, `{name: array}`."""
    if naming is None:
        inside = place_of(subtree(variables, at))
        at = "/".join(filter(None, (at, inside)))
    inner = subtree(variables, at)
    modules = modules_of(inner)
    fitting = tuple(known for known in NAMINGS if known.fits(modules))
    naming, state, outside = match(inner, state, (naming,) if naming else fitting)
    names = names_in(inner, naming)
    if keep_head is None:
        keep_head = has_other_head(state, inner, names)
    new, kept = fitted_leaves(state, inner, names, naming, keep_head)
    prefix = tuple(filter(None, at.split("/")))
    within = {path for path, _ in leaves_of(inner)}
    around = [
        path
        for path, _ in leaves_of(variables)
        if path[: len(prefix)] != prefix or path[len(prefix) :] not in within
    ]
    unused = unused_names(state, names, naming, keep_head)
    report = LoadReport(
        tuple("/".join(prefix + path) for path in new),
        tuple("/".join(prefix + path) for path in kept) + tuple(map("/".join, around)),
        unused + outside,
    )
    return _replace(variables, {prefix + path: new[path] for path in new}), report


def _replace(variables: Tree, new: Mapping[Path, jax.Array]) -> dict:
    def choose(path, leaf):
        keys = tuple(str(entry.key) for entry in path)
        return new.get(keys[1:], leaf) if keys[0] in COLLECTIONS else leaf

    return jax.tree_util.tree_map_with_path(choose, dict(variables))


def torch_state(variables: Tree, *, at: str = "") -> State:
    """Our variables under torchvision's names, in torch's layout.

    Attention layers, and backbones that torch does not have, keep our names and layout.

    Args:
      variables: those of a backbone, or of a network with one in it, which alone is
        taken.
      at: see `load_torch_weights`.

    Raises:
      ValueError: if there is no backbone, or more than one.
    """
    variables = subtree(variables, at)
    variables = subtree(variables, place_of(variables))
    modules = modules_of(variables)
    naming = next(naming for naming in NAMINGS if naming.fits(modules))
    state, leaves = {}, dict(leaves_of(variables))
    for path, name in names_in(variables, naming).items():
        leaf = leaves[path]
        array = np.asarray(leaf)
        if not (naming.ours or is_attention(path)):
            shape = (-1, 1, 1) if path[-1] == "layer_scale" else None
            array = array.reshape(shape) if shape else _to_torch(array)
            if len(path) > 2 and path[1] == "squeeze" and array.ndim == 2:
                array = array[:, :, None, None]
        state[name] = array
    return state


def save_safetensors(
    path: str | pathlib.Path, variables: Tree, *, at: str = ""
) -> None:
    """Writes parameters and statistics so that torchvision's network can load them.

    See `torch_state` for the names; `load_torch_weights` reads the file back. Needs the
    package safetensors.
    """
    state = torch_state(variables, at=at)
    import_package("safetensors.numpy").save_file(state, path)
