"""The config of `fit`: a preset's, or the run's own, and what was typed."""

from __future__ import annotations

import dataclasses
import os.path
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import tyro

from train.commands.options.layerless import without_layer_options
from train.commands.options.parsing import (
    PROGRAM,
    at_home,
    check_options,
    give_help,
    take_preset,
    typed_options,
    typed_value,
)
from train.config.output import HostsConfig
from train.config.places import expanded
from train.config.presets import PRESETS, preset, summary
from train.config.run import FitConfig
from train.printing import say
from train.run import layout

Config = TypeVar("Config", bound=FitConfig)


def _fit_description() -> str:
    lines = [
        "Trains a network. Started again with the same work directory, it goes on",
        "from its newest checkpoint; options that are not given are then the run's",
        "own. A finished run goes on with more --epochs.",
        "",
        "--preset NAME starts from a named experiment; other options change it:",
        *(f"  {name}: {summary(name)}" for name in PRESETS),
        "",
        "Exit codes: 0 done, 2 wrong use, 3 loss not finite, 74 cannot write (full",
        "disk), 75 stopped by SIGTERM or SIGINT with everything saved: the same",
        "command goes on. A second signal stops at once.",
    ]
    return "\n".join(lines)


def parse_fit(arguments: Sequence[str]) -> FitConfig:
    """The config of `fit`.

    What is not typed comes from the preset, or without one from the run that the work
    directory holds.

    Raises:
      UserError: for an unknown preset or option, for a run whose config cannot be read,
        and for an option that needs another attention layer.
      SystemExit: from tyro, after its own message, for everything else.
    """
    name, rest = take_preset(arguments)
    check_options(FitConfig, rest)
    own = _own_config(rest) if name is None else None
    if own is not None:
        return _parsed(own, "fit", _fit_description(), rest)
    config = parse_training(FitConfig, "fit", _fit_description(), arguments)
    typed = {word.lstrip("-").replace("-", "_") for word in typed_options(rest)}
    config, given_up = without_layer_options(config, typed)
    if given_up and not config.output.quiet:
        say(
            f"Switched off, for model.attention {config.model.attention} cannot do what"
            f" the preset asks: {', '.join(given_up)}."
        )
    return config


def parse_training(
    kind: type[Config], command: str, description: str, arguments: Sequence[str]
) -> Config:
    """The config of a subcommand that trains anew: a preset's, and what was typed.

    Args:
      kind: `FitConfig` or a class built on it.
      command: name of the subcommand.
      description: what `--help` says about it.
      arguments: what was typed after it.

    Raises:
      UserError: as `parse_fit`.
    """
    name, rest = take_preset(arguments)
    check_options(kind, rest)
    values = {} if name is None else vars(preset(name))
    # No preset names a directory: each command has its own.
    default = kind(**{k: v for k, v in values.items() if k != "workdir"})
    return _parsed(default, command, description, rest)


def _parsed(
    default: Config, command: str, description: str, words: Sequence[str]
) -> Config:
    """The default, changed by what was typed."""
    kind = type(default)
    for each in dict.fromkeys((FitConfig, kind)):
        give_help(each)
    config = tyro.cli(
        kind,
        default=default,
        args=words,
        prog=f"{PROGRAM} {command}",
        description=description,
    )
    return at_home(config)


def _own_config(words: Sequence[str]) -> FitConfig | None:
    """The config of the run in the work directory, if there is one to go on with.

    A directory whose run has no checkpoint yet counts if nothing else is typed.
    """
    workdir = Path(expanded(str(typed_value(words, "--workdir") or FitConfig.workdir)))
    if (
        "--help" in words
        or "-h" in words
        or not os.path.isfile(workdir / layout.CONFIG)
    ):
        return None
    # Here, for they import jax.
    from train.run.checkpoints.reading import saved_steps
    from train.run.workdir import load_config

    if not saved_steps(workdir) and typed_options(words) != ["--workdir"]:
        return None
    # With whom work is shared is a matter of each start.
    return dataclasses.replace(load_config(workdir), hosts=HostsConfig())
