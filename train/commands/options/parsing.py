"""From words on the command line to a record of options; tyro does most of it."""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from train.config.places import expanded
from train.config.presets import PRESETS
from train.errors import UserError

PROGRAM = "python -m train"


def take_preset(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Takes `--preset NAME` out of the arguments: tyro gets the others."""
    rest, name, position = [], None, 0
    arguments = list(arguments)
    while position < len(arguments):
        word = arguments[position]
        if word == "--preset":
            if position + 1 == len(arguments):
                raise UserError("--preset needs a name: " + ", ".join(PRESETS) + ".")
            position += 1
            name = arguments[position]
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
        position += 1
    return name, rest


def typed_options(words: Sequence[str]) -> list[str]:
    """The names of options among words, `--output.log-every` however it is written."""
    names = [word.partition("=")[0] for word in words if word.startswith("--")]
    return [name.replace("_", "-") for name in names]


def typed_value(words: Sequence[str], option: str) -> str | None:
    """The last value of an option among words, in either spelling; None without one."""
    found = None
    for position, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name == option:
            following = words[position + 1 : position + 2]
            found = value if equals else next(iter(following), None)
    return found


def option_names(kind: type[Any], prefix: str = "") -> list[str]:
    """All options of a config class: `--optimizer.learning-rate`, ..."""
    names = []
    for item in dataclasses.fields(kind):
        name = item.name.replace("_", "-")
        if dataclasses.is_dataclass(item.default_factory):
            names += option_names(item.default_factory, f"{prefix}{name}.")
            continue
        names.append(f"--{prefix}{name}")
        if item.type in ("bool", bool):
            names.append(f"--{prefix}no-{name}")
    return names


def check_options(kind: type[Any], arguments: Sequence[str]) -> None:
    """Refuses an unknown option with the one that was probably meant.

    tyro suggests too, but only for small slips in a full name; most people forget
    the section, as in `--learning-rate`.
    """
    known = [*option_names(kind), "--help", "--preset"]
    by_last = {name.rpartition(".")[2].lstrip("-"): name for name in known}
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if not name.startswith("--") or name in known:
            continue
        # Here, so that `--help` need not import jax.
        from cram_jax.checks import nearest

        last = name.rpartition(".")[2].lstrip("-")
        near = [by_last[each] for each in nearest(last, by_last, cutoff=0.8)]
        near = nearest(name, known, cutoff=0.85) or near
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"Unknown option {name}.{hint} See --help for all.")


@functools.cache
def field_sentences(kind: type[Any]) -> dict[str, str]:
    """The text under each field of a config class, on one line, by field."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    sentences = {}
    for field, text in itertools.pairwise(definition.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                sentences[name] = " ".join(words.split())
    return sentences


def give_help(kind: type[Any]) -> None:
    """Hands tyro each field's text; by itself it keeps line breaks of the source."""
    sentences = field_sentences(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.default_factory):
            give_help(item.default_factory)
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name in sentences:
            help_text = tyro.conf.arg(help=sentences[name])
            kind.__annotations__[name] = Annotated[hint, help_text]


def parse(kind: type[Any], command: str, arguments: Sequence[str]) -> Any:
    """The config of any other subcommand; raises as `parse_fit`."""
    check_options(kind, arguments)
    give_help(kind)
    config = tyro.cli(kind, args=list(arguments), prog=f"{PROGRAM} {command}")
    return at_home(config)


def at_home(config: Any) -> Any:
    """The config with `~` replaced in its paths: no shell does it in --option=~/x."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        match getattr(config, item.name):
            case Path() as path:
                changes[item.name] = Path(expanded(str(path)))
            case (Path(), *_) as paths:
                changes[item.name] = tuple(Path(expanded(str(each))) for each in paths)
    return dataclasses.replace(config, **changes)
