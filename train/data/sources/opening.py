"""A data source by its name in the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cram_jax.checks import nearest
from train.data.sources.base import Source
from train.data.sources.locations import default_data_dir

NAMES = ("digits", "tfds:NAME[/CONFIG]", "folder:PATH")


def open_source(
    name: str,
    split: str,
    *,
    data_dir: str | Path | None = None,
    max_examples: int | None = None,
    boxes_file: str = "boxes.csv",
    box_max_inside: bool = False,
    on_bad_image: str = "raise",
    train_split: str = "train",
    validation: float = 0.0,
) -> Source:
    """Opens one split of a data set; images are decoded when asked for.

    Args:
        name: "digits", "tfds:NAME[/CONFIG]" or "folder:PATH".
        split: "train", "test", another split that the set has, or `HELD_OUT`.
        data_dir: where prepared sets live; default `default_data_dir()`.
        max_examples: keep this many images, always the same; default all.
        boxes_file: for folders, the CSV of boxes.
        box_max_inside: for folders, xmax and ymax are the last pixel inside the box.
        on_bad_image: for folders, "skip" passes over boxes of images not there.
        train_split: the split that is trained on.
        validation: share of each of its classes that is left out of `train_split` and
            makes the split `HELD_OUT`; chosen by a hash of the images' names.

    Raises:
        NoSplitError: the set does not have the split.
        ValueError: an unknown name or split, or a set that breaks a rule.
    """
    if max_examples is not None and max_examples < 1:
        raise ValueError(f"max_examples must be >= 1, got {max_examples}.")
    kind, _, rest = name.partition(":")
    part: dict[str, Any] = {
        "max_examples": max_examples,
        "train_split": train_split,
        "validation": validation,
    }
    if name == "digits":
        from train.data.sources.digits.digits import open_digits

        directory = Path(data_dir).expanduser() if data_dir else default_data_dir()
        return open_digits(split, data_dir=directory, **part)
    if kind == "tfds" and rest:
        from train.data.sources.tfds.source import open_tfds

        directory = None if data_dir is None else str(data_dir)
        return open_tfds(rest, split, data_dir=directory, **part)
    if kind == "folder" and rest:
        from train.data.sources.folders.folder import open_folder

        return open_folder(
            Path(rest).expanduser(),
            split,
            boxes_file=boxes_file,
            box_max_inside=box_max_inside,
            on_bad_image=on_bad_image,
            **part,
        )
    raise ValueError(_unknown(name))


def _unknown(name: str) -> str:
    message = f"data.name must be one of {', '.join(NAMES)}, got {name!r}."
    if name and Path(name).expanduser().is_dir():
        return f"{message} Did you mean 'folder:{name}'?"
    kind, colon, rest = name.partition(":")
    near = nearest(kind, ("digits", "tfds", "folder"))
    if not near:
        return message
    return f"{message} Did you mean {near[0] + colon + rest!r}?"
