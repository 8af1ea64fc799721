"""Rows of a batch: examples decoded, seen through a view, and put into arrays."""

from __future__ import annotations

import dataclasses

import numpy as np

from train.config.data import DataConfig
from train.data.sources.base import (
    DatasetInfo,
    Example,
    Source,
    UnreadableImageError,
    checked_label,
)
from train.data.sources.memory import MemorySource, name_skipped
from train.data.views import (
    View,
    eval_view,
    jitter_color,
    random_crop_view,
    render_mask,
    render_view,
    visible_rectangle,
)

Batch = dict[str, np.ndarray]

_DEFAULT_SIZE = 224


def input_shape(info: DatasetInfo, config: DataConfig) -> tuple[int, int, int]:
    """(height, width, channels) of the network input."""
    size = config.image_size
    if size is None:
        height, width = info.image_size or (0, 1)
        size = height if height == width else _DEFAULT_SIZE
    return size, size, info.channels


class RowMaker:
    """Makes batches of chosen images of one source.

    Where the set is in memory and no image is augmented but by mirroring, all rows are
    made at once here, and a batch is a matter of indexing. Both ways give equal rows.

    Attributes:
        source: the images.
        config: their size, crops and colours, and what to do about an unreadable one:
            with "skip" the next readable image takes its place, with weight 0. In
            training its `eval_crop` is 1, the largest central square.
        augments: crops and colours are drawn at random, by the generators given.
        table: the rows made beforehand, or None.
    """

    def __init__(self, source: Source, config: DataConfig, *, training: bool) -> None:
        plain = config.crop_area == (1, 1) and config.color_jitter == 0
        # The crop of evaluation is evaluation's alone.
        config = dataclasses.replace(config, eval_crop=1.0) if training else config
        self.source, self.config = source, config
        self.augments = training and not plain
        image_bytes = np.prod(input_shape(source.info, config)) * len(source)
        fits = image_bytes <= config.memory_limit_mb * 1e6
        in_memory = isinstance(source, MemorySource) and fits and not self.augments
        self.table = _make_table(source, config) if in_memory else None

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
            return _gather(self.table, indices, mirrored)
        batch = empty_rows(self.source.info, self.config, len(indices))
        upright = self.source.info.truth != "rotated"
        size = batch["image"].shape[1:3]
        for row, index in enumerate(indices):
            example, readable = _read(self.source, int(index), self.config.on_bad_image)
            rng = generators[row] if generators and self.augments else None
            view = _choose_view(example, self.config, bool(mirrored[row]), rng, size)
            kind = self.config.interpolation
            _fill(batch, row, example, view, upright=upright, interpolation=kind)
            if rng is not None and self.config.color_jitter:
                image = _jittered(batch["image"][row], self.config.color_jitter, rng)
                batch["image"][row] = image
            batch["weight"][row] = readable
        return batch


def empty_rows(info: DatasetInfo, config: DataConfig, rows: int) -> Batch:
    """A batch of black images without truth, with weight 1."""
    height, width, channels = input_shape(info, config)
    batch = {
        "image": np.zeros((rows, height, width, channels), np.uint8),
        "label": np.zeros(rows, np.int32),
        "weight": np.ones(rows, np.float32),
        "rectangle": np.zeros((rows, 5), np.float32),
        "rectangle_weight": np.zeros(rows, np.float32),
    }
    if info.truth == "mask":
        batch["object_mask"] = np.zeros((rows, height, width), np.uint8)
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


def _fill(
    batch: Batch,
    row: int,
    example: Example,
    view: View,
    *,
    upright: bool,
    interpolation: str | None,
) -> None:
    """Writes what is seen of one example into its row."""
    batch["image"][row] = render_view(example.image, view, interpolation)
    batch["label"][row] = example.label
    if example.rectangle is not None:
        seen = visible_rectangle(view, example.rectangle, upright=upright)
        if seen is not None:
            batch["rectangle"][row] = seen
            batch["rectangle_weight"][row] = 1.0
    if example.mask is not None and "object_mask" in batch:
        batch["object_mask"][row] = render_mask(example.mask, view)


def _jittered(
    image: np.ndarray, strength: float, rng: np.random.Generator
) -> np.ndarray:
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    return jitter_color(
        image, brightness=brightness, contrast=contrast, saturation=saturation
    )


def _read(source: Source, index: int, on_bad_image: str) -> tuple[Example, bool]:
    """An example, and whether it is the one asked for or the next readable one."""
    for later in range(len(source)):
        try:
            example = source[(index + later) % len(source)]
            checked_label(example.label, source.info, name=f"image {index + later}")
            return example, later == 0
        except UnreadableImageError as error:
            if on_bad_image == "raise":
                raise
            name_skipped(str(error))
    raise ValueError(f"{source.info.name} has no readable image.")


def _make_table(source: Source, config: DataConfig) -> Batch:
    """All rows of a set, none of them augmented."""
    table = empty_rows(source.info, config, len(source))
    upright, out_size = source.info.truth != "rotated", table["image"].shape[1:3]
    for row in range(len(source)):
        example, readable = _read(source, row, config.on_bad_image)
        view = _choose_view(example, config, False, None, out_size)
        kind = config.interpolation
        _fill(table, row, example, view, upright=upright, interpolation=kind)
        table["weight"][row] = readable
    return table


def _gather(table: Batch, indices: np.ndarray, mirrored: np.ndarray) -> Batch:
    batch = {name: values[indices] for name, values in table.items()}
    if mirrored.any():
        for name in batch.keys() & {"image", "object_mask"}:
            batch[name][mirrored] = batch[name][mirrored][:, :, ::-1]
        # Mirroring turns the sign of center_x and of the angle.
        batch["rectangle"][mirrored] *= np.array([-1, 1, 1, 1, -1], np.float32)
    return batch
