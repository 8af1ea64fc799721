"""The subcommand `data`: what a data set holds, before anything is trained on it."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table

from train.commands.options import DataReportConfig
from train.config.data import DataConfig
from train.config.places import FOLDER, expanded
from train.config.run import FitConfig
from train.data.pipeline import eval_batches, input_shape, train_batches
from train.data.sources import DatasetInfo, NoSplitError, Source, open_source
from train.data.sources.holding_out import HELD_OUT
from train.data.survey import Survey, size_summary, survey
from train.errors import DONE, WRONG_USE, UserError
from train.evidence.pictures import grid_of
from train.printing import printable, say
from train.run import layout
from train.run.outputs import Outputs
from train.tasks.classification import Classification
from train.tasks.detection import Detection
from train.tasks.registry import make_task
from train.tasks.task import Task

_SHOWN_CLASSES, _SHOWN_NAMES = 40, 5
_MOST_OBJECTS = 10_000  # of an image; no set is refused here for having many


def data_report(options: DataReportConfig) -> int:
    """Prints what a data set holds; writes data.json and pictures of batches.

    Returns:
      WRONG_USE if some images cannot be used, which are named.

    Raises:
      UserError: if the set cannot be opened, or another's file stands in the way.
    """
    data = _data_of(options)
    outputs = Outputs(options.output, "data", [Path(options.name)])
    outputs.check(layout.DATA_REPORT, *layout.DATA_PICTURES)
    console = Console()
    sources, notes = _open_splits(data)
    task = _task(sources["train"].info, options, data)
    earlier: set[bytes] = set()
    surveys = {}
    for split, source in sources.items():
        steps = partial(track, description=split, console=console, transient=True)
        surveys[split] = survey(source, task, earlier, steps)
    console.print(_classes_table(surveys, data.name))
    for line in [*notes, *_lines(surveys, input_shape(_info(sources), data))]:
        say(line)
    record = {split: found.as_record() for split, found in surveys.items()}
    outputs.write_json(layout.DATA_REPORT, {"name": data.name, "splits": record})
    _write_pictures(outputs, sources, surveys, data, task, options)
    say(
        f"Written to {printable(outputs.directory)}: {layout.DATA_REPORT} and"
        f" {' and '.join(layout.DATA_PICTURES)} (training images as a step sees them,"
        " augmented; and as they are scored)."
    )
    return WRONG_USE if any(found.broken for found in surveys.values()) else DONE


def _data_of(options: DataReportConfig) -> DataConfig:
    """The data config with the set's name: a folder may be given by its path alone."""
    is_folder = Path(expanded(options.name)).is_dir()
    name = f"{FOLDER}{options.name}" if is_folder else options.name
    # Broken images are named here; they shall not keep batches from being drawn.
    return dataclasses.replace(options.data, name=name, on_bad_image="skip")


def _task(info: DatasetInfo, options: DataReportConfig, data: DataConfig) -> Task:
    """The task that is asked for; detection where images have objects and no class."""
    task = make_task(FitConfig(task=options.task, data=data))
    no_class = isinstance(task, Classification) and not info.class_names
    return Detection(max_objects=_MOST_OBJECTS) if no_class else task


def _open_splits(data: DataConfig) -> tuple[dict[str, Source], list[str]]:
    """The splits by name, that to train on first, and sentences on those not there.

    Raises:
      UserError: if the set is unknown, not there, or breaks a rule.
    """
    wanted = {"train": (data.train_split, data.train_examples)}
    if data.validation > 0:
        wanted["held out"] = (HELD_OUT, None)
    wanted["test"] = (data.eval_split, data.eval_examples)
    sources, notes = {}, []
    for name, (split, count) in wanted.items():
        try:
            sources[name] = open_source(data, split, count)
        except NoSplitError as error:
            if name == "train":
                raise UserError(str(error)) from error
            notes.append(str(error))
        except (ValueError, OSError) as error:
            raise UserError(str(error)) from error
    return sources, notes


