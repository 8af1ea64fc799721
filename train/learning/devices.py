"""Two ways to run one step on many devices: a sharded jit, and pmap.

Both hold a copy of the state on every device of every process, and give each device
its part of the batch. They offer the same operations:

* `place(tree)`: host values, equal in all processes, onto the devices;
* `fetchable(tree)`: placed values as replicated arrays without a device axis, which
  is the form that is saved and that `jax.device_get` reads;
* `place_batch(batch)`: this process's part of a batch onto its devices;
* `compile_update(step)`, `compile_map(function)`: `step(state, batch) -> state` and
  `function(state) -> state` (the old state's memory is used again), and
  `compile_evaluation(step)`: `step(variables, step_number, batch) -> sums`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from train.errors import UserError

AXIS = "batch"


def _mesh(devices: Sequence[Any]) -> Mesh:
    # By process first: the ids of devices are not contiguous within a process.
    devices = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.asarray(devices), (AXIS,), axis_types=(AxisType.Auto,))


def check_batch(batch_size: int, device_count: int, parts: int) -> None:
    """Refuses a batch that cannot be dealt out evenly.

    Raises:
      UserError: with the nearest size that can.
    """
    unit = device_count * parts
    if batch_size % unit:
        nearest = max(round(batch_size / unit), 1) * unit
        raise UserError(
            f"batch_size must be a multiple of {unit} ({device_count} devices x"
            f" {parts} accumulated parts); got {batch_size}. Try {nearest}."
        )


class JitParallel:
    """One program over a mesh: the batch is sharded, BatchNorm sees all of it.

    Attributes:
      axis_name: None, since there is no named axis inside the step.
      device_count: devices of all processes.
    """

    axis_name = None

    def __init__(self, devices: Sequence[Any] | None = None):
        """Uses `devices`, by default all of all processes."""
        mesh = _mesh(devices if devices is not None else jax.devices())
        self.device_count = mesh.size
        self._everywhere = NamedSharding(mesh, PartitionSpec())
        self._sharded = NamedSharding(mesh, PartitionSpec(AXIS))

    def place(self, tree: Any) -> Any:
        """Host values to replicated arrays."""

        def put(leaf):
            return jax.make_array_from_process_local_data(
                self._everywhere, np.asarray(leaf), np.shape(leaf)
            )

        return jax.tree.map(put, tree)

    def fetchable(self, tree: Any) -> Any:
        """The tree itself."""
        return tree

    def place_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """This process's images to a sharded global batch."""

        def put(leaf):
            return jax.make_array_from_process_local_data(self._sharded, leaf)

        return {name: put(leaf) for name, leaf in batch.items()}

    def compile_update(self, step: Callable) -> Callable:
        """Compiles `step(state, batch) -> state`."""
        return jax.jit(step, donate_argnums=0, out_shardings=self._everywhere)

    def compile_map(self, function: Callable) -> Callable:
        """Compiles `function(state) -> state`."""
        return jax.jit(function, donate_argnums=0, out_shardings=self._everywhere)

    def compile_evaluation(self, step: Callable) -> Callable:
        """Compiles `step(variables, step_number, batch) -> sums`."""
        return jax.jit(step, out_shardings=self._everywhere)


class PmapParallel:
    """One program per device: sums and batch statistics go over the axis "batch".

    Attributes:
      axis_name: the pmapped axis's name.
      device_count: devices of all processes.
    """

    axis_name = AXIS

    def __init__(self):
        """Uses all devices."""
        self.device_count = jax.device_count()
        self._local_count = jax.local_device_count()
        self._everywhere = NamedSharding(_mesh(jax.devices()), PartitionSpec())
        self._spread = jax.pmap(lambda tree: tree, axis_name=AXIS)

    def place(self, tree: Any) -> Any:
        """Host values to one copy per device, on a new first axis."""

        def stack(leaf):
            leaf = np.asarray(leaf)
            return np.broadcast_to(leaf, (self._local_count, *leaf.shape))

        return self._spread(jax.tree.map(stack, tree))

    def fetchable(self, tree: Any) -> Any:
        """The copy of the first device, as arrays replicated over all processes."""

        def take(leaf):
            shard = np.asarray(leaf.addressable_shards[0].data)
            shard = shard.reshape(leaf.shape[1:])
            return jax.make_array_from_process_local_data(
                self._everywhere, shard, shard.shape
            )

        return jax.tree.map(take, tree)

    def place_batch(self, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """This process's images, one row of them per device."""

        def split(leaf):
            return leaf.reshape(self._local_count, -1, *leaf.shape[1:])

        return {name: split(leaf) for name, leaf in batch.items()}

    def compile_update(self, step: Callable) -> Callable:
        """Compiles `step(state, batch) -> state`."""
        return jax.pmap(step, axis_name=AXIS, donate_argnums=0)

    def compile_map(self, function: Callable) -> Callable:
        """Compiles `function(state) -> state`."""
        return jax.pmap(function, axis_name=AXIS, donate_argnums=0)

    def compile_evaluation(self, step: Callable) -> Callable:
        """Compiles `step(variables, step_number, batch) -> sums`."""
        return jax.pmap(step, axis_name=AXIS)


Parallel = JitParallel | PmapParallel


def make_parallel(kind: str) -> Parallel:
    """The named way, "jit" or "pmap", over all devices of all processes."""
    return PmapParallel() if kind == "pmap" else JitParallel()


def evaluation_parallel(batch_size: int) -> JitParallel:
    """As many of this process's devices as share a batch evenly."""
    devices = jax.local_devices()
    return JitParallel(devices[: math.gcd(batch_size, len(devices))])
