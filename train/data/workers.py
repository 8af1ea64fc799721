"""Grain's worker processes: started safely, ended with their parent."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from multiprocessing import resource_tracker
from typing import Any


def in_workers(dataset: Any, count: int) -> Any:
    """A grain iterable data set, run in `count` processes in turn."""
    import grain
    from absl import flags

    # The workers refuse to start before absl has seen a command line.
    if not flags.FLAGS.is_parsed():
        flags.FLAGS(["cram_jax"])
    options = grain.MultiprocessingOptions(num_workers=count, per_worker_buffer_size=2)
    return dataset.mp_prefetch(options, worker_init_fn=_end_with_parent)


@contextlib.contextmanager
def signals_blocked(block: bool = True) -> Iterator[None]:
    """Holds SIGINT and SIGTERM back from this thread and from what it starts.

    Ctrl-C and schedulers signal a whole process group. Workers born in here never see
    it: the parent saves its work first, and ends them itself.
    """
    if not block:
        yield
        return
    # Python's resource tracker, which the first worker starts, would unblock them.
    resource_tracker.ensure_running()
    held = {signal.SIGINT, signal.SIGTERM}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, held)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(index: int, count: int) -> None:
    """A worker whose parent was killed has nobody to stop it: it stops itself."""
    del index, count
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_await_end, args=(parent,), daemon=True).start()


def _await_end(parent: Any) -> None:
    parent.join()
    os._exit(1)
