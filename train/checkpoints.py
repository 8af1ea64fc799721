"""Checkpoints: Orbax behind one small file.

A checkpoint is a step's directory under WORKDIR/checkpoints with two items: `state`
(the `TrainState`) and `record` (JSON: the data stream's position, elapsed seconds,
config, metrics, and a checksum of every array, without which a flipped bit would go
unseen).
"""

from __future__ import annotations

import contextlib
import json
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from train.config import CheckpointConfig
from train.errors import CannotWriteError, UserError, cause_of
from train.optimizer import path_of
from train.records import write_json

DIRECTORY = "checkpoints"
BROKEN = "checkpoints-broken"
SCORES = "checkpoints-scores.json"

Record = dict[str, Any]
Report = Callable[[str], None]

# Orbax's background save reads the arrays while the next steps donate them.
_copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))


def checksums(state: Any) -> dict[str, int]:
    """CRC-32 of every leaf of a fetchable tree, by path."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {
        path_of(path): zlib.crc32(np.ascontiguousarray(np.asarray(leaf)).tobytes())
        for path, leaf in leaves
    }


class LatestAndBest(policies.PreservationPolicy):
    """Keeps the newest checkpoints and those of highest score.

    Orbax's own `best_fn` with `max_to_keep` would delete the latest step, and its
    metrics, once damaged, would stop the directory from opening.
    """

    def __init__(self, config: CheckpointConfig, scores: dict[int, float]):
        """Reads `scores`, by step, anew at every decision."""
        self._config, self._scores = config, scores

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        """Whether to keep each of `checkpoints`, which come in order of their step."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = set(steps[-self._config.keep_latest :])
        scored = [step for step in steps if step in self._scores]
        scored.sort(key=lambda step: (self._scores[step], step))
        kept.update(scored[len(scored) - min(self._config.keep_best, len(scored)) :])
        return [step in kept for step in steps]


def _read_scores(path: Path) -> dict[int, float]:
    """Scores by step; none if the file is missing or damaged."""
    try:
        return {int(step): float(v) for step, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


@contextlib.contextmanager
def _one_sentence(step: int) -> Iterator[None]:
    """Turns any failure to write into one sentence."""
    try:
        yield
    except (KeyboardInterrupt, UserError):
        raise
    except Exception as error:
        raise CannotWriteError(
            f"The checkpoint of step {step} could not be written ({cause_of(error)});"
            " earlier checkpoints are whole. Make room on the disk and start the same"
            " command again."
        ) from error


class Checkpoints:
    """The checkpoints of one work directory.

    Attributes:
      directory: that holds them.
    """

    def __init__(
        self, workdir: Path, config: CheckpointConfig, *, read_only: bool = False
    ):
        """Opens the directory; makes it unless `read_only`."""
        self.directory = (workdir / DIRECTORY).absolute()
        self._broken = workdir / BROKEN
        self._read_only = read_only
        self._saving = -1
        self._scores_file = workdir / SCORES
        self._scores = _read_scores(self._scores_file)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=LatestAndBest(config, self._scores),
            create=not read_only,
            read_only=read_only,
        )
        self._manager = ocp.CheckpointManager(self.directory, options=options)

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
        record = record | {"checksums": checksums(state)}
        self._saving = step
        with _one_sentence(step):
            self._note_score(step, score)
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.StandardSave(state),
                    record=ocp.args.JsonSave(record),
                ),
                force=True,
            )

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
        with _one_sentence(self._saving):
            self._manager.wait_until_finished()
            self._manager.check_for_errors()

    def restore(self, step: int, like: Any) -> tuple[Any, Record]:
        """The state and record of a step, checked.

        Args:
          step: of the checkpoint.
          like: a fetchable state whose shapes, dtypes and shardings are wanted.

        Raises:
          Exception: of many kinds, if a file is missing, cut short or altered.
        """
        target = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target),
                record=ocp.args.JsonRestore(),
            ),
        )
        state, record = restored["state"], restored["record"]
        found, expected = checksums(state), record["checksums"]
        wrong = [path for path in found if found[path] != expected.get(path)]
        if wrong:
            raise ValueError(f"the content of {wrong[0]} is not what was saved")
        return state, record

    def restore_latest(
        self, like: Any, report: Report
    ) -> tuple[int, Any, Record] | None:
        """The newest checkpoint that can be read; None if there is none at all.

        Unreadable ones are reported and moved aside (left where they are if
        read-only), so that their step can be saved again.

        Raises:
          UserError: if there are checkpoints and none can be read.
        """
        steps = self.steps()
        for step in reversed(steps):
            try:
                return step, *self.restore(step, like)
            except Exception as error:
                report(
                    f"The checkpoint of step {step} is damaged ({cause_of(error)});"
                    " trying the one before it."
                )
                self._set_aside(step)
        if steps:
            raise UserError(
                f"None of the {len(steps)} checkpoints in {self.directory} can be read."
                " Start in a new work directory."
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
        self.wait()
        self._manager.close()
