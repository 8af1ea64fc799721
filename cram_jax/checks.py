"""Arguments refused in one sentence: what must hold, what came, what to do."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def known(value: Any) -> np.ndarray | None:
    """The value as a numpy array; None while it is traced, or spread over hosts."""
    if isinstance(value, Tracer):
        return None
    if isinstance(value, jax.Array):
        return jax.device_get(value) if value.is_fully_addressable else None
    try:
        return np.asarray(value)
    except ValueError:  # a ragged list
        return np.asarray(None)


def check_number(
    name: str,
    value: Any,
    accept: Callable[[np.ndarray], Any],
    must: str,
    hint: str = "",
) -> None:
    """Refuses a number, or an array of numbers, that is known now and not as it must.

    Python's numbers, NumPy's and JAX's are all checked; a traced value is let through.

    Args:
      name: how the argument is called.
      value: what was given.
      accept: which finite numbers are right, `[...] -> [...]` bool.
      must: what `accept` asks for, in words that follow "must".
      hint: a sentence's end that tells what would be right.

    Raises:
      ValueError: for anything that is not a number (a bool, a string), for NaN and
        infinity, and where `accept` is False.
    """
    if isinstance(value, Tracer):
        dtype, numbers = value.dtype, None
    else:
        numbers = known(value)
        if numbers is None:
            return
        dtype = numbers.dtype
    end = f"; {hint}" if hint else ""
    kinds = (jnp.floating, jnp.integer)
    if not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        shown = f"a traced {dtype}" if numbers is None else repr(value)
        raise ValueError(f"{name} must {must}, got {shown}, which is no number{end}.")
    if numbers is None:
        return
    numbers = np.asarray(numbers, np.float64)
    if not (np.isfinite(numbers) & accept(numbers)).all():
        raise ValueError(f"{name} must {must}, got {value}{end}.")


def check_count(name: str, value: Any, least: int = 1, hint: str = "") -> None:
    """Refuses what is no whole number of at least `least`; NumPy's integers are fine.

    Raises:
      ValueError: for fractions, bools, strings, and smaller numbers.
    """
    try:
        fits = not isinstance(value, (bool, np.bool_))
        fits = fits and operator.index(value) >= least
    except TypeError:
        fits = False
    if not fits:
        end = f"; {hint}" if hint else ""
        raise ValueError(
            f"{name} must be a whole number of at least {least}, got {value!r}{end}."
        )


def check_made_for(
    module: Any, path: tuple[str, ...], size: int, what: str, hint: str
) -> None:
    """Refuses input of another size than a module's parameters were made for.

    Flax would say so too, of an initializer that the reader never called.

    Args:
      module: the bound linen module.
      path: names that lead to the submodule with the parameter "kernel".
      size: length of the input's last axis.
      what: it counts.
      hint: what to do.

    Raises:
      ValueError: if there is such a kernel and it takes another size.
    """
    params: Any = module.variables.get("params", {})
    for name in (*path, "kernel"):
        params = params.get(name, {})
    made_for = getattr(params, "shape", (None, None))[-2]
    if made_for is not None and made_for != size:
        raise ValueError(
            f"{type(module).__name__} was made for {made_for} {what}, got {size};"
            f" {hint}."
        )


def nearest(
    name: Any, names: Iterable[str], *, count: int = 1, cutoff: float = 0.6
) -> list[str]:
    """Those of the names that are most like `name`, the nearest first.

    Args:
      name: what was given.
      names: what there is.
      count: how many at most.
      cutoff: how alike they must be, from 0 (not at all) to 1 (equal).
    """
    return difflib.get_close_matches(str(name), list(names), count, cutoff)


def did_you_mean(name: Any, names: Iterable[str]) -> str:
    """A question that names the nearest of the names, or nothing if none is near."""
    near = nearest(name, names)
    return f" Did you mean {near[0]!r}?" if near else ""


def choose(what: str, name: Any, names: Iterable[str]) -> str:
    """Returns `name` if it is one of the names.

    Args:
      what: what is chosen, in a word, e.g. "backbone".
      name: what was given.
      names: what there is.

    Raises:
      ValueError: otherwise, with the nearest name and all of them.
    """
    names = list(names)
    if isinstance(name, str) and name in names:
        return name
    raise ValueError(
        f"Unknown {what} {name!r}.{did_you_mean(name, names)} There are:"
        f" {', '.join(names)}."
    )
