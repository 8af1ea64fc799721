"""In what two configs differ, and whether a run may go on with another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

from train.config.run import FitConfig, to_dict

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


def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Fields by their dotted name, as in `optimizer.learning_rate`."""
    fields = {}
    for name, value in values.items():
        if isinstance(value, dict):
            fields |= flat(value, f"{prefix}{name}.")
        else:
            fields[f"{prefix}{name}"] = value
    return fields


def is_free(name: str) -> bool:
    """Whether a field may differ between two starts of one run."""
    return any(name == each or name.startswith(f"{each}.") for each in _FREE)


def differing_fields(configs: Sequence[dict[str, Any]]) -> list[str]:
    """Names of the fields that matter and are not the same in all configs."""
    flats = [flat(config) for config in configs]
    names = sorted(set().union(*flats))
    return [
        name
        for name in names
        if not is_free(name)
        and any(each.get(name) != flats[0].get(name) for each in flats)
    ]


class Difference(NamedTuple):
    """A field that has another value than before; as text "name: old, now new".

    Attributes:
      name: the field's name, with its section.
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
    old, new = flat(to_dict(FitConfig())) | flat(old), flat(new)
    names = differing_fields([old, new])
    return [Difference(name, old.get(name), new.get(name)) for name in names]


def extended(old: FitConfig, new: FitConfig) -> FitConfig:
    """The new config of a run of `old`; where it has more epochs, it says since when.

    `earlier_epochs` is filled in unless it was given: (5.0,) where a run of 5 epochs is
    to have 10, and the same where that is typed again.
    """
    if new.earlier_epochs not in ((), old.earlier_epochs) or new.epochs < old.epochs:
        return new
    ends = (*old.earlier_epochs, old.epochs)
    earlier = ends if new.epochs > old.epochs else old.earlier_epochs
    return dataclasses.replace(new, earlier_epochs=earlier)


def is_extension(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Whether the new config trains as the old one does, and perhaps for longer.

    Only the number of epochs is looked at, of configs as plain values.
    """
    before, now = _ends(old), _ends(new)
    if now[:-1] in ([], before[:-1]):  # as it is typed: `extended` fills in the others
        return now[-1] >= before[-1]
    return now[: len(before)] == before


def _ends(config: dict[str, Any]) -> list[float]:
    """The epochs at which a run was to end, in order."""
    return [*config.get("earlier_epochs", ()), config.get("epochs", FitConfig.epochs)]
