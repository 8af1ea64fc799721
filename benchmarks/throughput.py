"""Does the input pipeline keep up? Images per second of pipeline, step, and both.

    python -m benchmarks.throughput --preset digits
    python -m benchmarks.throughput --rounds 5 --steps 50 --preset digits \
        --data.name folder:data/pets3 --data.image-size 96 --data.workers 2

Takes its own `--rounds`, `--steps` and `--results FILE.json`; all other options are
those of `python -m train fit`. In each round the three are measured in turn, after a
warm-up, each until its last result is ready; medians over the rounds are printed. With
`--results`, the record takes the place of the one of the same command in the file, and
FILE_tables.md beside it tells all of them.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax

from benchmarks.timing import seconds
from train.commands.options import parse_fit
from train.config.run import FitConfig
from train.data.loaders import Feed
from train.errors import UserError
from train.learning.devices import make_parallel
from train.learning.experiment import make_experiment
from train.learning.steps import train_step
from train.tasks.registry import make_task

# More batches than wait ready in workers, threads and on the device.
_MADE_AHEAD = 32


def measure(config: FitConfig, steps: int, rounds: int) -> dict[str, list[float]]:
    """Images per second of each of the three, one figure a round."""
    parallel, feed = make_parallel(config.parallel), Feed(config, make_task(config))
    experiment = make_experiment(config, feed.inputs, parallel)
    update = parallel.compile_update(partial(train_step, experiment))
    state = experiment.initial_state()

    def train(batches: Iterator[Any]) -> Any:
        nonlocal state
        for _ in range(steps):
            state = update(state, next(batches))
        return state.params

    def draw(batches: Iterator[Any], count: int = steps) -> Any:
        batch = None
        for _ in range(count):
            batch = next(batches)
        return batch

    def drain() -> None:
        # What was made ahead while nobody drew would count as made in no time.
        draw(batches, _MADE_AHEAD)

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
                drain()
                rate = steps * config.batch_size / seconds(run)
                if count:  # the first round compiles and warms up
                    rates[name].append(rate)
    finally:
        batches.close()
    return rates


def result_of(
    arguments: list[str], rates: dict[str, list[float]], load: float
) -> dict[str, Any]:
    """The record of one measurement; `load` is the machine's before it began."""
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return {
        "command": shlex.join(["python", "-m", "benchmarks.throughput", *arguments]),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, "
        f"{jax.devices()[0].device_kind}",
        "load_before": load,
        "images_per_second": rates,
        "medians": medians,
        "together_over_slower": medians["together"]
        / min(medians["pipeline"], medians["step"]),
    }


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2f}"


def markdown(records: list[dict[str, Any]]) -> str:
    """A table of all records, with their commands."""
    lines = [
        "# Does the input pipeline keep up?",
        "",
        "Images per second of the pipeline alone, the training step alone, and both",
        "together: medians, with the lowest and highest round. The last column is",
        "together over the slower of the two. Load: processes that wanted to run, on",
        "average over the minute before the measurement began.",
        "",
        "| | machine | load | pipeline | step | together | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for number, record in enumerate(records, start=1):
        cells = [
            f"{_rate(record['medians'][name])}"
            f" ({_rate(min(values))} to {_rate(max(values))})"
            for name, values in record["images_per_second"].items()
        ]
        lines.append(
            f"| {number} | {record['machine']} | {record['load_before']:.1f} | "
            + " | ".join(cells)
            + f" | {record['together_over_slower']:.3f} |"
        )
    lines += [""]
    lines += [f"{n}. `{record['command']}`" for n, record in enumerate(records, 1)]
    return "\n".join(lines) + "\n"


def store(record: dict[str, Any], path: Path) -> None:
    """Puts a record in the place of the one of the same command."""
    records = json.loads(path.read_text()) if path.exists() else []
    records = [old for old in records if old["command"] != record["command"]]
    records.append(record)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records, indent=1) + "\n")
    path.with_name(path.stem + "_tables.md").write_text(markdown(records))


def main(arguments: list[str]) -> int:
    """Measures, prints, and stores the figures if asked to."""
    logging.getLogger("absl").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(prog="python -m benchmarks.throughput")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--results", type=Path)
    options, rest = parser.parse_known_args(arguments)
    load = os.getloadavg()[0]
    try:
        config = parse_fit(rest)
        rates = measure(config, options.steps, options.rounds)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    own = ["--rounds", str(options.rounds), "--steps", str(options.steps)]
    record = result_of([*own, *rest], rates, load)
    for name, rate in record["medians"].items():
        low, high = _rate(min(rates[name])), _rate(max(rates[name]))
        print(f"{name:9} {_rate(rate):>10} images/s  ({low} to {high})")
    print(f"together / slower of the two: {record['together_over_slower']:.3f}")
    if options.results:
        store(record, options.results)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
