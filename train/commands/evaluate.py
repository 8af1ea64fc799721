"""The subcommand `evaluate`."""

from __future__ import annotations

import dataclasses
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from train.commands.options import EvaluateConfig
from train.commands.yardsticks import (
    YARDSTICKS,
    measured_yardsticks,
    yardsticks_table,
)
from train.config.data import DataConfig
from train.config.places import folder_of
from train.config.run import FitConfig
from train.data.loaders import Feed
from train.data.pipeline import Batch
from train.data.sources.holding_out import HELD_OUT
from train.errors import DONE, UserError
from train.evidence.equivariance_error import draw_curves, equivariance_scores
from train.learning.devices import Parallel, evaluation_parallel
from train.learning.evaluator import Evaluator, shown_by
from train.learning.experiment import Experiment
from train.printing import printable
from train.run import layout
from train.run.checkpoints.restore import Trained, restore_trained
from train.run.outputs import Outputs
from train.run.workdir import load_config


def scores_table(scores: Mapping[str, float | None], title: str) -> Table:
    """One row for classification, then one per attention layer and score.

    A score that is not known, or not a finite number, is shown as a dash.
    """
    # Square brackets in a path or a layer's name are no markup.
    table = Table(title=escape(printable(title)))
    table.add_column("layer")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in scores.items():
        layer, _, score = name.rpartition("/")
        if value is None or not math.isfinite(value):
            shown = "-"
        else:
            shown = f"{value:,.0f}" if "images" in score else f"{value:.4f}"
        table.add_row(escape(layer), escape(score.replace("_", " ")), shown)
    return table


def result_files(workdir: Path, names: Sequence[str]) -> Outputs:
    """Where the results go, after a check that nobody else's files stand there.

    Raises:
      UserError: if they do.
    """
    outputs = Outputs(workdir, "evaluate", [workdir])
    if _is_evaluation(workdir / layout.EVALUATION):
        outputs.adopt(layout.EVALUATION, layout.EQUIVARIANCE_PICTURE)
    outputs.check(*names)
    return outputs


def _is_evaluation(path: Path) -> bool:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return False
    return isinstance(values, dict) and isinstance(values.get("step"), int)


def _split_of(data: DataConfig, split: str | None) -> str | None:
    """What `split` is called here: "validation" is what the run held out, if it did."""
    is_own = data.validation == 0 or split == data.eval_split
    return HELD_OUT if split == "validation" and not is_own else split


def _same_images(data: DataConfig) -> bool:
    """Whether the split that is scored is exactly what was trained on."""
    is_training = data.eval_split == data.train_split
    return is_training and data.eval_examples == data.train_examples


def _key(split: str) -> str:
    """Name of a split's scores in the file, where two names have another meaning."""
    return f"{split}_split" if split in ("step", "equivariance", YARDSTICKS) else split


def _equivariance(
    options: EvaluateConfig,
    experiment: Experiment,
    trained: Trained,
    batches: Iterable[Batch],
    parallel: Parallel,
    outputs: Outputs,
) -> tuple[dict[str, float], dict[str, list[dict[str, float]]]]:
    """Scores under movements, and their curves, which are drawn too."""
    if not trained.experiment.layers:
        return {}, {}
    scores, curves = equivariance_scores(
        shown_by(experiment, trained.variables, trained.step),
        map(parallel.place_batch, batches),
        truth=experiment.inputs.truth,
        fill=experiment.config.equivariance.fill,
        count=options.equivariance_images,
    )
    picture = io.BytesIO()
    draw_curves(curves, picture)
    outputs.write(layout.EQUIVARIANCE_PICTURE, picture.getvalue())
    return scores, curves


def _data_now(config: FitConfig, options: EvaluateConfig) -> DataConfig:
    """The run's data set, where it is now and with the split to score.

    Raises:
      UserError: if the run's folder of images is no longer there.
    """
    given = {
        "name": options.data.name,
        "data_dir": options.data.data_dir,
        "eval_split": _split_of(config.data, options.split),
    }
    given = {name: value for name, value in given.items() if value is not None}
    data = dataclasses.replace(config.data, **given)
    folder = folder_of(data.name)
    if options.data.name is None and folder is not None and not folder.exists():
        raise UserError(
            f"The images of this run were in {folder}, which is not there now. Say"
            f" where they are: --data.name {data.name.partition(':')[0]}:PATH."
        )
    return data


def _feed(trained: Trained, data: DataConfig, batch_size: int) -> Feed:
    """The images to score, as the network takes them, with its classes."""
    optimizer = dataclasses.replace(trained.config.optimizer, accumulate=1)
    config = dataclasses.replace(
        trained.config, data=data, batch_size=batch_size, optimizer=optimizer
    )
    experiment = trained.experiment
    return Feed(config, experiment.task, experiment.inputs)


def evaluate(options: EvaluateConfig) -> int:
    """Scores a checkpoint; prints a table, writes WORKDIR/evaluation.json.

    Raises:
      UserError: if there is nothing to score, or the images are not there.
    """
    config = load_config(options.workdir)
    batch_size = options.batch_size or config.batch_size
    if batch_size < 1:
        raise UserError(f"--batch-size must be 1 or more; got {batch_size}.")
    drawn = [layout.EQUIVARIANCE_PICTURE] if options.equivariance_images > 0 else []
    outputs = result_files(options.workdir, [layout.EVALUATION, *drawn])
    parallel = evaluation_parallel(batch_size)
    trained = restore_trained(options.workdir, options.checkpoint, parallel)
    data = _data_now(config, options)
    feed = _feed(trained, data, batch_size)
    truth = feed.eval_source.info.truth
    inputs = dataclasses.replace(trained.experiment.inputs, truth=truth)
    experiment = dataclasses.replace(trained.experiment, inputs=inputs)
    evaluator = Evaluator(experiment, parallel)
    main = _key(feed.eval_source.info.split)
    scored = {main: feed.eval_batches()}
    if options.train_images and not _same_images(data):
        scored["train" if main != "train" else "train_images"] = feed.train_images()
    console = Console()
    result: dict[str, Any] = {"step": int(trained.step)}
    for split, batches in scored.items():
        scores = evaluator.scores(trained.variables, trained.step, batches)
        if split == main and options.equivariance_images > 0:
            moving, result["equivariance"] = _equivariance(
                options, experiment, trained, batches, parallel, outputs
            )
            scores |= moving
        result[split] = scores
        title = f"{options.workdir}, step {int(trained.step)}: {split}"
        console.print(scores_table(scores, title))
        if split == main and options.yardsticks and truth != "none":
            found = measured_yardsticks(
                experiment, trained.variables, trained.step, feed, batches, parallel
            )
            result[YARDSTICKS] = found
            console.print(yardsticks_table(found, f"{main}, beside yardsticks"))
    outputs.write_json(layout.EVALUATION, result)
    return DONE
