"""Attention layers in a segmentation network, on three sets of masks, seed by seed.

    python -m benchmarks.segmentation --data data    # digits, data/butterflies10, ...
    python -m benchmarks.segmentation --sets digits --seeds 5
    python -m benchmarks.segmentation --skips --results results/segmentation_skips

Every run is `python -m train fit --preset NAME-segment` with another layer and seed, in
a directory of its own; started again, the benchmark goes on where it stopped. Network,
recipe, steps and images are the same in all rows. It writes RESULTS.json, RESULTS.md
(mean and 95% interval over seeds, and differences to the bare network, paired by seed)
and RESULTS_SET.png: test images with the true regions and those that were found, a row
for each layer. The row "no learning" takes each pixel for the region that it most often
is in the training images.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import jax
import numpy as np
import tyro

from benchmarks.segmentation_report import PARAMETERS, picture_rows, write
from benchmarks.tables import run_all, shown_command
from train.commands.options import parse_fit
from train.config.run import FitConfig
from train.data.facts import Facts
from train.data.loaders import Feed
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.run import layout
from train.tasks.registry import make_task
from train.tasks.task import Batch, Task

LAYERS = (
    "none",
    "positionwise-pooled",
    "positionwise-trunk",
    "rectangular",
    "squeeze-excite",
    "scse",
)
# Ends the name of a row whose decoder is a small U-Net's, that of the presets for
# photographs; those of all others are light.
CONCAT = "-concat"
DECODERS = {
    "": ("--task.decoder=sum", "--task.decoder-width=32"),
    CONCAT: ("--task.decoder=concat", "--task.decoder-width=16"),
}
PRESETS = {
    "digits": "digits-segment",
    "butterflies10": "butterflies-segment",
    "pets3": "pets3-segment",
}
# Rows without a rectangle have no equivariance to score.
EVALUATION = ("--equivariance-images", "0")


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: Path = Path("data")
    """Folder in which the archives butterflies10.zip and pets3.zip were unpacked."""
    sets: tuple[Literal["digits", "butterflies10", "pets3"], ...] = (
        "digits",
        "butterflies10",
        "pets3",
    )
    """Data sets."""
    layers: tuple[str, ...] = LAYERS
    """Attention layers; the first is what the others are compared with."""
    concat_layers: tuple[str, ...] = ("none",)
    """Layers that are put into the network with the larger decoder, too, on
    photographs."""
    seeds: int = 3
    """Seeds 0, 1, ... of each row."""
    epochs: float | None = None
    """Passes over the training images; none: the preset's."""
    skips: bool = False
    """Put the layers on the skips of the decoder, not into the encoder."""
    jobs: int = 1
    """Runs side by side, each on its share of the CPU cores."""
    workdir: Path = Path("runs/benchmark-segmentation")
    """Directory of the runs."""
    results: Path = Path("results/segmentation")
    """RESULTS.json, RESULTS.md and RESULTS_SET.png are written."""
    only_report: bool = False
    """Train nothing: write the results of the seeds of which all runs are there."""


def fit_arguments(options: Options, name: str, layer: str, seed: int) -> list[str]:
    """The arguments of one training run."""
    decoder = CONCAT if layer.endswith(CONCAT) else ""
    arguments = ["--preset", PRESETS[name], "--seed", str(seed)]
    arguments += ["--model.attention", layer.removesuffix(CONCAT), *DECODERS[decoder]]
    if name != "digits":
        arguments += ["--data.name", f"folder:{options.data / name}"]
    if options.epochs is not None:
        arguments += ["--epochs", str(options.epochs)]
    if options.skips:
        arguments += ["--task.attention-in-skips"]
    # Scored once, at the end; the test images choose nothing.
    once = ["--output.evaluate-every", "1000", "--output.no-tensorboard"]
    return [*arguments, *once]


def rows_of(options: Options, name: str) -> tuple[str, ...]:
    """The rows of a set's table."""
    more = () if name == "digits" else options.concat_layers
    return (*options.layers, *(f"{layer}{CONCAT}" for layer in more))


