"""The embedded set `cluttered_digits` as a data source, prepared at first use."""

from __future__ import annotations

from train.config.data import DataConfig
from train.data.sources.base import Source
from train.data.sources.digits import cluttered
from train.data.sources.digits.preparing import open_embedded


def open_digits(
    config: DataConfig, split: str, max_examples: int | None = None
) -> Source:
    """The images of "train" (16,000), "test" (2,000), a slice of them, or `HELD_OUT`.

    Prepares the set at first use, about 40 s; see `open_embedded`.

    Args:
        config: says where the set is kept, and what is held out.
        split: which images.
        max_examples: the first so many.
    """
    return open_embedded(
        _builder, config, split, max_examples, splits=cluttered.SPLIT_SIZES, seconds=40
    )


def _builder():
    from train.data.sources.digits.builder import Builder

    return Builder
