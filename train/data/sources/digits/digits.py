"""The embedded set `cluttered_digits` as a data source, prepared at first use."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import io
import logging
import shutil
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from train.data.sources.base import DatasetInfo, Example, NoSplitError, Source
from train.data.sources.digits import cluttered
from train.data.sources.holding_out import HELD_OUT, hold_out
from train.data.views import isotropic_to_pixel

_STALE_SECONDS = 24 * 3600.0

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class GeneratedDigits:
    """The images made as they are asked for, about 2 ms each; no files, no TFDS."""

    info: DatasetInfo
    stored_split: str
    positions: np.ndarray

    def __len__(self) -> int:
        """The number of images."""
        return self.info.num_examples

    def __getitem__(self, index: int) -> Example:
        """Makes one image."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}), got {index}.")
        position = int(self.positions[index])
        sample = cluttered.make_sample(self.stored_split, position)
        side = cluttered.SIDE
        rectangle = isotropic_to_pixel(sample.rectangle, side, side)
        return Example(sample.image[..., None], sample.label, rectangle)


def open_digits(split: str, *, data_dir: Path, **part: Any) -> Source:
    """The images of "train" (16,000), "test" (2,000), a slice of them, or `HELD_OUT`.

    Prepares the set in `data_dir` at first use, about 40 s; an interrupted
    preparation leaves nothing behind that would be taken for the set. Where TFDS is
    not installed the same images are made in memory instead, at every start; slices
    ("train[80%:]") are TFDS's.

    Args:
        split: which images.
        data_dir: where the set is kept.
        part: how many of them, and what is held out; see `from_builder`.
    """
    sizes = cluttered.SPLIT_SIZES
    if importlib.util.find_spec("tensorflow_datasets") is None:
        _log.warning("TFDS is not installed: making the digits in memory.")
        return _generated(split, **part)
    from train.data.sources.tfds.source import from_builder

    asked = {each.partition("[")[0] for each in split.split("+")}
    if not asked <= {*sizes, HELD_OUT}:  # before 40 s of preparation
        raise _no_split(split)
    builder = _prepared_builder(data_dir)
    return from_builder(builder, split, name="digits", **part)


def _no_split(split: str) -> NoSplitError:
    known = " and ".join(cluttered.SPLIT_SIZES)
    return NoSplitError(f"digits has no split {split!r}; it has {known}.")


def _generated(
    split: str,
    *,
    max_examples: int | None = None,
    train_split: str = "train",
    validation: float = 0.0,
) -> GeneratedDigits:
    held = split == HELD_OUT and validation > 0
    stored = train_split if held else split
    if stored not in cluttered.SPLIT_SIZES:
        raise _no_split(stored)
    positions = np.arange(cluttered.SPLIT_SIZES[stored])
    if validation > 0 and (held or split == train_split):
        labels = [cluttered.label_of(stored, int(index)) for index in positions]
        positions = hold_out([*map(str, positions)], labels, validation)[held]
    positions = positions[:max_examples]
    info = DatasetInfo(
        name="digits",
        split="validation" if held else split,
        class_names=cluttered.CLASS_NAMES,
        num_examples=len(positions),
        truth="rotated",
        channels=1,
        image_size=(cluttered.SIDE, cluttered.SIDE),
    )
    return GeneratedDigits(info, stored, positions)


def _prepared_builder(data_dir: Path):
    """The TFDS builder, its files in place; safe for several processes at once."""
    import tensorflow_datasets as tfds

    from train.data.sources.digits.builder import Builder

    builder = Builder(data_dir=data_dir, file_format="array_record")
    if builder.data_path.exists():
        return builder
    _log.warning("Preparing cluttered_digits in %s, once, about 40 s.", data_dir)
    _remove_stale(data_dir / "cluttered_digits")
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
        builder = Builder(data_dir=data_dir, file_format="array_record")
    return builder


def _remove_stale(folder: Path) -> None:
    """Removes what preparations killed long ago have left."""
    for left in folder.glob("incomplete.*"):
        if time.time() - left.stat().st_mtime > _STALE_SECONDS:
            shutil.rmtree(left, ignore_errors=True)