def _info(sources: Mapping[str, Source]):
    return sources["train"].info


def _classes_table(surveys: Mapping[str, Survey], name: str) -> Table:
    """One row for each class or category, one column for each split; then the sums."""
    table = Table(title=escape(printable(name)))
    info = surveys["train"].info
    table.add_column("category" if info.categories else "class")
    for split in surveys:
        table.add_column(split, justify="right")
    names = info.categories or info.class_names
    for label in names[:_SHOWN_CLASSES]:
        counts = [_count(found, label) for found in surveys.values()]
        table.add_row(escape(printable(label)), *map(str, counts))
    if len(names) > _SHOWN_CLASSES:
        table.add_row(f"and {len(names) - _SHOWN_CLASSES} more")
    table.add_section()
    table.add_row("all images", *(f"{found.readable:,}" for found in surveys.values()))
    return table


def _count(found: Survey, name: str) -> int:
    own = found.counts.per_category if found.info.categories else found.per_class
    return own[name]


def _lines(surveys: Mapping[str, Survey], shape: tuple[int, int, int]) -> list[str]:
    """What a person should know of the splits, in sentences."""
    lines = []
    for split, found in surveys.items():
        sizes = size_summary(found.sizes)
        shown = ", ".join(
            f"{name.replace('_', ' ')} {width} x {height}"
            for name, (height, width) in sizes.items()
        )
        truth = found.info.truth
        known = "" if truth == "none" else f"; {found.objects} with a {truth}"
        lines.append(f"{split}: {found.readable:,} images, {shown or 'none'}{known}.")
        if found.info.categories:
            lines.append(f"{split}: {found.counts.sentence()}.")
        small = sum(n for size, n in found.sizes.items() if min(size) < shape[0])
        if small:
            lines.append(
                f"{split}: {small} are smaller than the {shape[1]} x {shape[0]} pixels"
                " that the network sees, and will be enlarged."
            )
        for what, names in (
            ("have the pixels of an earlier image of the split", found.repeated),
            ("are also in an earlier split, which flatters scores", found.known),
            ("cannot be used", found.broken),
        ):
            if names:
                lines.append(f"{split}: {len(names)} {what}: {_some(names)}")
    counts = surveys["train"].per_class
    if counts and max(counts.values()) >= 3 * min(counts.values()):
        (most, many), *_, (least, few) = counts.most_common()
        lines.append(
            f"train: {printable(most)} has {many} images, {printable(least)} {few}: a"
            " network may learn to prefer the former."
        )
    return lines


def _some(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    shown = "; ".join(printable(name) for name in names[:_SHOWN_NAMES])
    return f"{shown}; and {more} more" if more > 0 else shown


def _write_pictures(
    outputs: Outputs,
    sources: Mapping[str, Source],
    surveys: Mapping[str, Survey],
    data: DataConfig,
    task: Task,
    options: DataReportConfig,
) -> None:
    """A batch as a step sees it, and as many images as an evaluation sees them."""
    source = sources["train"]
    if not surveys["train"].readable:
        return
    count = min(options.images, len(source))
    batches = train_batches(source, data, count, task=task, seed=options.seed)
    has_test = "test" in surveys and surveys["test"].readable > 0
    scored = sources["test"] if has_test else source
    rows = eval_batches(scored, data, count, task=task).rows
    chosen = np.arange(min(count, len(scored)))
    try:
        pictures = [next(batches), rows(chosen, np.zeros(len(chosen), bool))]
    finally:
        batches.close()
    for name, batch in zip(layout.DATA_PICTURES, pictures, strict=True):
        buffer = io.BytesIO()
        grid = grid_of(batch, None, {}, source.info.truth, task)
        Image.fromarray(grid).save(buffer, "PNG")
        outputs.write(name, buffer.getvalue())
