"""The work directory's own record: which config made it."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from train.checkpoints import DIRECTORY
from train.config import FitConfig, to_dict
from train.errors import CannotWriteError, UserError
from train.experiment import Inputs
from train.records import write_json

CONFIG_FILE = "config.json"
INPUTS_FILE = "inputs.json"

# What may differ between two starts of one run: none of it changes the result, but
# for roundings of `parallel`.
_FREE = (
    "workdir",
    "parallel",
    "output",
    "checkpoint",
    "hosts",
    "data.data_dir",
    "data.workers",
    "data.threads",
    "data.memory_limit_mb",
)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for name, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _is_free(name: str) -> bool:
    return any(name == each or name.startswith(f"{each}.") for each in _FREE)


def differing_fields(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the fields that matter and are not the same in all configs."""
    flats = [_flat(config) for config in configs]
    names = sorted(set().union(*flats))
    return [
        name
        for name in names
        if not _is_free(name)
        and any(flat.get(name) != flats[0].get(name) for flat in flats)
    ]


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Fields that differ and may not, as "name: old, now new".

    A field that is newer than the run of `old` counts with its default, which is what
    that run did.
    """
    old, new = _flat(to_dict(FitConfig())) | _flat(old), _flat(new)
    names = differing_fields([old, new])
    return [f"{name}: {old.get(name)!r}, now {new.get(name)!r}" for name in names]


def claim(config: FitConfig, inputs: Inputs, *, write: bool) -> None:
    """Makes the work directory, or checks that it belongs to the same config.

    Args:
      config: of the run that starts.
      inputs: of its data set, kept so that `predict` needs no data set.
      write: whether this process is the one that writes.

    Raises:
      UserError: if the directory holds a run of another config.
      CannotWriteError: if it cannot be made or written.
    """
    path = config.workdir / CONFIG_FILE
    if path.exists() and _has_checkpoints(config.workdir):
        found = differences(_read(path), to_dict(config))
        if found:
            raise UserError(
                f"{config.workdir} holds a run of another config:\n  "
                + "\n  ".join(found)
                + "\nGive the old values to go on with it, or another --workdir."
            )
    if not write:
        return
    try:
        config.workdir.mkdir(parents=True, exist_ok=True)
        write_json(path, to_dict(config))
        write_json(config.workdir / INPUTS_FILE, dataclasses.asdict(inputs))
    except OSError as error:
        raise CannotWriteError(
            f"The work directory {config.workdir} cannot be written: {error.strerror}."
        ) from error


def _has_checkpoints(workdir: Path) -> bool:
    return any(each.name.isdigit() for each in (workdir / DIRECTORY).glob("*"))


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error


def _from_dict(kind: type, values: dict[str, Any]) -> Any:
    hints = typing.get_type_hints(kind)
    known = {}
    for item in dataclasses.fields(kind):
        if item.name not in values:
            continue  # A field newer than the run: its default is what the run did.
        value = values[item.name]
        if isinstance(value, dict):
            value = _from_dict(hints[item.name], value)
        elif isinstance(value, list):
            value = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        elif hints[item.name] is Path:
            value = Path(value)
        known[item.name] = value
    return kind(**known)


def load_config(workdir: Path) -> FitConfig:
    """The config of a run.

    Raises:
      UserError: if there is none, or this version does not understand it.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{workdir} is not the work directory of a run: it has no {CONFIG_FILE}."
        )
    values = _read(path)
    try:
        config = _from_dict(FitConfig, values)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} does not fit this version: {error}") from error
    return dataclasses.replace(config, workdir=workdir)


def load_inputs(workdir: Path) -> Inputs:
    """What the network of a run takes and gives.

    Raises:
      UserError: if the file is missing or damaged.
    """
    path = workdir / INPUTS_FILE
    try:
        return _from_dict(Inputs, _read(path))
    except TypeError as error:
        raise UserError(f"{path} does not fit this version: {error}") from error
