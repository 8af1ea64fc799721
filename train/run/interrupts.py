"""SIGTERM and SIGINT: the first asks the loop to save and stop, a second kills."""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

import jax
import numpy as np

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupts:
    """A context in which signals set a flag; `requested` reads it."""

    def __init__(self):
        """Handles nothing until entered."""
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interrupts:
        """Installs the handlers."""
        for number in _SIGNALS:
            self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        """Puts back the handlers there were."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # pyright: ignore[reportArgumentType]

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self._received is not None:
            os._exit(128 + number)
        self._received = number
        name = signal.Signals(number).name
        # Not print(): a handler may run inside a print of the main program.
        message = f"\n{name}: saving and stopping; once more to stop at once.\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, message.encode())

    def requested(self, *, agree: bool) -> bool:
        """Whether to stop now.

        Args:
          agree: all processes call this now; they stop together if any received a
            signal. With several processes, only such calls may say yes.
        """
        if jax.process_count() == 1:
            return self._received is not None
        if not agree:
            return False
        from jax.experimental import multihost_utils

        mine = np.asarray(self._received is not None)
        return bool(multihost_utils.process_allgather(mine).any())
