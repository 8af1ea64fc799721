"""An embedded set is prepared at first use, by its TFDS builder."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import time
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from train.config.data import DataConfig
from train.data.sources.base import NoSplitError, Source
from train.data.sources.holding_out import HELD_OUT
from train.data.sources.locations import data_dir
from train.errors import package

_STALE_SECONDS = 24 * 3600.0

_log = logging.getLogger(__name__)


def open_embedded(
    load_builder: Callable[[], Callable[..., Any]],
    config: DataConfig,
    split: str,
    max_examples: int | None,
    *,
    splits: Collection[str],
    seconds: int,
) -> Source:
    """A split of an embedded set, a slice of one, or `HELD_OUT`.

    An interrupted preparation leaves nothing behind that would be taken for the set.

    Args:
        load_builder: imports the class of its TFDS builder.
        config: says where the set is kept, and what is held out.
        split: which images.
        max_examples: the first so many.
        splits: names of the splits that the set has.
        seconds: how long it takes to prepare, for the message.

    Raises:
        NoSplitError: before anything is prepared, if the set has no such split.
    """
    tfds = package("tensorflow_datasets", f"data.name = {config.name}")
    from train.data.sources.tfds.source import from_builder

    asked = {each.partition("[")[0] for each in split.split("+")}
    if not asked <= {*splits, HELD_OUT}:
        known = " and ".join(splits)
        raise NoSplitError(f"{config.name} has no split {split!r}; it has {known}.")
    builder = _prepared(tfds, load_builder(), data_dir(config), seconds)
    return from_builder(builder, config, split, max_examples)


def _prepared(
    tfds: Any, make_builder: Callable[..., Any], directory: Path, seconds: int
) -> Any:
    """The TFDS builder, its files in place; safe for several processes at once."""
    builder = make_builder(data_dir=directory, file_format="array_record")
    if builder.data_path.exists():
        return builder
    name = builder.name
    _log.warning("Preparing %s in %s, once, about %d s.", name, directory, seconds)
    _remove_stale(directory / name)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # TFDS writes elsewhere and renames at the end, so a set is whole or absent.
        # It prints that it downloads, which it does not.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(file_format="array_record")
    except OSError:
        # Another process may have been faster; its images are the same.
        if not builder.data_path.exists():
            raise
        builder = make_builder(data_dir=directory, file_format="array_record")
    return builder


def _remove_stale(folder: Path) -> None:
    """Removes what preparations killed long ago have left."""
    for left in folder.glob("incomplete.*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
