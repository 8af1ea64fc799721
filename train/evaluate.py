"""The subcommand `evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

from train.cli import EvaluateConfig
from train.errors import DONE, UserError
from train.evaluation import Evaluator
from train.feed import Feed
from train.parallel import evaluation_parallel
from train.records import write_json
from train.restoring import restore_trained
from train.workdir import load_config

RESULT_FILE = "evaluation.json"


def scores_table(scores: Mapping[str, float], title: str) -> Table:
    """One row for classification, then one per attention layer and score."""
    table = Table(title=title)
    table.add_column("layer")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        layer, _, score = name.rpartition("/")
        shown = f"{value:,.0f}" if score == "images" else f"{value:.4f}"
        table.add_row(layer, score.replace("_", " "), shown)
    return table


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
    data = config.data
    if options.split is not None:
        data = dataclasses.replace(data, eval_split=options.split)
    feed = Feed(
        dataclasses.replace(
            config,
            data=data,
            batch_size=batch_size,
            optimizer=dataclasses.replace(config.optimizer, accumulate=1),
        )
    )
    task = dataclasses.replace(
        trained.experiment.task, truth=feed.eval_source.info.truth
    )
    evaluator = Evaluator(task, parallel)
    scored = {data.eval_split: feed.eval_batches()}
    if options.train_images:
        scored["train"] = feed.train_images()
    console, result = Console(), {"step": int(trained.step)}
    for split, batches in scored.items():
        scores = evaluator.scores(trained.variables, trained.step, batches)
        result[split] = scores
        title = f"{options.workdir}, step {int(trained.step)}: {split}"
        console.print(scores_table(scores, title))
    write_json(options.workdir / RESULT_FILE, result)
    return DONE
