"""Exit codes, and errors that end the program with one sentence, not a traceback."""

from __future__ import annotations

import errno
import importlib
import os
from collections.abc import Iterable, Sequence
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

    def __init__(self, name: str, step: int, kept: Sequence[int], rate: float):
        """Says what to try.

        Args:
          name: what is not finite.
          step: where it was met.
          kept: steps that have a checkpoint.
          rate: the learning rate.
        """
        last = f"that of step {kept[-1]}" if kept else "none yet"
        super().__init__(
            f"The {name} is not finite at step {step}. The last good checkpoint is"
            f" kept ({last}). Try, in a new work directory, a lower"
            f" --optimizer.learning-rate (it is {rate:g}), --optimizer.clip-norm 1,"
            " or --precision float32 if it is bf16."
        )


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
    # Here, so that the command line need not import jax.
    from cram_jax import checks

    try:
        return checks.choose(what, name, names)
    except ValueError as error:
        raise UserError(str(error)) from error


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
