"""Reading a checkpoint as it was saved, whatever is wanted of it.

Whether the bytes are whole is one question (here), whether they fit the program is
another (`train.run.checkpoints.saved_state`).
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from train.errors import UserError, cause_of
from train.run import layout
from train.run.checkpoints.saved_state import checksums, leaves_by_path, part_of

Leaves = dict[str, Any]
Record = dict[str, Any]

# Why a file that is whole cannot be read now.
_NOT_NOW = tuple(
    os.strerror(number)
    for number in (
        errno.EACCES,
        errno.EPERM,
        errno.EIO,
        errno.ESTALE,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
    )
)


class DamagedError(Exception):
    """A checkpoint whose bytes are not those that were saved."""


def saved_steps(workdir: Path) -> list[int]:
    """Steps with a checkpoint, whole or not, found without opening any."""
    names = (each.name for each in (workdir / layout.CHECKPOINTS).glob("*"))
    return sorted(int(name) for name in names if name.isdecimal())


def read_checked(
    manager: ocp.CheckpointManager, step: int, parts: set[str] | None
) -> tuple[Leaves, Record]:
    """Leaves by path as they were saved, and the record; checked.

    Args:
      manager: the directory's.
      step: which checkpoint.
      parts: which parts of the state (`params`, ...); None: all.

    Raises:
      DamagedError: if a file is missing, cut short or altered.
      UserError: if the files cannot be read at the moment.
    """
    try:
        state, record = _read(manager, step, parts)
        found, expected = checksums(state), dict(record["checksums"])
    except Exception as error:
        if isinstance(error, MemoryError) or cause_of(error) in _NOT_NOW:
            raise UserError(
                f"The checkpoint of step {step} cannot be read now ({cause_of(error)})."
                " Nothing was changed."
            ) from error
        raise DamagedError(cause_of(error)) from error
    if parts is not None:
        expected = {k: v for k, v in expected.items() if part_of(k) in parts}
    names = sorted(expected.keys() | found.keys())
    wrong = [name for name in names if found.get(name) != expected.get(name)]
    if wrong:
        raise DamagedError(f"the content of {wrong[0]} is not what was saved")
    return leaves_by_path(state), record


def _read(
    manager: ocp.CheckpointManager, step: int, parts: set[str] | None
) -> tuple[Any, Record]:
    tree = manager.item_metadata(step)["state"].tree
    chosen = {k: v for k, v in tree.items() if parts is None or k in parts}
    kinds = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), chosen)
    # As numpy arrays: jax would round to the dtypes that it is allowed now.
    state = ocp.args.PyTreeRestore(
        item=chosen, restore_args=kinds, partial_restore=parts is not None
    )
    record = ocp.args.JsonRestore()
    restored = manager.restore(
        step, args=ocp.args.Composite(state=state, record=record)
    )
    return restored["state"], restored["record"]
