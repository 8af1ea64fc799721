"""Which images are held out: by a hash of their names, class by class.

The choice depends on nothing else: no seed, no order of files, no other image but for
the few at the edge of the share.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence

import numpy as np

from train.config.data import DataConfig

HELD_OUT = "held-out"  # the split that `data.validation` makes of training images


def is_held_out(config: DataConfig, split: str) -> bool:
    """Whether a split is what the config holds out of the training images."""
    return split == HELD_OUT and config.validation > 0


def parted(config: DataConfig, split: str) -> str:
    """The split of the set that the images of `split` are taken from."""
    return config.train_split if is_held_out(config, split) else split


def shown(config: DataConfig, split: str) -> str:
    """What a split is called in messages and records."""
    return "validation" if is_held_out(config, split) else split


def hash_order(name: str) -> bytes:
    """A sort key that looks random and does not depend on the other images."""
    spelled = unicodedata.normalize("NFC", name.replace("\\", "/"))
    # A file system may hold names that are no text; they have an order all the same.
    spelled_bytes = spelled.encode(errors="surrogateescape")
    return hashlib.blake2b(spelled_bytes, digest_size=8).digest()


def count_held_out(images: int, share: float) -> int:
    """How many of the images of a class are held out: one or more, but never all."""
    return min(max(1, round(share * images)), images - 1)


def hold_out(
    names: Sequence[str], labels: Sequence[int], share: float
) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the images that stay, and of those that are held out, in order.

    Args:
        names: one for each image; the hash is taken of them.
        labels: one for each image.
        share: part of each class, in (0, 1). A class of one image keeps it.

    Raises:
        ValueError: no class has two images.
    """
    by_class: dict[int, list[int]] = {}
    for position, label in enumerate(labels):
        by_class.setdefault(int(label), []).append(position)
    held: list[int] = []
    for positions in by_class.values():
        ordered = sorted(positions, key=lambda position: hash_order(names[position]))
        held += ordered[: count_held_out(len(ordered), share)]
    if not held:
        raise ValueError(
            f"data.validation = {share:g} has no image to hold out: no class has two."
        )
    chosen = np.zeros(len(labels), bool)
    chosen[held] = True
    return np.flatnonzero(~chosen), np.flatnonzero(chosen)
