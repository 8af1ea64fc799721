"""The one way to refuse a value of a config: what must hold, and what came."""

from __future__ import annotations

import re
import typing
from collections.abc import Callable, Iterable
from typing import Any


def require(holds: bool, rule: str, value: Any) -> None:
    """Raises ValueError, "RULE, got VALUE.", unless the rule holds."""
    if not holds:
        raise ValueError(f"{rule}, got {value!r}.")


def require_fields(
    section: Any,
    prefix: str,
    names: Iterable[str],
    accept: Callable[[Any], bool],
    must: str,
) -> None:
    """Refuses the first of some fields that is not as it must; None always passes.

    Args:
      section: a config.
      prefix: name of the section, as in its options; "" for the whole config.
      names: the fields to check.
      accept: which values are right.
      must: what `accept` asks for, in words that follow "must".

    Raises:
      ValueError: names the field, with its section.
    """
    for name in names:
        value = getattr(section, name)
        holds = value is None or bool(accept(value))
        require(holds, f"{prefix}.{name}".lstrip(".") + f" must {must}", value)


def require_choices(section: Any, prefix: str) -> None:
    """Refuses a value that is none of those that its field's type lists.

    The command line checks that too; a config made in Python or read from a file has
    nobody else to do it.
    """
    for name, hint in typing.get_type_hints(type(section)).items():
        if choices := _choices(hint):
            must = f"be one of {', '.join(map(repr, choices))}"
            require_fields(section, prefix, [name], choices.__contains__, must)


def _choices(hint: Any) -> tuple[Any, ...]:
    """The values of `Literal[...]`, or of `Literal[...] | None`; else none."""
    if typing.get_origin(hint) is typing.Literal:
        return typing.get_args(hint)
    return sum(map(_choices, typing.get_args(hint)), ())


def require_pattern(name: str, pattern: str) -> None:
    """Raises ValueError unless the text is a regular expression."""
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{name} must be a regular expression; {pattern!r} is not: {error}."
        ) from error
