"""How a process that trains is set up: its numbers, and the others it trains with.

A checkpoint holds float32, int32 and the two words of a threefry key. `JAX_ENABLE_X64`
or `JAX_DEFAULT_PRNG_IMPL` in the environment would make it look otherwise, and no
start without them could read it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

import jax
import numpy as np

from train.config.output import HostsConfig
from train.errors import UserError, cause_of

GENERATOR = "threefry2x32"
_OWN = {
    "jax_enable_x64": False,
    "jax_default_prng_impl": GENERATOR,
    "jax_numpy_dtype_promotion": "standard",
    "jax_numpy_rank_promotion": "allow",
}
_COORDINATOR = "TRAIN_COORDINATOR"
_COUNT = "TRAIN_PROCESS_COUNT"
_INDEX = "TRAIN_PROCESS_INDEX"


@contextlib.contextmanager
def own_numerics() -> Iterator[None]:
    """A context in which jax has the program's settings; the caller's come back."""
    before = {name: getattr(jax.config, name) for name in _OWN}
    for name, value in _OWN.items():
        jax.config.update(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def _number(value: int | None, variable: str) -> int | None:
    if value is not None or variable not in os.environ:
        return value
    text = os.environ[variable]
    if not text.isdigit():
        raise UserError(f"{variable} must be a whole number; it is {text!r}.")
    return int(text)


def start_hosts(config: HostsConfig) -> None:
    """Joins the other processes; does nothing for a single one.

    Raises:
      UserError: if the number or index of processes is missing or wrong, or process
        0 cannot be reached.
    """
    coordinator = config.coordinator or os.environ.get(_COORDINATOR)
    if coordinator is None:
        return
    if jax.distributed.is_initialized():
        return
    if coordinator == "auto":
        jax.distributed.initialize()
        return
    count, index = _number(config.count, _COUNT), _number(config.index, _INDEX)
    if count is None or index is None or not 0 <= index < count:
        raise UserError(
            "With --hosts.coordinator, --hosts.count and --hosts.index are needed, the"
            f" index from 0 to count - 1; got count {count}, index {index}."
        )
    try:
        jax.distributed.initialize(
            coordinator_address=coordinator, num_processes=count, process_id=index
        )
    except RuntimeError as error:
        raise UserError(
            f"Process 0 cannot be reached at {coordinator}: {cause_of(error)}"
        ) from error


def in_first_process(action: Callable[[], None]) -> None:
    """Runs the action in process 0; if it is refused there, no process goes on.

    Raises:
      UserError: the action's; in the other processes, that it was refused.
    """
    refused: UserError | None = None
    if jax.process_index() == 0:
        try:
            action()
        except UserError as error:
            refused = error
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        word = np.asarray(refused is not None)
        if multihost_utils.broadcast_one_to_all(word) and jax.process_index() != 0:
            raise UserError("Process 0 cannot go on; its own message says why.")
    if refused is not None:
        raise refused
