"""The embedded set `cluttered_digits` as a data source, prepared at first use."""

from __future__ import annotations

import contextlib
import io
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from train.config.data import DataConfig
from train.data.sources.base import NoSplitError, Source
from train.data.sources.digits import cluttered
from train.data.sources.holding_out import HELD_OUT
from train.data.sources.locations import data_dir
from train.errors import package

_STALE_SECONDS = 24 * 3600.0

_log = logging.getLogger(__name__)


def open_digits(
    config: DataConfig, split: str, max_examples: int | None = None
) -> Source:
    """The images of "train" (16,000), "test" (2,000), a slice of them, or `HELD_OUT`.

    Prepares the set at first use, about 40 s; an interrupted preparation leaves
    nothing behind that would be taken for the set.

    Args:
        config: says where the set is kept, and what is held out.
        split: which images.
        max_examples: the first so many.
    """
    tfds = package("tensorflow_datasets", "data.name = digits")
    from train.data.sources.tfds.source import from_builder

    asked = {each.partition("[")[0] for each in split.split("+")}
    if not asked <= {*cluttered.SPLIT_SIZES, HELD_OUT}:  # before 40 s of preparation
        raise _no_split(split)
    builder = _prepared_builder(tfds, data_dir(config))
    return from_builder(builder, config, split, max_examples)


def _no_split(split: str) -> NoSplitError:
    known = " and ".join(cluttered.SPLIT_SIZES)
    return NoSplitError(f"digits has no split {split!r}; it has {known}.")


def _prepared_builder(tfds: Any, directory: Path) -> Any:
    """The TFDS builder, its files in place; safe for several processes at once."""
    from train.data.sources.digits.builder import Builder

    builder = Builder(data_dir=directory, file_format="array_record")
    if builder.data_path.exists():
        return builder
    _log.warning("Preparing cluttered_digits in %s, once, about 40 s.", directory)
    _remove_stale(directory / "cluttered_digits")
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
        builder = Builder(data_dir=directory, file_format="array_record")
    return builder


def _remove_stale(folder: Path) -> None:
    """Removes what preparations killed long ago have left."""
    for left in folder.glob("incomplete.*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
