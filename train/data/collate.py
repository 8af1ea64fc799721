"""Rows of a batch: examples decoded, seen through a view, and put into arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Protocol

import numpy as np

from train.config.data import DataConfig
from train.data.augmentation.appearance import altered
from train.data.augmentation.mixtures import Mixture, Rows
from train.data.sources.base import (
    DatasetInfo,
    Example,
    Source,
    UnreadableImageError,
)
from train.data.sources.memory import MemorySource, name_skipped
from train.data.views import (
    View,
    eval_view,
    random_crop_view,
    render_mask,
    render_view,
    visible_rectangle,
)

Batch = dict[str, np.ndarray]


class RowTruth(Protocol):
    """What a row must know of a task; see `train.tasks.task.Task`."""

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """A row without truth."""
        ...

    def truth_of(self, example: Example, view: View) -> dict[str, np.ndarray]:
        """The truth of what is seen of an example."""
        ...

    def check(self, example: Example, info: DatasetInfo, name: str) -> None:
        """Refuses an example whose truth means nothing."""
        ...

    def mirrored(self, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The truth of mirrored images."""
        ...

    def mixed(self, truth: Rows, others: Rows, mixture: Mixture) -> Rows:
        """The truth of images that are mixed with others."""
        ...


_DEFAULT_SIZE = 224


def input_shape(info: DatasetInfo, config: DataConfig) -> tuple[int, int, int]:
    """(height, width, channels) of the network input."""
    size = config.image_size
    if size is None:
        height, width = info.image_size or (0, 1)
        size = height if height == width else _DEFAULT_SIZE
    height, width = size if isinstance(size, tuple) else (size, size)
    return height, width, info.channels


class RowMaker:
    """Makes batches of chosen images of one source.

    Where the set is in memory and no image is augmented but by mirroring, all rows are
    made at once here, and a batch is a matter of indexing. Both ways give equal rows.

    Attributes:
        source: the images.
        task: says which truth belongs to a row.
        config: their size, crops and looks, and what to do about an unreadable one:
            with "skip" the next readable image takes its place, with weight 0. In
            training its `eval_crop` is 1, the largest central square.
        augments: crops and looks are drawn at random, by the generators given.
        table: the rows made beforehand, or None.
    """

    def __init__(
        self, source: Source, config: DataConfig, task: RowTruth, *, training: bool
    ) -> None:
        plain = config.crop_area == (1, 1) and not config.alters_images
        # The crop of evaluation is evaluation's alone.
        config = dataclasses.replace(config, eval_crop=1.0) if training else config
        self.source, self.config, self.task = source, config, task
        self.augments = training and not plain
        image_bytes = np.prod(input_shape(source.info, config)) * len(source)
        fits = image_bytes <= config.memory_limit_mb * 1e6
        in_memory = isinstance(source, MemorySource) and fits and not self.augments
        self.table = self._make_table() if in_memory else None

    def __call__(
        self,
        indices: np.ndarray,
        mirrored: np.ndarray,
        generators: list[np.random.Generator] | None = None,
    ) -> Batch:
        """The batch of the images `indices` [B].

        Args:
            indices: int [B].
            mirrored: bool [B].
            generators: one per row, needed if `augments`.

        Raises:
            UnreadableImageError: names the image, if `config` says so.
        """
        if self.table is not None:
            return self._gather(indices, mirrored)
        batch = self._empty(len(indices))
        for row, index in enumerate(indices):
            rng = generators[row] if generators and self.augments else None
            self._fill(batch, row, int(index), bool(mirrored[row]), rng)
            if rng is not None:
                image = altered(batch["image"][row], self.config, rng)
                batch["image"][row] = image
        return batch

    def _empty(self, rows: int) -> Batch:
        info = self.source.info
        shape = input_shape(info, self.config)
        return empty_rows(shape, info.truth, self.task, rows)

    def padding(self, rows: int) -> Batch:
        """Rows that fill a batch up: no image, the task's blank truth, weight 0."""
        return {**self._empty(rows), "weight": np.zeros(rows, np.float32)}

    def _fill(
        self,
        batch: Batch,
        row: int,
        index: int,
        mirrored: bool,
        rng: np.random.Generator | None,
    ) -> None:
        """Writes what is seen of one image into its row."""
        config, info = self.config, self.source.info
        example, readable = _read(self.source, index, config.on_bad_image, self.task)
        view = _choose_view(example, config, mirrored, rng, batch["image"].shape[1:3])
        batch["image"][row] = render_view(example.image, view, config.interpolation)
        batch["weight"][row] = readable
        for name, value in self.task.truth_of(example, view).items():
            batch[name][row] = value
        _fill_object(batch, row, example, view, upright=info.truth != "rotated")

    def _make_table(self) -> Batch:
        """All rows of a set, none of them augmented."""
        table = self._empty(len(self.source))
        for row in range(len(self.source)):
            self._fill(table, row, row, mirrored=False, rng=None)
        return table

    def _gather(self, indices: np.ndarray, mirrored: np.ndarray) -> Batch:
        """Rows of the table."""
        assert self.table is not None
        batch = {name: values[indices] for name, values in self.table.items()}
        if mirrored.any():
            for name in batch.keys() & {"image", "object_mask"}:
                batch[name][mirrored] = batch[name][mirrored][:, :, ::-1]
            # Mirroring turns the sign of center_x and of the angle.
            batch["rectangle"][mirrored] *= np.array([-1, 1, 1, 1, -1], np.float32)
            own = self.task.blank_truth(batch["image"].shape[1:3])
            truth = {name: batch[name][mirrored] for name in own}
            for name, values in self.task.mirrored(truth).items():
                batch[name][mirrored] = values
        return batch


