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
from train.run.progress import (
    Display,
    done_lines,
    score_line,
    shown_scores,
    stopped_line,
)


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
        ends = experiment.plan_ends
        self._rate = learning_rate_schedule(config.optimizer, *ends)
        kept = config.checkpoint
        self._checkpoints = Checkpoints(config.workdir, kept, always=ends[:-1])
        self.state = experiment.initial_state()
        self.step, self._seconds_before, self._scores = 0, 0.0, {}
        self._validation: dict[str, float] = {}
        self._best, self._total = experiment.task.best_score, experiment.total_steps
        if not self._restore() and config.model.pretrained is not None:
            self.state = experiment.pretrained_state(display.message)
        self._batches = feed.train_batches(self.step, parallel.place_batch)
        self._records = None
        if self._is_writer:
            board = config.output.tensorboard
            self._records = Records(config.workdir, self.step, tensorboard=board)
        self._started = self._logged_at = time.monotonic()
        self._logged_step = self.step
        self._was_finished = self.step >= experiment.total_steps

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
        output, total = self._config.output, self._total
        traced = self._config.workdir / layout.PROFILE, self.step, output.profile_steps
        with self._open(), Profiler(*traced) as profiler:
            if self.step == 0:
                self._draw()
            while self.step < total:
                self.state = self._update(self.state, next(self._batches))
                self.step += 1
                self._display.advance(self.step)
                logs = self.step % output.log_every == 0 or self._ends_a_plan()
                if logs:
                    self._log()
                if self._evaluates():
                    self._evaluate()
                if self._saves():
                    self._save()
                profiler.at(self.step, self.state)
                if interrupts.requested(agree=logs) and self.step < total:
                    self._save()
                    self._checkpoints.wait()
                    total = self._experiment.total_steps
                    self._display.warning(stopped_line(self._config, self.step, total))
                    return INTERRUPTED
            self._finish()
        return DONE

    def _evaluates(self) -> bool:
        experiment, output = self._experiment, self._config.output
        due = output.evaluates_at(self.step, experiment.steps_per_epoch)
        return due or self._ends_a_plan()

    def _ends_a_plan(self) -> bool:
        return self.step in self._experiment.plan_ends

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
                self._checkpoints.wait()
                rate = self._config.optimizer.learning_rate
                raise NonFiniteError(name, bad, self._checkpoints.steps(), rate)
        return window

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
        annealed = self._experiment.plan_ends[0]
        sharpness = sharpness_at(self._config.sharpness, self.step - 1, annealed)
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
        shown = shown_scores(self._experiment.task, self._scores, self._validation)
        self._display.evaluation(self.step, shown)
        self._draw()
        # What an evaluation takes is no training speed.
        self._logged_at, self._logged_step = time.monotonic(), self.step

    def _draw(self) -> None:
        if self._records is None or not self._config.output.pictures:
            return
        variables, step = self._experiment.parallel.fetchable(
            (self.state.evaluated_variables(), self.state.step)
        )
        batch = self._feed.fixed_batch(self._config.output.pictures)
        shown = self._evaluator.observe(variables, step, batch["image"])
        picture = grid_of(batch, *shown, self._feed.inputs.truth, self._experiment.task)
        save_picture(self._config.workdir, self.step, picture)
        self._records.picture(self.step, picture)

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
        # The test images choose nothing, nor does what a budget has not closed yet.
        ends = self._experiment.plan_ends[0]
        final = self._config.budget.is_in_force(self.step, ends)
        scores = self._validation if final and self._evaluates() else {}
        state = self._experiment.parallel.fetchable(self.state)
        self._checkpoints.save(self.step, state, record, scores.get(self._best))

    def _finish(self) -> None:
        self._checkpoints.wait()
        if not self._is_writer:
            return
        workdir = self._config.workdir
        held_out = {"validation": self._validation} if self._validation else {}
        result = {"step": self.step, **self._scores, **held_out}
        write_json(workdir / layout.RESULT, result)
        film = save_film(workdir)
        guess = self._experiment.task.guess(self._feed.inputs)
        score, seconds = score_line(self._scores, guess), self._seconds()
        lines = done_lines(self._config, self.step, seconds, film, score)
        for line in lines if self._was_finished else lines[:1]:
            self._display.message(line)

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
