"""A trace of a few steps by the JAX profiler."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax

# The first steps compile and fill the queues; they tell nothing about the others.
_SKIPPED_STEPS = 10


class Profiler:
    """A context that records `steps` steps, from the tenth after `start` on."""

    def __init__(self, directory: Path, start: int, steps: int):
        """Records nothing if `steps` is 0."""
        self._directory, self._running = directory, False
        self._first, self._last = start + _SKIPPED_STEPS, start + _SKIPPED_STEPS + steps

    def __enter__(self) -> Profiler:
        """Waits for the first step to record."""
        return self

    def at(self, step: int, state: Any) -> None:
        """To be called after each step, with its result."""
        if self._last > self._first == step:
            jax.block_until_ready(state)
            jax.profiler.start_trace(str(self._directory))
            self._running = True
        elif self._running and step == self._last:
            jax.block_until_ready(state)
            self._stop()

    def _stop(self) -> None:
        jax.profiler.stop_trace()
        self._running = False

    def __exit__(self, *_: object) -> None:
        """Ends a trace that is still running."""
        if self._running:
            self._stop()
