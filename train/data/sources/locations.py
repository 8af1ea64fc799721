"""Where prepared data sets live."""

from __future__ import annotations

import os
from pathlib import Path


def default_data_dir() -> Path:
    """$CRAM_JAX_DATA, or ~/.cache/cram_jax."""
    chosen = os.environ.get("CRAM_JAX_DATA")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "cram_jax"
