"""Batches put on the device ahead of the step that needs them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar

from train.pipeline import BatchIterator
from train.rows import Batch

_Put = TypeVar("_Put")


class PrefetchIterator(Iterator[_Put], Generic[_Put]):
    """Puts batches on the device ahead of their use, in a thread."""

    def __init__(
        self, iterator: BatchIterator, put: Callable[[Batch], _Put], depth: int = 2
    ) -> None:
        self._iterator = iterator
        self._given = iterator.get_state()["step"]
        self._queue: queue.Queue[Any] = queue.Queue(maxsize=depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(put,), daemon=True)
        self._thread.start()

    def __next__(self) -> _Put:
        """The next batch as `put` gave it; raises what making it raised."""
        item, error = self._queue.get()
        if error is not None:
            self.close()
            raise error
        self._given += 1
        return item

    def get_state(self) -> dict[str, int]:
        """{"step": batches given so far}, those made ahead not counted."""
        return {"step": self._given}

    def close(self) -> None:
        """Stops the thread and the iterator under it."""
        self._stopped.set()
        while self._thread.is_alive():
            # Makes room, in case the thread waits to put a batch.
            while not self._queue.empty():
                self._queue.get_nowait()
            self._thread.join(timeout=0.05)
        self._iterator.close()

    def _run(self, put: Callable[[Batch], _Put]) -> None:
        while not self._stopped.is_set():
            try:
                item = put(next(self._iterator)), None
            except BaseException as error:  # handed over to whoever waits
                self._queue.put((None, error))
                return
            self._queue.put(item)


def prefetch_to_device(
    iterator: BatchIterator, put: Callable[[Batch], _Put], depth: int = 2
) -> PrefetchIterator[_Put]:
    """Keeps `depth` batches on the device ahead of the step that needs them.

    Args:
        iterator: from `train_batches`; belongs to the result from now on.
        put: a batch to device arrays, such as `jax.device_put` with a sharding.
        depth: batches held ready.
    """
    return PrefetchIterator(iterator, put, depth)
