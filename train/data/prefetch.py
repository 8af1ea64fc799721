"""Batches put on the device ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from train.data.collate import Batch
from train.data.pipeline import BatchIterator

_Put = TypeVar("_Put")


class PrefetchIterator(Iterator[_Put], Generic[_Put]):
    """Puts batches on the device ahead of their use, in a thread.

    Args:
        iterator: from `train_batches`; belongs to this object from now on.
        put: a batch to device arrays, such as `jax.device_put` with a sharding.
        depth: batches held ready.
    """

    def __init__(
        self, iterator: BatchIterator, put: Callable[[Batch], _Put], depth: int = 2
    ) -> None:
        self._step = iterator.get_state()["step"]
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        stopped = threading.Event()
        thread = threading.Thread(
            target=_fill, args=(iterator, put, self._queue, stopped), daemon=True
        )
        # Also at exit, before Python takes the thread's modules away.
        self._stop = weakref.finalize(
            self, _stop, thread, self._queue, stopped, iterator
        )
        thread.start()

    def __next__(self) -> _Put:
        """The next batch as `put` gave it; raises what making it raised."""
        if not self._stop.alive:
            raise ValueError("This iterator was closed or has failed; make a new one.")
        item, error = self._queue.get()
        if error is not None:
            self.close()
            raise error
        self._step += 1
        return item

    def get_state(self) -> dict[str, int]:
        """{"step": batches given so far}, those made ahead not counted."""
        return {"step": self._step}

    def close(self) -> None:
        """Stops the thread and the iterator under it."""
        self._stop()


def prefetch_to_device(
    iterator: BatchIterator, put: Callable[[Batch], _Put], depth: int = 2
) -> PrefetchIterator[_Put]:
    """Keeps `depth` batches on the device ahead of use; see `PrefetchIterator`."""
    return PrefetchIterator(iterator, put, depth)


def _fill(
    iterator: BatchIterator,
    put: Callable[[Batch], Any],
    ready: queue.Queue[Any],
    stopped: threading.Event,
) -> None:
    while not stopped.is_set():
        try:
            item = put(next(iterator)), None
        except BaseException as error:  # handed over to whoever waits
            ready.put((None, error))
            return
        ready.put(item)


def _stop(
    thread: threading.Thread,
    ready: queue.Queue[Any],
    stopped: threading.Event,
    iterator: BatchIterator,
) -> None:
    stopped.set()
    while thread.is_alive():
        # Makes room, in case the thread waits to hand a batch over.
        while not ready.empty():
            ready.get_nowait()
        thread.join(timeout=0.05)
    iterator.close()
