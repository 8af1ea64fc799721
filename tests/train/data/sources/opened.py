"""A source opened by the name of its set, for tests."""

from __future__ import annotations

import os
from typing import Any

from train.config.data import DataConfig
from train.data.sources import Source, open_source


def opened(
    name: str, split: str, *, max_examples: int | None = None, **options: Any
) -> Source:
    """One split of a set; `options` are fields of `DataConfig`."""
    if "data_dir" in options:
        options["data_dir"] = os.fspath(options["data_dir"])
    return open_source(DataConfig(name, **options), split, max_examples)