def empty_rows(
    image_shape: tuple[int, int, int], truth: str, task: RowTruth, rows: int
) -> Batch:
    """A batch of black images without truth, with weight 1.

    Args:
        image_shape: (height, width, channels) of the network's input.
        truth: what the set knows of the object; see `DatasetInfo`.
        task: says what else belongs to a row.
        rows: their number.
    """
    size = image_shape[:2]
    batch = {
        "image": np.zeros((rows, *image_shape), np.uint8),
        "weight": np.ones(rows, np.float32),
        "rectangle": np.zeros((rows, 5), np.float32),
        "rectangle_weight": np.zeros(rows, np.float32),
    }
    if truth == "mask":
        batch["object_mask"] = np.zeros((rows, *size), np.uint8)
    for name, value in task.blank_truth(size).items():
        batch[name] = np.repeat(value[None], rows, axis=0)
    return batch


def _choose_view(
    example: Example,
    config: DataConfig,
    mirrored: bool,
    rng: np.random.Generator | None,
    out_size: tuple[int, int],
) -> View:
    """A random crop, or without `rng` the central one of side `eval_crop`."""
    size = example.image.shape[:2]
    if rng is None or config.crop_area == (1, 1):
        view = eval_view(size, out_size, config.eval_crop)
    else:
        area, aspect = config.crop_area, config.crop_aspect
        view = random_crop_view(rng, size, out_size, area=area, aspect=aspect)
    return dataclasses.replace(view, mirrored=mirrored)


def _fill_object(
    batch: Batch, row: int, example: Example, view: View, *, upright: bool
) -> None:
    """Writes where the object is seen into its row."""
    if example.rectangle is not None:
        seen = visible_rectangle(view, example.rectangle, upright=upright)
        if seen is not None:
            batch["rectangle"][row] = seen
            batch["rectangle_weight"][row] = 1.0
    if example.mask is not None and "object_mask" in batch:
        batch["object_mask"][row] = render_mask(example.mask, view)


def _read(
    source: Source, index: int, on_bad_image: str, task: RowTruth
) -> tuple[Example, bool]:
    """An example, and whether it is the one asked for or the next readable one."""
    for later in range(len(source)):
        try:
            example = source[(index + later) % len(source)]
            task.check(example, source.info, f"image {index + later}")
            return example, later == 0
        except UnreadableImageError as error:
            if on_bad_image == "raise":
                raise
            name_skipped(str(error))
    raise ValueError(f"{source.info.name} has no readable image.")
