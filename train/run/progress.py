"""What a person sees while a run goes on: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from train.printing import say


def _duration(seconds: float) -> str:
    return str(datetime.timedelta(seconds=round(seconds)))


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"


def _line(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {_number(value)}" for name, value in values.items())


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
