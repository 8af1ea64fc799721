"""How far the digits network could go: trained with the true rectangles too.

    python -m benchmarks.digits_supervised
    python -m benchmarks.digits_supervised --seeds 0 --epochs 0.1 --train-examples 1000

Not a way to train, but a yardstick: the preset `digits` sees labels only, and this
tells how much of what its rectangles lack is the labels' fault, and how much the
network's. The same network, optimiser, images and steps; the equivariance loss is
replaced by the distance of each rectangle, in the image and in the moved image, to the
true one, over all movements that are evaluated. Started again it goes on where it
stopped, with whole seeds. Writes RESULTS.json and RESULTS.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import os
import platform
import shlex
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import tyro

from benchmarks.tables import cell
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.distances import gaussian_distance_squared
from cram_jax.geometry.overlap import visible_fraction
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import transform_rectangle
from train.commands.evaluate import evaluate
from train.commands.fit import fit
from train.commands.options import EvaluateConfig
from train.config.attention import BudgetConfig
from train.config.output import OutputConfig
from train.config.presets import preset
from train.config.run import FitConfig
from train.errors import DONE
from train.evidence.equivariance_error import (
    MAX_ANGLE,
    MAX_SCALE,
    MAX_SHIFT,
    MIN_INSIDE,
)
from train.learning.losses.terms import Look, Term, rectangles_of
from train.run import layout

_ALL = 10**6  # more images than there are
COLUMNS = {
    "test accuracy": ("accuracy", 4),
    "IoU": ("iou", 3),
    "share IoU >= 0.5": ("corloc", 3),
    "centre error (px)": ("center_error", 2),
    "equivariance IoU": ("equivariance_iou", 3),
    "if the mask stayed": ("equivariance_iou_still", 3),
}


@dataclasses.dataclass(frozen=True)
class Options:
    """What to train."""

    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds of the runs."""
    epochs: float | None = None
    """Passes over the images; none: as the preset has it."""
    train_examples: int | None = None
    """Images; none: as the preset has it."""
    truth_weight: float = 1.0
    """Weight of the distances to the true rectangles; the labels' loss has 1."""
    workdir: Path = Path("runs/digits-supervised")
    """Directory of the scores of each seed."""
    results: Path = Path("results/digits_supervised")
    """RESULTS.json and RESULTS.md."""


def truth_distance(found: Rectangle, true: Rectangle) -> jax.Array:
    """Gaussian 2-Wasserstein distance `[...]` in units of the true rectangle's size."""
    area = true.half_width * true.half_height
    # The square root lets the many near pairs count beside the few far ones.
    return jnp.sqrt(gaussian_distance_squared(found, true) / area + 1e-3)


def truth_term(weight: float) -> Term:
    """The distance to the truth, of images and of moved images, as a loss term."""

    def measure(look: Look) -> jax.Array:
        true = Rectangle.from_array(look.batch["rectangle"])
        moved_true = transform_rectangle(look.similarities, true)
        extents = map_extents(*look.batch["image"].shape[1:3])
        seen = visible_fraction(moved_true, *extents) >= MIN_INSIDE
        found = rectangles_of(look.evidence)
        moved = rectangles_of(look.moved_evidence or {})
        distances = [
            truth_distance(found[path], true)
            + seen * truth_distance(moved[path], moved_true)
            for path in found
        ]
        return functools.reduce(operator.add, distances) / 2

    return Term("truth", measure, lambda step: jnp.asarray(weight))


def supervised_config(seed: int, options: Options) -> FitConfig:
    """The preset without its equivariance loss and budget, over all movements."""
    config = preset("digits")
    epochs, data = options.epochs or config.epochs, config.data
    if options.train_examples is not None:
        data = dataclasses.replace(data, train_examples=options.train_examples)
    return dataclasses.replace(
        config,
        # The weight is no field of a config, so it tells the runs apart.
        workdir=options.workdir / f"seed-{seed}-weight-{options.truth_weight:g}",
        seed=seed,
        epochs=epochs,
        data=data,
        budget=BudgetConfig(),
        equivariance=dataclasses.replace(
            config.equivariance,
            weight=0.0,
            classify_moved=True,
            max_angle=MAX_ANGLE,
            max_scale=MAX_SCALE,
            max_shift=MAX_SHIFT,
        ),
        output=OutputConfig(
            log_every=250, evaluate_every=epochs, pictures=0, tensorboard=False
        ),
    )


def train_and_score(seed: int, options: Options) -> dict[str, float]:
    """Scores on the test images, by name without the layer's path."""
    config = supervised_config(seed, options)
    if fit(config, terms=[truth_term(options.truth_weight)]) != DONE:
        raise KeyboardInterrupt
    evaluate(EvaluateConfig(config.workdir, equivariance_images=_ALL))
    text = (config.workdir / layout.EVALUATION).read_text()
    scores = json.loads(text)[config.data.eval_split]
    return {name.rpartition("/")[2]: float(value) for name, value in scores.items()}


def main(arguments: list[str]) -> None:
    """Runs the seeds that are missing and writes the results."""
    options = tyro.cli(
        Options, args=arguments, prog="python -m benchmarks.digits_supervised"
    )
    options.workdir.mkdir(parents=True, exist_ok=True)
    settings = {
        name: getattr(options, name)
        for name in ("epochs", "train_examples", "truth_weight")
    }
    runs = []
    for seed in options.seeds:
        path = options.workdir / f"seed-{seed}.json"
        known = json.loads(path.read_text()) if path.exists() else {}
        if known.get("settings") != settings:
            scores = train_and_score(seed, options)
            known = {"settings": settings, "scores": scores}
            path.write_text(json.dumps(known))
        runs.append(known["scores"])
    record = {
        "command": shlex.join(
            ["python", "-m", "benchmarks.digits_supervised", *arguments]
        ),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "seeds": options.seeds,
        "runs": runs,
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    text = markdown(record)
    options.results.with_suffix(".md").write_text(text)
    print(text)


def markdown(record: dict) -> str:
    """A row for every seed, and their mean."""
    seeds, runs = record["seeds"], record["runs"]
    rows = {f"seed {seed}": [run] for seed, run in zip(seeds, runs, strict=True)}
    rows["all"] = runs
    lines = [
        "# The digits network, told where the digit is",
        "",
        f"`{record['command']}` on {record['machine']}; mean ± 95% interval over seeds"
        " (Student's t).",
        "",
        "| run | " + " | ".join(COLUMNS) + " |",
        "| --- |" + " ---: |" * len(COLUMNS),
    ]
    for name, scores in rows.items():
        cells = [
            cell([each.get(key) for each in scores], digits)
            for key, digits in COLUMNS.values()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main(sys.argv[1:])
