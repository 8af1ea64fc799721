"""What it would save to keep the maps of frozen layers: their share of a step.

    python -m benchmarks.frozen_layers --data data

The preset `pets3` freezes what lies before its attention layer. Beside a whole training
step stands the forward pass of these layers alone, timed in turn on one batch. That
share is what a run would save whose photographs, crops and all, were seen before.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks.timing import interleaved, machine, relative
from train.commands.options import parse_fit
from train.data.loaders import Feed
from train.data.preparation import unit_range
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.learning.steps import train_step
from train.tasks.registry import make_task


@dataclass(frozen=True)
class Options:
    """Where the photographs are."""

    data: Path = Path("data")
    """Folder in which the archive pets3.zip was unpacked."""
    rounds: int = 10
    """Measurements of each."""


def main(arguments: list[str]) -> None:
    """Prints the share."""
    program = "python -m benchmarks.frozen_layers"
    options = tyro.cli(Options, args=arguments, prog=program)
    name = f"folder:{options.data / 'pets3'}"
    config = parse_fit(["--preset", "pets3", "--data.name", name])
    feed = Feed(config, make_task(config))
    parallel = JitParallel(jax.devices()[:1])
    experiment = make_experiment(config, feed.inputs, parallel)
    batches = feed.train_batches(0, parallel.place_batch)
    batch = next(batches)
    batches.close()
    state = parallel.place(experiment.initial_state())
    variables = state.evaluated_variables()
    (last,) = config.model.attention_stages

    @jax.jit
    def frozen(variables, images: jax.Array) -> jax.Array:
        images = experiment.normalise(unit_range(images))
        variables = {**variables, **experiment.schedule(jnp.zeros((), jnp.int32))}
        maps: Any = experiment.model.apply(variables, images, method="features")
        return maps[last - 1]

    step = jax.jit(functools.partial(train_step, experiment))
    runs = {
        "frozen": lambda: frozen(variables, batch["image"]),
        "step": lambda: step(state, batch),
    }
    times = interleaved(runs, options.rounds)
    low, median, high = relative(times["frozen"]["wall"], times["step"]["wall"])
    print(f"Frozen layers: {median:.2f} of a step (quartiles {low:.2f} to {high:.2f});")
    print(f"batches of {config.batch_size}; {machine()}.")


if __name__ == "__main__":
    main(sys.argv[1:])
