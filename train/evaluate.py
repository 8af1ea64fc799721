"""The subcommand `evaluate`."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from train.cli import EvaluateConfig
from train.config import FitConfig
from train.data_config import DataConfig
from train.equivariance_error import PICTURE, draw_curves, equivariance_scores
from train.errors import DONE, UserError
from train.evaluation import Evaluator
from train.feed import Feed
from train.parallel import Parallel, evaluation_parallel
from train.pipeline import Batch
from train.places import folder_of
from train.records import write_json
from train.restoring import Trained, restore_trained
from train.task import Task
from train.workdir import load_config

RESULT_FILE = "evaluation.json"


def scores_table(scores: Mapping[str, float], title: str) -> Table:
    """One row for classification, then one per attention layer and score."""
    # A path may hold what looks like rich's markup.
    table = Table(title=Text(title))
    table.add_column("layer")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        layer, _, score = name.rpartition("/")
        shown = f"{value:,.0f}" if score == "images" else f"{value:.4f}"
        table.add_row(layer, score.replace("_", " "), shown)
    return table


def _equivariance(
    options: EvaluateConfig,
    task: Task,
    trained: Trained,
    batches: Iterable[Batch],
    parallel: Parallel,
) -> tuple[dict[str, float], dict[str, list[dict[str, float]]]]:
    """Scores under movements, and their curves, which are drawn too."""
    if not trained.experiment.layers:
        return {}, {}
    size = options.batch_size or trained.experiment.config.batch_size
    count = math.ceil(options.equivariance_images / size)
    images = [parallel.place_batch(b) for b in itertools.islice(batches, count)]
    scores, curves = equivariance_scores(task, trained.variables, trained.step, images)
    draw_curves(curves, options.workdir / PICTURE)
    return scores, curves


def _data_now(config: FitConfig, options: EvaluateConfig) -> DataConfig:
    """The run's data set, where it is now and with the split to score.

    Raises:
      UserError: if the run's folder of images is no longer there.
    """
    given = {
        "name": options.data.name,
        "data_dir": options.data.data_dir,
        "eval_split": options.split,
    }
    given = {name: value for name, value in given.items() if value is not None}
    data = dataclasses.replace(config.data, **given)
    folder = folder_of(data.name)
    if options.data.name is None and folder is not None and not folder.exists():
        raise UserError(
            f"The images of this run were in {folder}, which is not there now. Say"
            " where they are: --data.name folder:PATH."
        )
    return data


def evaluate(options: EvaluateConfig) -> int:
    """Scores a checkpoint; prints a table, writes WORKDIR/evaluation.json.

    Raises:
      UserError: if there is nothing to score, or the images are not there.
    """
    config = load_config(options.workdir)
    batch_size = options.batch_size or config.batch_size
    if batch_size < 1:
        raise UserError(f"--batch-size must be 1 or more; got {batch_size}.")
    parallel = evaluation_parallel(batch_size)
    trained = restore_trained(options.workdir, options.checkpoint, parallel)
    data = _data_now(config, options)
    feed = Feed(
        dataclasses.replace(
            config,
            data=data,
            batch_size=batch_size,
            optimizer=dataclasses.replace(config.optimizer, accumulate=1),
        ),
        trained.experiment.inputs.class_names,
    )
    task = dataclasses.replace(
        trained.experiment.task, truth=feed.eval_source.info.truth
    )
    evaluator = Evaluator(task, parallel)
    scored = {data.eval_split: feed.eval_batches()}
    if options.train_images:
        scored["train"] = feed.train_images()
    console = Console()
    result: dict[str, Any] = {"step": int(trained.step)}
    for split, batches in scored.items():
        scores = evaluator.scores(trained.variables, trained.step, batches)
        if split == data.eval_split and options.equivariance_images > 0:
            moving, result["equivariance"] = _equivariance(
                options, task, trained, batches, parallel
            )
            scores |= moving
        result[split] = scores
        title = f"{options.workdir}, step {int(trained.step)}: {split}"
        console.print(scores_table(scores, title))
    write_json(options.workdir / RESULT_FILE, result)
    return DONE
