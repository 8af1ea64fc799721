"""What a person sees while a run goes on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from train.config.run import FitConfig
from train.printing import say
from train.run import layout
from train.run.workdir import command_to_go_on
from train.tasks.task import Task

_SHOWN_LAYER = ("iou", "corloc", "mask_iou", "center_error")


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _line(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in values.items())


def shown_scores(
    task: Task, scores: Mapping[str, float], held_out: Mapping[str, float]
) -> dict[str, float]:
    """Those of an evaluation's scores that are shown at once."""
    names = (*task.shown, *_SHOWN_LAYER)
    shown = {
        name: value for name, value in scores.items() if name.split("/")[-1] in names
    }
    if task.best_score in held_out:
        shown[f"held-out {task.best_score}"] = held_out[task.best_score]
    return shown


def stopped_line(config: FitConfig, step: int, total_steps: int) -> str:
    """What is said when a run was stopped: what is saved, and what to type."""
    return (
        f"Stopped: step {step} of {total_steps} is saved in {config.workdir}."
        f" To go on: {command_to_go_on(config)}"
    )


def score_line(scores: Mapping[str, float], guess: Mapping[str, float]) -> str:
    """The scores on the test images beside those of who guesses; "" for none."""
    known = [name for name in guess if name in scores]
    return ", ".join(
        f"test {name} {scores[name]:.3f} (a guess has {guess[name]:.3f})"
        for name in known
    )


def done_lines(
    config: FitConfig, step: int, seconds: float, film: Path | None, score: str
) -> tuple[str, str]:
    """What is said at the end of a run, and at the end of one that was at its end."""
    film_note = f", {film.name}" if film else ""
    done = (
        f"Done: {', '.join(filter(None, [f'{step} steps in {seconds:.0f} s', score]))}."
        f" See {config.workdir}:"
        f" {layout.RESULT}{film_note}."
    )
    more = (
        f"It has had its {config.epochs:g} epochs before. For more of them:"
        f" {command_to_go_on(config)} --epochs N"
    )
    return done, more


class Display:
    """Shows progress; prints nothing but warnings if quiet.

    Attributes:
      console: rich's, for tables.
    """

    def __init__(self, total_steps: int, *, quiet: bool):
        """Makes a bar if standard output is a terminal."""
        self.console = Console(quiet=quiet, file=sys.stdout)
        self._total, self._start = total_steps, 0
        self._bar: Progress | None = None
        if self.console.is_terminal and not quiet:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[metrics]}"),
                console=self.console,
            )
            self._task = self._bar.add_task("training", total=total_steps, metrics="")

    def start(self, step: int) -> None:
        """Shows the bar; `step` steps are done already."""
        self._start = step
        if self._bar is not None:
            self._bar.update(self._task, completed=step)
            self._bar.start()

    def message(self, text: str) -> None:
        """One line of text."""
        console = self._bar.console if self._bar is not None else self.console
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    def warning(self, text: str) -> None:
        """One line that is said even if quiet, then on standard error."""
        if self.console.quiet:
            say(text, error=True)
        else:
            self.message(text)

    def advance(self, step: int) -> None:
        """Moves the bar."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step)

    def training(
        self, step: int, values: Mapping[str, float], seconds_here: float
    ) -> None:
        """Newest training metrics; `seconds_here` since this start."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, metrics=_line(values))
            return
        done = max(step - self._start, 1)
        left = seconds_here / done * (self._total - step)
        self.message(
            f"step {step}/{self._total}  {_line(values)}  left {_duration(left)}"
        )

    def evaluation(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics on the test images."""
        self.message(f"step {step}/{self._total}  test: {_line(values)}")

    def stop(self) -> None:
        """Leaves the terminal clean."""
        if self._bar is not None:
            self._bar.stop()