def place_of(options: Options, name: str, layer: str, seed: int) -> Path:
    """The work directory of one run."""
    where = "-skips" if options.skips else ""
    return options.workdir / f"{name}-{layer}{where}-{seed}"


def scores_without_learning(feed: Feed, task: Task) -> dict[str, float]:
    """Test scores of each pixel's most frequent region in the training images."""
    regions = len(feed.inputs.regions)
    votes = np.zeros((*feed.inputs.image_shape[:2], regions))
    for truth in _of_images(feed.train_images(), "regions"):
        votes += truth[..., None] == np.arange(regions)
    outputs = np.eye(regions, dtype=np.float32)[np.argmax(votes, axis=-1)]
    total, sums_of = None, jax.jit(task.sums)
    for batch in feed.eval_batches():
        everywhere = np.broadcast_to(outputs, (len(batch["weight"]), *outputs.shape))
        sums = jax.device_get(sums_of(everywhere, dict(batch)))
        total = sums if total is None else jax.tree.map(np.add, total, sums)
    assert total is not None
    return task.record(total, None, feed.inputs)


def _of_images(batches: Iterable[Batch], name: str) -> Iterable[np.ndarray]:
    """That entry of each image that is no padding."""
    for batch in batches:
        yield from np.asarray(batch[name])[np.asarray(batch["weight"]) > 0]


def parameters_of(config: FitConfig, facts: Facts) -> float:
    """How many parameters a run's network has."""
    experiment = make_experiment(config, facts, JitParallel(jax.devices()[:1]))
    leaves = jax.tree.leaves(experiment.variables_shape()["params"])
    return float(sum(leaf.size for leaf in leaves))


def known_beforehand(options: Options, name: str) -> tuple[dict, dict[str, float]]:
    """A set's scores without learning, and each layer's number of parameters."""
    configs = {
        layer: parse_fit(fit_arguments(options, name, layer, 0))
        for layer in rows_of(options, name)
    }
    config = configs[options.layers[0]]
    task = make_task(config)
    feed = Feed(config, task)
    sizes = {layer: parameters_of(c, feed.inputs) for layer, c in configs.items()}
    return scores_without_learning(feed, task), sizes


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(
        Options, args=arguments, prog="python -m benchmarks.segmentation"
    )
    runs: dict[str, dict[str, list[dict]]] = {name: {} for name in options.sets}
    known = {name: known_beforehand(options, name) for name in options.sets}
    guesses = {name: guess for name, (guess, _) in known.items()}
    # Seed by seed, so that an interrupted benchmark has whole pairs.
    for seed in range(options.seeds):
        for name, (_, sizes) in known.items():
            planned = {
                place_of(options, name, layer, seed): fit_arguments(
                    options, name, layer, seed
                )
                for layer in rows_of(options, name)
            }
            done = all((place / layout.EVALUATION).exists() for place in planned)
            if options.only_report and not done:
                continue
            results = run_all(planned, options.jobs, evaluation=EVALUATION)
            for layer, result in zip(rows_of(options, name), results, strict=True):
                scores = result["test"] | {PARAMETERS: sizes[layer]}
                runs[name].setdefault(layer, []).append(result | {"test": scores})
        write(record_of(options, runs, guesses), options.results)
    for name in options.sets:
        rows = rows_of(options, name)
        workdirs = [place_of(options, name, layer, 0) for layer in rows]
        picture = options.results.with_name(f"{options.results.name}_{name}.png")
        picture_rows(workdirs, picture)


def record_of(
    options: Options,
    runs: dict[str, dict[str, list[dict]]],
    guesses: dict[str, dict[str, float]],
) -> dict:
    """RESULTS.json; what `benchmarks.segmentation_torch` put there stays."""
    file = options.results.with_suffix(".json")
    earlier = json.loads(file.read_text()) if file.exists() else {}
    return {
        "command": shown_command("benchmarks.segmentation", options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "no_learning": guesses,
        "runs": runs,
        "torch": earlier.get("torch", {}),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
