"""Wall and processor time of functions, measured in turn until their results are ready.

On a machine that others use too, wall time tells what they do as well. So functions
are measured in rounds, one after the other, and compared within the round; and the
processor time of this process, over all its threads, is taken beside it.
"""

from __future__ import annotations

import math
import os
import platform
import time
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np

Name = TypeVar("Name", bound=Hashable)
SHORTEST = 5e-3  # seconds; what takes less is called several times


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call, until its result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def _calls(run: Callable[[], Any]) -> int:
    """Calls that take `SHORTEST` together, at most 20."""
    return max(1, min(20, math.ceil(SHORTEST / seconds(run))))


def interleaved(
    runs: Mapping[Name, Callable[[], Any]], rounds: int
) -> dict[Name, dict[str, list[float]]]:
    """Times every function once a round, after a warm-up.

    Args:
      runs: functions by name.
      rounds: measurements of each.

    Returns:
      For each name "wall" and "cpu" seconds of one call, one figure a round.
    """
    for run in runs.values():
        jax.block_until_ready(run())
    calls = {name: _calls(run) for name, run in runs.items()}
    times: dict[Name, dict[str, list[float]]] = {
        name: {"wall": [], "cpu": []} for name in runs
    }
    for _ in range(rounds):
        for name, run in runs.items():
            cpu = time.process_time()
            wall = sum(seconds(run) for _ in range(calls[name]))
            cpu = time.process_time() - cpu
            times[name]["wall"].append(wall / calls[name])
            times[name]["cpu"].append(cpu / calls[name])
    return times


def quartiles(values: list[float]) -> list[float]:
    """Lower quartile, median, upper quartile."""
    return [float(q) for q in np.quantile(values, (0.25, 0.5, 0.75))]


def relative(values: list[float], reference: list[float]) -> list[float]:
    """Quartiles of the ratio to a reference measured in the same rounds."""
    ratios = [a / b for a, b in zip(values, reference, strict=True)]
    return quartiles(ratios)


def machine() -> str:
    """Architecture, cores, device, and how busy the machine is."""
    load = (
        f", load average {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    )
    device = jax.devices()[0].device_kind
    return f"{platform.machine()}, {os.cpu_count()} cores, {device}{load}"
