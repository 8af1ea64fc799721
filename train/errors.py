"""Exit codes, and errors that end the program with one sentence, not a traceback."""

from __future__ import annotations

import difflib
import errno
import importlib
import os
from collections.abc import Iterable
from typing import Any

DONE = 0
WRONG_USE = 2
NOT_FINITE = 3
CANNOT_WRITE = 74
INTERRUPTED = 75  # EX_TEMPFAIL: everything is saved, the same command goes on.

# What a full, forbidden or vanished disk says.
DISK_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EROFS,
    errno.EACCES,
    errno.EIO,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ENOENT,
    errno.EEXIST,
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.ESTALE,
    errno.EMFILE,
    errno.ENFILE,
)


class UserError(Exception):
    """Something the user can mend; `str(error)` says what and how."""

    exit_code = WRONG_USE


class NonFiniteError(UserError):
    """A loss or gradient became NaN or infinite."""

    exit_code = NOT_FINITE


class CannotWriteError(UserError):
    """The work directory cannot be written (most often a full disk)."""

    exit_code = CANNOT_WRITE


def choose(what: str, name: str, names: Iterable[str]) -> str:
    """Returns `name` if it is one of `names`.

    Raises:
      UserError: otherwise, with the nearest name and all of them.
    """
    names = list(names)
    if name in names:
        return name
    hint = did_you_mean(nearest(name, names))
    raise UserError(f"Unknown {what} {name!r}.{hint} There are: {', '.join(names)}.")


def nearest(name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str | None:
    """The one of `names` that was probably meant, whatever its case; None if none is.

    Args:
      name: as it was typed.
      names: that there are.
      cutoff: likeness from which on one counts, from 0 to 1.
    """
    known = {each.casefold(): each for each in names}
    close = difflib.get_close_matches(name.casefold(), known, n=1, cutoff=cutoff)
    return known[close[0]] if close else None


def did_you_mean(name: str | None) -> str:
    """The end of a message: " Did you mean 'NAME'?", or nothing for None."""
    return "" if name is None else f" Did you mean {name!r}?"


def package(name: str, purpose: str) -> Any:
    """Imports a package that not every machine has.

    Args:
      name: the package's.
      purpose: what needs it, as the beginning of the message.

    Raises:
      UserError: says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UserError(
            f"{purpose} needs {name}: pip install 'cram-jax[train]'."
        ) from error


def cause_of(error: BaseException) -> str:
    """What went wrong, in a few words on one line.

    Orbax and TensorStore bury what the system says ("No space left on device") among
    paths and codes of their own: where that is in the message, it is all of it.
    """
    text = str(error).strip()
    for number in DISK_ERRORS:
        if os.strerror(number) in text:
            return os.strerror(number)
    return (text.splitlines() or [type(error).__name__])[0][:200]
