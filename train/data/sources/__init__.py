"""Data sources by name: embedded digits, prepared TFDS sets, folders of images."""

from train.data.sources.base import (
    DatasetInfo,
    Example,
    NoSplitError,
    Source,
    Truth,
    UnreadableImageError,
)
from train.data.sources.locations import default_data_dir
from train.data.sources.opening import open_source

__all__ = [
    "DatasetInfo",
    "Example",
    "NoSplitError",
    "Source",
    "Truth",
    "UnreadableImageError",
    "default_data_dir",
    "open_source",
]
