"""Checkpoints: Orbax behind one small file.

A checkpoint is a step's directory under WORKDIR/checkpoints with two items: `state`
(the `TrainState`) and `record` (JSON: the data stream's position, elapsed seconds,
config, metrics, and a checksum of every array, without which a flipped bit would go
unseen).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from train.config.output import CheckpointConfig
from train.errors import CannotWriteError, UserError
from train.files import finite, write_json
from train.run import layout
from train.run.checkpoints.reading import (
    DamagedError,
    Record,
    read_checked,
    saved_steps,
)
from train.run.checkpoints.retention import LatestAndBest, read_scores
from train.run.checkpoints.safe_path import SafePath
from train.run.checkpoints.saved_state import checksums, fitted, misfits, shorten
from train.run.checkpoints.writing import one_sentence

Report = Callable[[str], None]

# Orbax's background save reads the arrays while the next steps donate them.
_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


class Checkpoints:
    """The checkpoints of one work directory.

    Attributes:
      directory: that holds them.
    """

    def __init__(
        self,
        workdir: Path,
        config: CheckpointConfig,
        *,
        read_only: bool = False,
        always: Collection[int] = (),
    ):
        """Opens the directory; makes it unless `read_only`.

        Checkpoints of the steps `always` are kept besides what `config` keeps.

        Raises:
          UserError: if its name is one that checkpoints cannot be kept under.
        """
        self.directory = (workdir / layout.CHECKPOINTS).absolute()
        self._broken = workdir / layout.BROKEN_CHECKPOINTS
        self._first_file = workdir / layout.FIRST_CHECKPOINT
        self._read_only = read_only
        self._saving = -1
        self._scores_file = workdir / layout.CHECKPOINT_SCORES
        self._scores = read_scores(self._scores_file)
        self._proven = self._first_file.exists() or bool(saved_steps(workdir))
        options = ocp.CheckpointManagerOptions(
            preservation_policy=LatestAndBest(config, self._scores, always),
            create=not read_only,
            read_only=read_only,
        )
        self._safe_path = SafePath(workdir)
        self._manager = ocp.CheckpointManager(
            self._safe_path.path / layout.CHECKPOINTS,
            options=options,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(),
                "record": ocp.JsonCheckpointHandler(),
            },
        )

    def steps(self) -> list[int]:
        """Steps with a complete checkpoint, in order."""
        return sorted(self._manager.all_steps())

    def best_step(self) -> int | None:
        """The step of highest score among those kept; None if none has one."""
        scored = [step for step in self.steps() if step in self._scores]
        return max(scored, key=lambda step: self._scores[step], default=None)

    def save(self, step: int, state: Any, record: Record, score: float | None) -> None:
        """Starts saving a fetchable state; waits only for the save before it.

        Args:
          step: done so far.
          state: fetchable.
          record: JSON values.
          score: by which the best are kept; None if it was not evaluated.

        Raises:
          CannotWriteError: if this save, or the one before it, fails.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        state = _copy(state)
        record = finite(record) | {"checksums": checksums(state)}
        self._saving = step
        with one_sentence(step):
            self._note_score(step, score)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(state),
                    record=ocp.args.JsonSave(record),
                ),
                force=True,
            )
        if not self._proven:
            self._prove(step)

    def _note_score(self, step: int, score: float | None) -> None:
        if score is None:
            return
        self._scores[step] = score
        if jax.process_index() == 0:
            write_json(self._scores_file, self._scores)

    def wait(self) -> None:
        """Waits for the save under way.

        Raises:
          CannotWriteError: if it failed.
        """
        with one_sentence(self._saving):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def _prove(self, step: int) -> None:
        """Reads the first checkpoint of a run back: better to know now than at the end.

        The note that it leaves tells a run that was saved from one that never was.
        """
        self.wait()
        try:
            read_checked(self._manager, step, None)
        except DamagedError as error:
            raise CannotWriteError(
                f"The checkpoint of step {step} was written to {self.directory} and"
                f" cannot be read back ({error}). Try a --workdir on another disk."
            ) from error
        self._proven = True
        if jax.process_index() == 0:
            with one_sentence(step):
                write_json(self._first_file, {"step": step})

    def restore(
        self, step: int, like: Any, *, parts: set[str] | None = None
    ) -> tuple[Any, Record]:
        """The state and record of a step, checked.

        Args:
          step: which checkpoint.
          like: the wanted state, or the wanted parts of one; leaves have shape and
            dtype.
          parts: names of those parts; None: `like` is a whole state.

        Returns:
          The state as numpy arrays in the dtypes of `like`, and the record.

        Raises:
          DamagedError: if a file is missing, cut short or altered.
          UserError: if the checkpoint is whole and does not fit `like`.
        """
        saved, record = read_checked(self._manager, step, parts)
        if found := misfits(saved, like):
            raise UserError(
                f"The checkpoint of step {step} is whole but does not fit this program:"
                f" {shorten(found)}. Nothing was changed. Another version of the"
                " program, or another network, made it."
            )
        return fitted(saved, like), record

    def restore_latest(
        self, like: Any, report: Report, *, parts: set[str] | None = None
    ) -> tuple[int, Any, Record] | None:
        """The newest checkpoint that is whole; None if there is none at all.

        Damaged ones that are newer are reported and moved aside (left where they are if
        read-only), so that their step can be saved again. Nothing is moved unless an
        older one is whole and fits.

        Raises:
          UserError: if there are checkpoints and none can be read, or the newest that
            is whole does not fit.
        """
        steps, damaged = self.steps(), {}
        for step in reversed(steps):
            try:
                found = self.restore(step, like, parts=parts)
            except DamagedError as error:
                damaged[step] = error
                report(
                    f"The checkpoint of step {step} is damaged ({error}); trying the"
                    " one before it."
                )
                continue
            for each in damaged:
                self._set_aside(each)
            return step, *found
        if steps:
            raise UserError(
                f"None of the {len(steps)} checkpoints in {self.directory} can be read."
                " Nothing was changed. Start in a new work directory."
            )
        return None

    def _set_aside(self, step: int) -> None:
        if self._read_only:
            return
        if jax.process_index() == 0:
            self._broken.mkdir(exist_ok=True)
            target = self._broken / str(step)
            shutil.rmtree(target, ignore_errors=True)
            shutil.move(self.directory / str(step), target)
        if jax.process_count() > 1:
            from jax.experimental import multihost_utils

            multihost_utils.sync_global_devices(f"set aside {step}")
        self._manager.reload()

    def close(self) -> None:
        """Waits for the save under way and lets go of the directory."""
        try:
            self.wait()
        finally:
            self._manager.close()
            self._safe_path.close()
