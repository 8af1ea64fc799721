"""Splits of TFDS sets: names, slices as in "train[80%:]", and what there is instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.data.sources.base import NoSplitError
from train.data.sources.memory import say_once


def stored_name(splits: Mapping[str, Any], split: str, name: str) -> str:
    """The set's name for a split; "test" may be its only validation split.

    Args:
        splits: the set's, by name. A set that is not prepared yet has none; opening
            it says so.
        split: a name, a slice, or a sum of them.
        name: what messages call the set.

    Raises:
        NoSplitError: the set has no such split, or it is written wrongly.
    """
    if not splits or split in splits:
        return split
    if split == "test" and "validation" in splits:
        return "validation"
    parts = [part.partition("[")[0].strip() for part in split.split("+")]
    missing = [part for part in parts if part not in splits and part != "all"]
    if missing:
        raise NoSplitError(
            f"{name} has no split {missing[0]!r}; it has {', '.join(splits)}."
            + _advice(splits)
        )
    try:
        _ranges(splits, split)
    except (ValueError, AssertionError) as error:
        raise NoSplitError(
            f"{name} has no images {split!r}; a slice is written as {parts[0]}[80%:] or"
            f" {parts[0]}[:5000], within the images that {parts[0]} has."
        ) from error
    return split


def label_hint(splits: list[str], split: str) -> str:
    """How to go on where a split has no labels; the end of a sentence."""
    # Of a set that is mocked or not prepared the splits are unknown.
    if split != "validation" and (not splits or "validation" in splits):
        return "; evaluate on another split, as by --data.eval-split validation"
    return "; hold training images out instead" + _slices(splits)


def _advice(splits: Mapping[str, Any]) -> str:
    if len(splits) > 1 and "train" not in splits:
        return ""
    return " Hold training images out" + _slices(list(splits)) + "."


def _slices(splits: list[str]) -> str:
    train = "train" if "train" in splits or not splits else splits[0]
    return (
        f": --data.train-split {train}[:80%] --data.eval-split {train}[80%:], or"
        " --data.validation 0.2 --data.eval-split validation"
    )


def name_shared_images(
    splits: Mapping[str, Any], split: str, train_split: str, name: str
) -> None:
    """Says so, once, if images that are trained on are also evaluated on."""
    if not splits or split == train_split:
        return
    try:
        ranges = [_ranges(splits, each) for each in (split, train_split)]
    except (ValueError, AssertionError):  # of `train_split`; opening it says so
        return
    shared = any(
        part == other and max(low, start) < min(high, end)
        for part, low, high in ranges[0]
        for other, start, end in ranges[1]
    )
    if shared:
        say_once(
            f"Some images of {name} {split} are also in its training split"
            f" {train_split}: scores on them are no scores on new images. Another"
            " training split is chosen by --data.train-split."
        )


def _ranges(splits: Mapping[str, Any], split: str) -> list[tuple[str, int, int]]:
    """(stored split, first, end) of each part of a split."""
    from tensorflow_datasets import core

    return [
        (
            part.splitname,
            part.from_ or 0,
            splits[part.splitname].num_examples if part.to is None else part.to,
        )
        for part in core.ReadInstruction.from_spec(split).to_absolute(splits)
    ]
