"""A data source by its name in the configuration."""

from __future__ import annotations

from pathlib import Path

from cram_jax.checks import nearest
from train.config.data import DataConfig
from train.data.sources.base import Source

NAMES = ("digits", "tfds:NAME[/CONFIG]", "folder:PATH")


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
    kind, _, rest = config.name.partition(":")
    if config.name == "digits":
        from train.data.sources.digits.digits import open_digits as opened
    elif kind == "tfds" and rest:
        from train.data.sources.tfds.source import open_tfds as opened
    elif kind == "folder" and rest:
        from train.data.sources.folders.folder import open_folder as opened
    else:
        raise ValueError(_unknown(config.name))
    return opened(config, split, max_examples)


def _unknown(name: str) -> str:
    message = f"data.name must be one of {', '.join(NAMES)}, got {name!r}."
    if name and Path(name).expanduser().is_dir():
        return f"{message} Did you mean 'folder:{name}'?"
    kind, colon, rest = name.partition(":")
    near = nearest(kind, ("digits", "tfds", "folder"))
    if not near:
        return message
    return f"{message} Did you mean {near[0] + colon + rest!r}?"
