"""Serves a network that `python -m train export` wrote; it knows only jax.

    python examples/serve.py runs/mine/export/network.stablehlo images.npy answers.npz

The images are uint8 [batch, H, W, C]; network.json beside the program says which size.
"""

import pathlib
import sys

import jax
import jax.export
import numpy as np


def serve(program, images):
    """Everything that the network says of the images, by name."""
    network = jax.export.deserialize(bytearray(pathlib.Path(program).read_bytes()))
    answers = jax.tree_util.tree_leaves_with_path(network.call(images))
    name = jax.tree_util.keystr
    return {name(path, simple=True, separator="/"): leaf for path, leaf in answers}


if __name__ == "__main__":
    program, images, answers = sys.argv[1:]
    np.savez(answers, **serve(program, np.load(images)))
