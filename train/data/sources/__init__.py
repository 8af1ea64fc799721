"""Data sources by name: embedded digits, TFDS sets, folders, files of objects."""

from train.data.sources.base import (
    DatasetInfo,
    Example,
    NoSplitError,
    Objects,
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
    "Objects",
    "Source",
    "Truth",
    "UnreadableImageError",
    "default_data_dir",
    "open_source",
]
