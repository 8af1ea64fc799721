"""Where prepared data sets live."""

from __future__ import annotations

import os
from pathlib import Path

from train.config.data import DataConfig
from train.config.places import expanded


def default_data_dir() -> Path:
    """$CRAM_JAX_DATA, or ~/.cache/cram_jax."""
    chosen = os.environ.get("CRAM_JAX_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "cram_jax"


def data_dir(config: DataConfig) -> Path:
    """The directory that the config names, or the default one."""
    if config.data_dir is None:
        return default_data_dir()
    return Path(expanded(config.data_dir))
