"""A data source by its name in the configuration."""

from __future__ import annotations

import importlib
from pathlib import Path

from cram_jax.checks import nearest
from train.config.data import DataConfig
from train.data.sources.base import Source

# What a name looks like, and what opens such a set: its file is imported only then,
# since not every machine has what it needs. A new source is one file and one line here.
SOURCES = {
    "digits": "train.data.sources.digits.digits:open_digits",
    "many_digits": "train.data.sources.digits.many_digits:open_many_digits",
    "tfds:NAME[/CONFIG]": "train.data.sources.tfds.source:open_tfds",
    "folder:PATH": "train.data.sources.folders.folder:open_folder",
    "rotated:PATH": "train.data.sources.detection.rotated:open_rotated",
    "coco:PATH": "train.data.sources.detection.coco:open_coco",
    "dota:PATH": "train.data.sources.detection.dota:open_dota",
}


def open_source(
    config: DataConfig, split: str, max_examples: int | None = None
) -> Source:
    """Opens one split of a data set; images are decoded when asked for.

    Args:
        config: names the set, and says how it is read.
        split: "train", "test", another split that the set has, or `HELD_OUT`, the
            training images that `config.validation` leaves out of `config.train_split`
            (chosen by a hash of the images' names).
        max_examples: keep this many images, always the same; default all.

    Raises:
        NoSplitError: the set does not have the split.
        ValueError: an unknown name or split, or a set that breaks a rule.
    """
    for form, place in SOURCES.items():
        if _has_form(config.name, form):
            module, _, function = place.partition(":")
            opened = getattr(importlib.import_module(module), function)
            return opened(config, split, max_examples)
    raise ValueError(_unknown(config.name))


def _has_form(name: str, form: str) -> bool:
    (kind, _, rest), (known, colon, _) = name.partition(":"), form.partition(":")
    return kind == known and (bool(rest) if colon else name == form)


def _unknown(name: str) -> str:
    message = f"data.name must be one of {', '.join(SOURCES)}, got {name!r}."
    if name and Path(name).expanduser().is_dir():
        return f"{message} Did you mean 'folder:{name}'?"
    kind, colon, rest = name.partition(":")
    near = nearest(kind, [form.partition(":")[0] for form in SOURCES])
    if not near:
        return message
    return f"{message} Did you mean {near[0] + colon + rest!r}?"
