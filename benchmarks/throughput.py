"""Does the input pipeline keep up? Images per second of pipeline, step, and both.

    python -m benchmarks.throughput --preset digits
    python -m benchmarks.throughput --rounds 5 --steps 50 --preset digits \
        --data.name folder:data/pets3 --data.image-size 96 --data.workers 2

Takes its own `--rounds`, `--steps` and `--results FILE.json`; all other options are
those of `python -m train fit`. In each round the three are measured in turn, after a
warm-up, each until its last result is ready; medians over the rounds are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

from train.cli import parse_fit
from train.config import FitConfig
from train.errors import UserError
from train.experiment import make_experiment
from train.feed import Feed
from train.parallel import make_parallel
from train.steps import train_step


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call, until its result is ready."""
    start = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - start


def measure(config: FitConfig, steps: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of each of the three, one figure a round."""
    parallel, feed = make_parallel(config.parallel), Feed(config)
    experiment = make_experiment(config, feed.inputs, parallel)
    update = parallel.compile_update(partial(train_step, experiment.task))
    state = experiment.initial_state()

    def train(batches: Iterator[Any]) -> Any:
        nonlocal state
        for _ in range(steps):
            state = update(state, next(batches))
        return state.params

    def draw(batches: Iterator[Any]) -> Any:
        batch = None
        for _ in range(steps):
            batch = next(batches)
        return batch

    def same(batch: Any) -> Iterator[Any]:
        while True:
            yield batch

    batches = feed.train_batches(0, parallel.place_batch)
    try:
        fixed = next(batches)
        runs = {
            "pipeline": lambda: draw(batches),
            "step": lambda: train(same(fixed)),
            "together": lambda: train(batches),
        }
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for count in range(rounds + 1):
            for name, run in runs.items():
                rate = steps * config.batch_size / seconds(run)
                if count:  # the first round compiles and warms up
                    rates[name].append(rate)
    finally:
        batches.close()
    return rates


def main(arguments: list[str]) -> int:
    """Measures, prints, and writes the figures if asked to."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--results", type=Path)
    options, rest = parser.parse_known_args(arguments)
    try:
        config = parse_fit(rest)
        rates = measure(config, options.steps, options.rounds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, rate in medians.items():
        low, high = min(rates[name]), max(rates[name])
        print(f"{name:9} {rate:10,.0f} images/s  ({low:,.0f} to {high:,.0f})")
    share = medians["together"] / min(medians["pipeline"], medians["step"])
    print(f"together / slower of the two: {share:.3f}")
    if options.results:
        record = {
            "command": shlex.join(
                ["python", "-m", "benchmarks.throughput", *arguments]
            ),
            "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
            f"{jax.devices()[0].device_kind}",
            "images_per_second": rates,
            "together_over_slower": share,
        }
        options.results.parent.mkdir(parents=True, exist_ok=True)
        options.results.write_text(json.dumps(record, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
