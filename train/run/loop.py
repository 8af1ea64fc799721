"""The training loop: the only place with state."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

from train.config.run import to_dict
from train.data.loaders import Feed
from train.errors import DONE, INTERRUPTED, CannotWriteError, NonFiniteError
from train.evidence.pictures import grid_of
from train.files import write_json
from train.learning.evaluator import Evaluator
from train.learning.experiment import Experiment
from train.learning.network import sharpness_at
from train.learning.optimizer import learning_rate_schedule
from train.learning.steps import reset_window, train_step
from train.learning.window import NEVER, window_record
from train.run import layout
from train.run.checkpoints.store import Checkpoints
from train.run.interrupts import Interrupts
from train.run.metric_log import Records
from train.run.pictures import save_film, save_picture
from train.run.profiling import Profiler
from train.run.progress import Display

_SHOWN_LAYER = ("iou", "corloc", "mask_iou", "center_error")


class Loop:
    """Trains one experiment to its end, from wherever its work directory stands.

    Attributes:
      state: the placed `TrainState`.
      step: steps done; equals `state.step` without waiting for the device.
    """

    def __init__(self, experiment: Experiment, feed: Feed, display: Display):
        """Restores the newest checkpoint that there is, and opens the files."""
        self._experiment, self._feed, self._display = experiment, feed, display
        self._config = config = experiment.config
        self._is_writer = jax.process_index() == 0
        parallel = experiment.parallel
        self._update = parallel.compile_update(partial(train_step, experiment))
        self._reset = parallel.compile_map(reset_window)
        self._evaluator = Evaluator(experiment, parallel)
        self._rate = learning_rate_schedule(config.optimizer, experiment.total_steps)
        self._checkpoints = Checkpoints(config.workdir, config.checkpoint)
        self.state = experiment.initial_state()
        self.step, self._seconds_before, self._scores = 0, 0.0, {}
        self._validation: dict[str, float] = {}
        if not self._restore() and config.model.pretrained is not None:
            self.state = experiment.pretrained_state(display.message)
        self._batches = feed.train_batches(self.step, parallel.place_batch)
        self._records = None
        if self._is_writer:
            board = config.output.tensorboard
            self._records = Records(config.workdir, self.step, tensorboard=board)
        self._started = self._logged_at = time.monotonic()
        self._logged_step = self.step

    def _restore(self) -> bool:
        parallel = self._experiment.parallel
        like = parallel.fetchable(self.state)
        found = self._checkpoints.restore_latest(like, self._display.warning)
        if found is None:
            return False
        self.step, state, record = found
        self.state = parallel.place(jax.device_get(state))
        self._seconds_before, self._scores = record["seconds"], record["scores"]
        self._validation = record.get("validation", {})
        self._display.message(f"Going on from the checkpoint of step {self.step}.")
        return True

    def run(self, interrupts: Interrupts) -> int:
        """Trains; returns the exit code.

        Raises:
          NonFiniteError: for a loss or gradient that is not a number.
          CannotWriteError: on a full disk.
        """
        output, total = self._config.output, self._experiment.total_steps
        traced = self._config.workdir / layout.PROFILE, self.step, output.profile_steps
        with self._open(), Profiler(*traced) as profiler:
            while self.step < total:
                self.state = self._update(self.state, next(self._batches))
                self.step += 1
                self._display.advance(self.step)
                logs = self.step % output.log_every == 0 or self.step == total
                if logs:
                    self._log()
                if self._evaluates():
                    self._evaluate()
                if self._saves():
                    self._save()
                profiler.at(self.step, self.state)
                if interrupts.requested(agree=logs) and self.step < total:
                    self._save()
                    return INTERRUPTED
            self._finish()
        return DONE

    def _evaluates(self) -> bool:
        experiment, output = self._experiment, self._config.output
        due = output.evaluates_at(self.step, experiment.steps_per_epoch)
        return due or self.step == experiment.total_steps

    def _saves(self) -> bool:
        return self._evaluates() or self._config.checkpoint.saves_at(self.step)

    def _seconds(self) -> float:
        return self._seconds_before + time.monotonic() - self._started

    def _fetch_window(self) -> dict[str, Any]:
        """The sums since the last record.

        Raises:
          NonFiniteError: if a step among them was not finite.
        """
        window = jax.device_get(self._experiment.parallel.fetchable(self.state.window))
        for name, key in (("loss", "bad_loss_step"), ("gradient", "bad_gradient_step")):
            if (bad := int(window[key])) != NEVER:
                raise NonFiniteError(self._advice(name, bad))
        return window

    def _advice(self, name: str, step: int) -> str:
        self._checkpoints.wait()
        kept = self._checkpoints.steps()
        last = f"that of step {kept[-1]}" if kept else "none yet"
        rate = self._config.optimizer.learning_rate
        return (
            f"The {name} is not finite at step {step}. The last good checkpoint is"
            f" kept ({last}). Try, in a new work directory, a lower"
            f" --optimizer.learning-rate (it is {rate:g}), --optimizer.clip-norm 1,"
            " or --precision float32 if it is bf16."
        )

    def _log(self) -> None:
        window = self._fetch_window()
        self.state = self._reset(self.state)
        now = time.monotonic()
        images = (self.step - self._logged_step) * self._config.batch_size
        values = window_record(window)
        values["images_per_second"] = images / max(now - self._logged_at, 1e-9)
        if self._config.data.on_bad_image == "skip":
            given = float(window["steps"]) * self._config.batch_size
            values["skipped_images"] = given - float(window["weight"])
        values["learning_rate"] = float(self._rate(self.step - 1))
        total = self._experiment.total_steps
        sharpness = sharpness_at(self._config.sharpness, self.step - 1, total)
        values["sharpness"] = float(sharpness)
        self._logged_at, self._logged_step = now, self.step
        self._write("train", values)
        names = ("loss", *self._experiment.task.shown, "images_per_second")
        shown = {name: values[name] for name in names if name in values}
        self._display.training(self.step, shown, now - self._started)

    def _write(self, kind: str, values: dict[str, float]) -> None:
        if self._records is not None:
            epoch = self.step / self._experiment.steps_per_epoch
            about = {"epoch": epoch, "seconds": self._seconds()}
            self._records.write(kind, self.step, values, **about)

    def _evaluate(self) -> None:
        self._fetch_window()
        variables, step = self.state.evaluated_variables(), self.state.step
        images = self._feed.eval_batches()
        self._scores = self._evaluator.scores(variables, step, images)
        self._write("eval", self._scores)
        if (held_out := self._feed.validation_batches()) is not None:
            self._validation = self._evaluator.scores(variables, step, held_out)
            self._write("validation", self._validation)
        names = (*self._experiment.task.shown, *_SHOWN_LAYER)
        shown = {
            name: value
            for name, value in self._scores.items()
            if name.rpartition("/")[2] in names
        }
        best = self._experiment.task.best_score
        if best in self._validation:
            shown[f"held-out {best}"] = self._validation[best]
        self._display.evaluation(self.step, shown)
        if self._records is not None and self._config.output.pictures:
            self._draw(self._records)
        # What an evaluation takes is no training speed.
        self._logged_at, self._logged_step = time.monotonic(), self.step

    def _draw(self, records: Records) -> None:
        variables, step = self._experiment.parallel.fetchable(
            (self.state.evaluated_variables(), self.state.step)
        )
        batch = self._feed.fixed_batch(self._config.output.pictures)
        shown = self._evaluator.observe(variables, step, batch["image"])
        picture = grid_of(batch, *shown, self._feed.inputs.truth, self._experiment.task)
        save_picture(self._config.workdir, self.step, picture)
        records.picture(self.step, picture)

    def _save(self) -> None:
        """Saves, unless the state is not finite (then it raises)."""
        self._fetch_window()
        record = {
            # The whole position of the data: batches are functions of the step.
            "data_step": self.step,
            "seconds": self._seconds(),
            "scores": self._scores,
            "validation": self._validation,
            "config": to_dict(self._config),
        }
        # The test images choose nothing.
        best = self._experiment.task.best_score
        score = self._validation.get(best) if self._evaluates() else None
        state = self._experiment.parallel.fetchable(self.state)
        self._checkpoints.save(self.step, state, record, score)

    def _finish(self) -> None:
        self._checkpoints.wait()
        if not self._is_writer:
            return
        workdir = self._config.workdir
        held_out = {"validation": self._validation} if self._validation else {}
        result = {"step": self.step, **self._scores, **held_out}
        write_json(workdir / layout.RESULT, result)
        film = save_film(workdir)
        film_note = f", {film.name}" if film else ""
        self._display.message(
            f"Done: {self.step} steps in {self._seconds():.0f} s. See {workdir}:"
            f" {layout.RESULT}{film_note}."
        )

    @contextlib.contextmanager
    def _open(self) -> Iterator[None]:
        self._display.start(self.step)
        try:
            yield
            self._checkpoints.close()
        except BaseException:
            # What is being saved is still good, whatever went wrong after it.
            with contextlib.suppress(CannotWriteError):
                self._checkpoints.close()
            raise
        finally:
            self._display.stop()
            self._batches.close()
            if self._records is not None:
                self._records.close()
