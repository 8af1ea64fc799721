"""The work directory's own record: which config made it."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from train.config.run import FitConfig, to_dict
from train.data.facts import Facts
from train.errors import UserError
from train.run.checkpoints.reading import DIRECTORY
from train.run.checkpoints.store import BROKEN, SCORES
from train.run.metric_log import METRICS_FILE, TENSORBOARD

CONFIG_FILE = "config.json"
INPUTS_FILE = "inputs.json"
RESULT_FILE = "result.json"

# What a run writes, besides its config: where one of them is, a run was.
OWN_FILES = (
    DIRECTORY,
    BROKEN,
    SCORES,
    INPUTS_FILE,
    METRICS_FILE,
    RESULT_FILE,
    TENSORBOARD,
    "pictures",
    "looking.gif",
    "profile",
)

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


class Difference(NamedTuple):
    """A field that has another value than before; as text "name: old, now new".

    Attributes:
      name: of the field, with its section.
      old: value of the run.
      new: value of this start.
    """

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name}: {self.old!r}, now {self.new!r}"


def differences(old: dict[str, Any], new: dict[str, Any]) -> list[Difference]:
    """Fields that differ and may not.

    A field that is newer than the run of `old` counts with its default, which is what
    that run did.
    """
    old, new = _flat(to_dict(FitConfig())) | _flat(old), _flat(new)
    names = differing_fields([old, new])
    return [Difference(name, old.get(name), new.get(name)) for name in names]


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    if not isinstance(values, dict) or not values:
        raise UserError(f"{path} cannot be read: it holds no fields.")
    return values


def read_config(workdir: Path) -> dict[str, Any]:
    """The config of a run as plain values.

    Raises:
      UserError: if it is missing or damaged, or a newer version wrote it.
    """
    path = workdir / CONFIG_FILE
    if not path.exists():
        raise UserError(
            f"{workdir} is not the work directory of a run: it has no {CONFIG_FILE}."
        )
    values = _read(path)
    known = to_dict(FitConfig())
    sections = {name for name, value in known.items() if isinstance(value, dict)}
    unknown = [name for name in _flat(values) if name not in _flat(known)]
    unknown = [name for name in unknown if not _is_free(name)]
    unknown += [name for name in sections if not isinstance(values.get(name, {}), dict)]
    if unknown:
        raise UserError(
            f"{path} does not fit this version, which does not know"
            f" {', '.join(unknown)}: a newer version of the program wrote it, or it is"
            " not the config of a run."
        )
    return values


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
    values = read_config(workdir)
    try:
        config = _from_dict(FitConfig, values)
    except (TypeError, ValueError) as error:
        path = workdir / CONFIG_FILE
        raise UserError(f"{path} does not fit this version: {error}") from error
    return dataclasses.replace(config, workdir=workdir)


def load_inputs(workdir: Path) -> Facts:
    """What the network of a run takes and gives.

    Raises:
      UserError: if the file is missing or damaged.
    """
    path = workdir / INPUTS_FILE
    values = _read(path)
    try:
        inputs = _from_dict(Facts, values)
        sides = [int(side) for side in inputs.image_shape]
        names = [str(name) for name in inputs.class_names]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} does not fit this version: {error}") from error
    if len(sides) != 3 or isinstance(inputs.class_names, str) or not names:
        raise UserError(f"{path} is damaged: it names no image shape or no classes.")
    return inputs
