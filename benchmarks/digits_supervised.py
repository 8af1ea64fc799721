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
import json
import os
import platform
import shlex
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import tyro

from benchmarks.tables import cell
from cram_jax.attention.evidence import layer_evidence
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.distances import gaussian_distance_squared
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.similarity import transform_rectangle
from cram_jax.losses.equivariance import visible_fraction
from train.config.presets import preset
from train.data.loaders import Feed
from train.data.preparation import unit_range
from train.evidence.equivariance_error import (
    MAX_ANGLE,
    MAX_SCALE,
    MAX_SHIFT,
    MIN_INSIDE,
    equivariance_scores,
)
from train.learning import movement
from train.learning.devices import JitParallel
from train.learning.evaluator import Evaluator, shown_by
from train.learning.experiment import Experiment, make_experiment
from train.learning.state import Purpose, TrainState, image_keys

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
    """Of the runs."""
    epochs: float | None = None
    """Passes over the images; none: as the preset has it."""
    train_examples: int | None = None
    """Images; none: as the preset has it."""
    truth_weight: float = 1.0
    """Of the distances to the true rectangles; the labels' loss has 1."""
    workdir: Path = Path("runs/digits-supervised")
    """Directory of the scores of each seed."""
    results: Path = Path("results/digits_supervised")
    """RESULTS.json and RESULTS.md."""


def truth_distance(found: Rectangle, true: Rectangle) -> jax.Array:
    """Gaussian 2-Wasserstein distance `[...]` in units of the true rectangle's size."""
    area = true.half_width * true.half_height
    # The square root lets the many near pairs count beside the few far ones.
    return jnp.sqrt(gaussian_distance_squared(found, true) / area + 1e-3)


def _loss(
    params, batch_stats, experiment: Experiment, step, batch, keys, truth_weight: float
):
    """Labels and true rectangles of images and moved images; new batch statistics."""
    images, labels = unit_range(batch["image"]), batch["label"]
    true = Rectangle.from_array(batch["rectangle"])
    moved, similarities = movement.move_images(
        experiment.config.equivariance, keys, images
    )
    both = jnp.concatenate([images, moved])
    logits, updates = experiment.model.apply(
        {"params": params, "batch_stats": batch_stats, **experiment.schedule(step)},
        experiment.normalise(both),
        train=True,
        mutable=["batch_stats", "intermediates"],
    )
    entropy = optax.softmax_cross_entropy_with_integer_labels(
        logits, jnp.concatenate([labels, labels])
    ).mean()
    moved_true = transform_rectangle(similarities, true)
    extents = map_extents(*images.shape[1:3])
    seen = visible_fraction(moved_true, *extents) >= MIN_INSIDE
    distance = jnp.zeros(())
    for layer in layer_evidence(updates["intermediates"]).values():
        first, second = (
            jax.tree.map(lambda leaf, part=part: leaf[part], layer["rectangle"])
            for part in (slice(len(labels)), slice(len(labels), None))
        )
        distance += truth_distance(first, true).mean()
        distance += (seen * truth_distance(second, moved_true)).mean()
    return entropy + truth_weight * distance / 2, updates["batch_stats"]


def supervised_step(
    experiment: Experiment, truth_weight: float, state: TrainState, batch
) -> TrainState:
    """One step of the optimiser, as `train_step` but told the truth."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    keys = image_keys(key, Purpose.MOVEMENT, batch["label"].shape[0], None)
    gradients, batch_stats = jax.grad(_loss, has_aux=True)(
        state.params,
        state.batch_stats,
        experiment,
        state.step,
        batch,
        keys,
        truth_weight,
    )
    updates, opt_state = experiment.optimizer.update(
        gradients, state.opt_state, state.params
    )
    return state.replace(
        step=state.step + 1,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
    )


def train_and_score(seed: int, options: Options) -> dict[str, float]:
    """Scores on the test images, of the layer without its path."""
    config = preset("digits")
    data = config.data
    if options.train_examples is not None:
        data = dataclasses.replace(data, train_examples=options.train_examples)
    moves = dataclasses.replace(
        config.equivariance,
        max_angle=MAX_ANGLE,
        max_scale=MAX_SCALE,
        max_shift=MAX_SHIFT,
    )
    config = dataclasses.replace(
        config,
        seed=seed,
        epochs=options.epochs or config.epochs,
        data=data,
        equivariance=moves,
    )
    feed, parallel = Feed(config), JitParallel(jax.devices()[:1])
    experiment = make_experiment(config, feed.inputs, parallel)
    state = experiment.initial_state()
    update = parallel.compile_update(
        partial(supervised_step, experiment, options.truth_weight)
    )
    batches = feed.train_batches(0, parallel.place_batch)
    for step in range(experiment.total_steps):
        state = update(state, next(batches))
        if (step + 1) % 250 == 0:
            print(f"seed {seed}: step {step + 1} of {experiment.total_steps}")
    variables = state.evaluated_variables()
    evaluator = Evaluator(experiment, parallel)
    scores = evaluator.scores(variables, state.step, feed.eval_batches())
    placed = [parallel.place_batch(batch) for batch in feed.eval_batches()]
    scores |= equivariance_scores(
        shown_by(experiment, variables, state.step),
        placed,
        truth="rotated",
        fill=config.equivariance.fill,
    )[0]
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
