"""Reading back the record of a run: its config, and what its network takes."""

from __future__ import annotations

import dataclasses
import json
import shlex
import typing
from pathlib import Path
from typing import Any

from train.config.differences import flat, is_free
from train.config.run import FitConfig, to_dict
from train.data.facts import Facts
from train.errors import UserError
from train.run import layout


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
    path = workdir / layout.CONFIG
    if not path.exists():
        raise UserError(
            f"{workdir} is not the work directory of a run: it has no {layout.CONFIG}."
        )
    values = _read(path)
    known = to_dict(FitConfig())
    sections = {name for name, value in known.items() if isinstance(value, dict)}
    unknown = [name for name in flat(values) if name not in flat(known)]
    unknown = [name for name in unknown if not is_free(name)]
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
        path = workdir / layout.CONFIG
        raise UserError(f"{path} does not fit this version: {error}") from error
    return dataclasses.replace(config, workdir=workdir)


def load_inputs(workdir: Path) -> Facts:
    """What the network of a run takes and gives.

    Raises:
      UserError: if the file is missing or damaged.
    """
    path = workdir / layout.INPUTS
    values = _read(path)
    try:
        inputs = _from_dict(Facts, values)
        sides = [int(side) for side in inputs.image_shape]
        names = [str(name) for name in (*inputs.class_names, *inputs.categories)]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path} does not fit this version: {error}") from error
    one_word = str in (type(inputs.class_names), type(inputs.categories))
    if len(sides) != 3 or one_word or not names:
        raise UserError(f"{path} is damaged: it names no image shape or no classes.")
    return inputs


def command_to_go_on(config: FitConfig) -> str:
    """What to type to go on with a run, with the config that it keeps."""
    return f"python -m train fit --workdir {shlex.quote(str(config.workdir))}"
