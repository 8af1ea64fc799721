"""A trained network's weights in one `.safetensors` file, with what they are of.

The backbone's arrays have torchvision's names and layout, so that other programs, and
`--model.pretrained`, can read them; attention layers, and what stands around the
backbone, keep our names and layout. The file's metadata is what
`train.use.stablehlo.described` says, each entry as JSON.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from cram_jax.backbones.leaf_names import COLLECTIONS, leaves_of, place_of, subtree
from cram_jax.backbones.weight_files import import_package
from cram_jax.backbones.weights import load_state, read_state_dict, torch_state
from train.errors import UserError
from train.files import finite
from train.run.checkpoints.restore import Trained
from train.use.stablehlo import described

# In front of the backbone's names where it is a part of the network, and of all others.
_BACKBONE, _AROUND = "backbone.", "around."


def weights_file(trained: Trained) -> bytes:
    """The content of a `.safetensors` file of a trained network.

    Raises:
      UserError: if the network has no backbone of ours, or safetensors is missing.
    """
    variables = trained.variables
    try:
        safetensors = import_package("safetensors.numpy")
        at = place_of(variables)
        state = torch_state(variables, at=at)
    except ValueError as error:
        raise UserError(str(error)) from error
    if at:
        state = {f"{_BACKBONE}{name}": array for name, array in state.items()}
        state |= _around(variables, at)
    about = {name: json.dumps(v) for name, v in finite(described(trained)).items()}
    arrays = {name: np.array(array, order="C") for name, array in state.items()}
    return safetensors.save(arrays, metadata={"format": "cram_jax", **about})


def read_weights(path: Path, variables: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The variables with the arrays of such a file in them, and its metadata.

    Args:
      path: the file.
      variables: "params" and "batch_stats" of the same network; each is replaced.

    Raises:
      ValueError: if the file cannot be read or does not fit.
    """
    from safetensors import safe_open

    state = read_state_dict(path)
    around = {name: state.pop(name) for name in list(state) if _is_around(name)}
    loaded, _ = load_state(state, variables)
    for name, array in around.items():
        *parents, last = name.removeprefix(_AROUND).split("/")
        inner: Any = loaded
        for parent in parents:
            inner = inner[parent]
        if inner[last].shape != array.shape:
            raise ValueError(
                f"{name} has shape {array.shape}, and the network's has"
                f" {inner[last].shape}; it is of another network."
            )
        inner[last] = jnp.asarray(array, inner[last].dtype)
    with safe_open(path, "numpy") as file:
        about = dict(file.metadata() or {})
    about.pop("format", None)
    return loaded, {name: json.loads(text) for name, text in about.items()}


def _is_around(name: str) -> bool:
    return name.startswith(_AROUND)


def _around(variables: Any, at: str) -> dict[str, np.ndarray]:
    """What is no part of the backbone, by collection and path."""
    prefix = tuple(at.split("/"))
    within = {prefix + path for path, _ in leaves_of(subtree(variables, at))}
    found = {}
    for collection in COLLECTIONS:
        inner = {collection: variables.get(collection, {})}
        for path, leaf in leaves_of(inner):
            if path not in within:
                name = "/".join((collection, *path))
                found[f"{_AROUND}{name}"] = np.asarray(leaf)
    return found
