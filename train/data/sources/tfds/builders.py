"""Where a TFDS set lies, and what to do where it was not prepared."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

from cram_jax.checks import nearest
from train.config.data import DataConfig
from train.data.sources.locations import data_dir


def found_builder(tfds: Any, config: DataConfig) -> Any:
    """The builder of tfds:NAME[/CONFIG][:VERSION] in the first directory that has it.

    Raises:
        ValueError: TFDS does not know the set.
    """
    # TFDS recommends OpenCV by a warning at the first image.
    logging.getLogger("absl").addFilter(_not_about_opencv)
    for directory in _directories(config):
        builder = _builder(tfds, config.name.removeprefix("tfds:"), directory)
        if list(builder.info.splits):
            break
    return builder


def how_to_prepare(name: str, directory: str | Path) -> str:
    """What to type where a set was not prepared, as a sentence."""
    return (
        f"It must be prepared once as array_record: "
        f"pip install 'cram-jax[prepare]', then "
        f"tfds build {name} --file_format=array_record --data_dir={directory}"
    )


def _directories(config: DataConfig) -> list[str]:
    if config.data_dir is not None:
        return [str(data_dir(config))]
    own = os.environ.get("TFDS_DATA_DIR", str(Path.home() / "tensorflow_datasets"))
    return [own, str(data_dir(config))]


def _builder(tfds: Any, name: str, directory: str) -> Any:
    try:
        return tfds.builder(name, data_dir=directory)
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = nearest(name.split("/")[0], known, count=3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise ValueError(f"TFDS has no data set {name!r}{hint}") from error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"TFDS cannot read {name!r} here without {error.name}. "
            f"{how_to_prepare(name, directory)}"
        ) from error
    except ValueError as error:  # an unknown configuration; TFDS lists those it has
        raise ValueError(f"TFDS cannot open {name!r}: {error}") from error


def _not_about_opencv(record: logging.LogRecord) -> bool:
    return "OpenCV" not in record.getMessage()
