"""Runs that belong together, and what they are called."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.commands.report.runs import Run
from train.config.differences import differing_fields
from train.printing import printable

_LONGEST_NAME = 28


@dataclass(frozen=True)
class Group:
    """Runs whose configs differ in the seed only.

    Attributes:
      name: a short one, no other group's.
      members: the runs' names, in their order.
      config: what makes their config differ from that of other groups; "" for one.
      runs: themselves.
    """

    name: str
    members: tuple[str, ...]
    config: str
    runs: tuple[Run, ...]


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Runs by what makes their configs differ from one another, seeds aside."""
    fields = differing_fields([run.config for run in runs])
    names = dict(zip(runs, short_names([run.workdir for run in runs]), strict=True))
    found: dict[str, list[Run]] = {}
    for run in runs:
        parts = [f"{name}={_value(run.config, name)}" for name in fields]
        found.setdefault(", ".join(parts), []).append(run)
    members = [tuple(names[run] for run in alike) for alike in found.values()]
    shown = _distinct([_common_name(each) for each in members], members)
    return [
        Group(name, each, config, tuple(alike))
        for name, each, (config, alike) in zip(
            shown, members, found.items(), strict=True
        )
    ]


def short_names(workdirs: Sequence[Path]) -> list[str]:
    """The end of each path that tells it from the others, most often its last part."""
    whole = [workdir.absolute().parts for workdir in workdirs]

    def name(parts: tuple[str, ...]) -> str:
        ends = (parts[-count:] for count in range(1, len(parts)))
        own = (end for end in ends if sum(e[-len(end) :] == end for e in whole) == 1)
        return printable("/".join(next(own, parts)))

    return [name(parts) for parts in whole]


def _common_name(members: Sequence[str]) -> str:
    """What the names begin with, without the number of the seed; "" if nothing."""
    if len(members) == 1:
        return members[0]
    alike = itertools.takewhile(
        lambda letters: len(set(letters)) == 1, zip(*members, strict=False)
    )
    return "".join(letters[0] for letters in alike).rstrip("0123456789-_. ")


def _distinct(names: Sequence[str], members: Sequence[Sequence[str]]) -> list[str]:
    """Names that are short, and no two the same: else letters stand before them."""
    full = [
        name or f"{each[0]} and {len(each) - 1} more"
        for name, each in zip(names, members, strict=True)
    ]
    short = [
        name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…"
        for name in full
    ]
    if len(set(short)) == len(short):
        return short
    return [f"{number}: {name}" for number, name in enumerate(short, start=1)]


def _value(config: dict[str, Any], name: str) -> str:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return printable(json.dumps(value, ensure_ascii=False))
