"""Whether a work directory may be trained in: whose run it is, and who uses it now."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from train.config.differences import differences, is_extension
from train.config.places import same_place
from train.config.run import FitConfig, to_dict
from train.data.facts import Facts
from train.data.labels import differing_names
from train.errors import CannotWriteError, UserError
from train.files import write_json
from train.learning.processes import in_first_process
from train.run import layout
from train.run.checkpoints.reading import saved_steps
from train.run.lock import in_use
from train.run.workdir import (
    load_config,
    load_inputs,
    read_config,
)

_PATH_LIMIT = 4096 - 200  # bytes; the longest names inside a run need the rest


def check_config(config: FitConfig) -> None:
    """Refuses a work directory in which this config cannot go on; writes nothing.

    Raises:
      UserError: if the directory holds a run of another config, one whose checkpoints
        are gone, or files that are not a run's.
      CannotWriteError: if its path cannot be used.
    """
    workdir = config.workdir
    _check_path(workdir)
    if not (workdir / layout.CONFIG).exists():
        _check_foreign(workdir)
        return
    old = read_config(workdir)
    if not saved_steps(workdir):
        _check_gone(workdir)
        return
    new = to_dict(config)
    goes_on = is_extension(old, new)
    found = [
        each
        for each in differences(old, new)
        if not same_place(each.name, old, new)
        and not (goes_on and each.name in ("epochs", "earlier_epochs"))
    ]
    if found:
        raise UserError(
            f"{workdir} holds a run of another config:\n  "
            + "\n  ".join(map(str, found))
            + "\nGive the old values to go on with it, or another --workdir."
        )


def _check_path(workdir: Path) -> None:
    if len(os.fsencode(workdir.absolute())) > _PATH_LIMIT:
        raise CannotWriteError(
            f"The path of --workdir is too long: at most {_PATH_LIMIT} bytes."
        )
    try:
        workdir.stat()
    except FileNotFoundError:
        if workdir.is_symlink():
            raise CannotWriteError(
                f"The work directory {workdir} is a link to nothing."
            ) from None
    except OSError as error:
        raise CannotWriteError(
            f"The work directory {workdir} cannot be used: {error.strerror}."
        ) from error


def _check_foreign(workdir: Path) -> None:
    found = [name for name in layout.OF_A_RUN if (workdir / name).exists()]
    if found:
        raise UserError(
            f"{workdir} has {', '.join(found)} but no {layout.CONFIG}, so it is not the"
            " whole work directory of a run. Put the file back (every checkpoint"
            ' keeps a copy, "config" in checkpoints/STEP/record/metadata), or choose'
            " another --workdir."
        )


def _check_gone(workdir: Path) -> None:
    """Without checkpoints a run starts anew, unless it once had some."""
    trained = [layout.FIRST_CHECKPOINT, layout.RESULT]
    broken = workdir / layout.BROKEN_CHECKPOINTS
    if broken.is_dir() and any(broken.iterdir()):
        where = f"they were set aside in {broken}"
    elif any((workdir / name).exists() for name in trained):
        where = "they have been moved or removed"
    else:
        return
    raise UserError(
        f"{workdir} was trained, and has no checkpoints any more: {where}. Put them"
        " back to go on, or start in another --workdir."
    )


class Start(NamedTuple):
    """What an earlier start left on record.

    Attributes:
      config: the run's.
      inputs: what its network takes and gives.
    """

    config: FitConfig
    inputs: Facts


def earlier_start(workdir: Path) -> Start | None:
    """The record of a run that has checkpoints; None for a new one.

    Raises:
      UserError: if the record is missing or damaged.
    """
    if not saved_steps(workdir):
        return None
    return Start(load_config(workdir), load_inputs(workdir))


def check_inputs(config: FitConfig, inputs: Facts) -> None:
    """Refuses a data set that is not the run's; writes nothing.

    Raises:
      UserError: names what differs.
    """
    if not saved_steps(config.workdir):
        return
    old, found = load_inputs(config.workdir), []
    if names := differing_names(old.class_names, inputs.class_names):
        found.append(f"other classes than the run: {names}")
    if names := differing_names(old.categories, inputs.categories):
        found.append(f"other categories than the run: {names}")
    if old.image_shape != inputs.image_shape:
        found.append(
            f"images of another shape than the run: {list(inputs.image_shape)}, not"
            f" {list(old.image_shape)}"
        )
    if old.num_examples != inputs.num_examples:
        found.append(
            f"another number of training images than the run: {inputs.num_examples},"
            f" not {old.num_examples}"
        )
    if found:
        raise UserError(
            f"The data set has {'; '.join(found)}. Nothing was changed. Give the data"
            f" set that {config.workdir} was trained on, or another --workdir."
        )


@contextlib.contextmanager
def claimed(config: FitConfig, inputs: Facts) -> Iterator[None]:
    """Holds the work directory for this run; a new run's config is written.

    Raises:
      UserError: if another start uses it, or it is not this run's.
      CannotWriteError: if it cannot be made or written.
    """
    with contextlib.ExitStack() as stack:

        def enter() -> None:
            stack.enter_context(in_use(config.workdir))
            # Again: a start that has just ended may have changed it.
            check_config(config)
            check_inputs(config, inputs)
            if not saved_steps(config.workdir):
                note_config(config)
                _write(config.workdir / layout.INPUTS, dataclasses.asdict(inputs))

        in_first_process(enter)
        yield


def note_config(config: FitConfig) -> None:
    """Writes the config beside the run: options that are free may have changed.

    Raises:
      CannotWriteError: if it cannot be written.
    """
    _write(config.workdir / layout.CONFIG, to_dict(config))


def _write(path: Path, values: dict[str, Any]) -> None:
    try:
        write_json(path, values)
    except OSError as error:
        raise CannotWriteError(
            f"The work directory {path.parent} cannot be written: {error.strerror}."
        ) from error
