"""The embedded set `many_digits` as a data source, prepared at first use."""

from __future__ import annotations

from train.config.data import DataConfig
from train.data.sources.base import Source
from train.data.sources.digits import many
from train.data.sources.digits.preparing import open_embedded


def open_many_digits(
    config: DataConfig, split: str, max_examples: int | None = None
) -> Source:
    """The images of "train" (4,000), "test" (1,000), a slice of them, or `HELD_OUT`.

    Prepares the set at first use, about 20 s; see `open_embedded`.

    Args:
        config: says where the set is kept, and what is held out.
        split: which images.
        max_examples: the first so many.
    """
    return open_embedded(
        _builder, config, split, max_examples, splits=many.SPLIT_SIZES, seconds=20
    )


def _builder():
    from train.data.sources.digits.many_builder import Builder

    return Builder
