"""Prepared TFDS image classification sets, read without TensorFlow."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from train.config.data import DataConfig
from train.data.sources.base import (
    NO_LABEL,
    DatasetInfo,
    Example,
    NoSplitError,
    Objects,
    UnreadableImageError,
    checked_label,
)
from train.data.sources.decoding import check_mask_size
from train.data.sources.folders.boxes import mask_rectangle
from train.data.sources.holding_out import hold_out, is_held_out, parted, shown
from train.data.sources.regions import OBJECT_REGIONS, named_regions
from train.data.sources.tfds.builders import found_builder, how_to_prepare
from train.data.sources.tfds.layouts import Layout, layout_of
from train.data.sources.tfds.splits import (
    label_hint,
    name_shared_images,
    stored_name,
)
from train.data.views import isotropic_to_pixel
from train.errors import package

# Reading the labels of more examples than this would take minutes at every start.
_MANY = 100_000
# What an image classification set has, by the names of TFDS's kinds of features.
_KINDS = {"image": "Image", "label": "ClassLabel"}


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared TFDS set; made by `open_tfds`."""

    info: DatasetInfo
    records: Sequence[Any]
    layout: Layout
    positions: np.ndarray | None = None  # among the records; None: all of them
    hint: str = ""  # what to do where there are no labels
    named: bool = False  # masks hold indices of `info.regions`, not one object

    def __len__(self) -> int:
        """The number of images."""
        return self.info.num_examples

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}), got {index}.")
        if self.positions is not None:
            index = int(self.positions[index])
        name = f"{self.info.name} {self.info.split} example {index}"
        try:
            record = self.records[index]
        # TFDS and Pillow raise nearly anything on a broken record.
        except Exception as error:
            raise UnreadableImageError(f"{name} is damaged: {error}.") from error
        image = np.asarray(record["image"])
        height, width = image.shape[:2]
        if self.layout.objects:
            objects = _objects(record, self.layout.objects, height, width)
            return Example(image, NO_LABEL, objects=objects)
        label = checked_label(
            int(record["label"]), self.info, name=f"example {index}", hint=self.hint
        )
        mask, regions, no_regions, rectangle = None, None, "", None
        if self.layout.mask and self.layout.is_object:
            values, its = (
                _feature(record, self.layout.mask)[..., 0],
                f"The mask of {name}",
            )
            check_mask_size(values, height, width, name=its)
            mask = self.layout.is_object(values).astype(np.uint8)
            regions, no_regions = (
                named_regions(values, self.info.regions, its)
                if self.named
                else self.layout.regions(values, mask, its)
            )
            rectangle = mask_rectangle(mask)
        if self.layout.box:
            boxes = _feature(record, self.layout.box)
            rectangle = _largest_box(boxes, height, width)
        if self.layout.rectangle:
            isotropic = _feature(record, self.layout.rectangle)
            rectangle = isotropic_to_pixel(isotropic, height, width)
        return Example(image, label, rectangle, mask, regions, no_regions)


def open_tfds(
    config: DataConfig, split: str, max_examples: int | None = None
) -> TfdsSource:
    """Opens tfds:NAME[/CONFIG][:VERSION] that was prepared as array_record.

    Args:
        config: names the set, as TFDS knows it, and where it was prepared; default: the
            first of TFDS's own directory and `default_data_dir()` that has it. The
            sets of `LAYOUTS` have their truth read; others a "bbox" feature.
        split: "train" or "test" (or the only validation split), any of the set's, a
            slice of one ("train[80%:]"), or `HELD_OUT`.
        max_examples: the first so many.

    Raises:
        NoSplitError: the set does not have the split.
        ValueError: the set is unknown, not prepared, or not of images with labels.
    """
    tfds = package("tensorflow_datasets", f"data.name = {config.name}")
    return from_builder(found_builder(tfds, config), config, split, max_examples)


def from_builder(
    builder: Any, config: DataConfig, split: str, max_examples: int | None
) -> TfdsSource:
    """A split of the set of a TFDS builder; see `open_tfds`.

    Args:
        builder: the set's.
        config: says what is held out, and what messages call the set.
        split: its split, or `HELD_OUT`.
        max_examples: the first so many (TFDS stores examples in random order).
    """
    features = builder.info.features
    layout = layout_of(builder.name, features, named=bool(config.regions))
    kinds = {"image": "Image"} if layout.objects else _KINDS
    for key, kind in kinds.items():
        if key not in features or type(features[key]).__name__ != kind:
            raise ValueError(
                f"{config.name} must have the features image and label of an image "
                f"classification set, got {', '.join(features)}."
            )
    name, held = config.name, is_held_out(config, split)
    splits = builder.info.splits
    stored_split = stored_name(splits, parted(config, split), name)
    records = _records(builder, stored_split, name)
    if not held:
        name_shared_images(splits, stored_split, config.train_split, name)
    positions = None
    if config.validation > 0 and (held or split == config.train_split):
        share = config.validation
        positions = _part(builder, stored_split, len(records), share, held=held)
    if max_examples is not None:
        positions = np.arange(len(records)) if positions is None else positions
        positions = positions[:max_examples]
    height, width, channels = features["image"].shape
    info = DatasetInfo(
        name=name,
        split=shown(config, split),
        class_names=() if layout.objects else tuple(features["label"].names),
        num_examples=len(records) if positions is None else len(positions),
        truth=layout.truth,
        channels=channels or 3,
        image_size=(height, width) if height and width else None,
        regions=(config.regions or OBJECT_REGIONS) if layout.mask else (),
        categories=layout.categories(features),
        rotated_objects=bool(layout.objects),
    )
    hint = label_hint(list(splits), split)
    return TfdsSource(info, records, layout, positions, hint, bool(config.regions))


def _records(builder: Any, split: str, name: str) -> Sequence[Any]:
    try:
        records = builder.as_data_source(split)
    except Exception as error:
        how = how_to_prepare(name.removeprefix("tfds:"), builder.data_dir_root)
        raise ValueError(
            f"{name} is not ready in {builder.data_path}. {how}"
        ) from error
    if not len(records):
        raise NoSplitError(f"{name} has no image in {split!r}.")
    return records


def _part(
    builder: Any, split: str, count: int, share: float, *, held: bool
) -> np.ndarray:
    """Positions of the training images that are held out, or of those that stay."""
    labels = [0] * count
    # Else each class has its share up to chance.
    if count <= _MANY and "label" in builder.info.features:
        import tensorflow_datasets as tfds

        features = builder.info.features
        skip = tfds.decode.SkipDecoding()
        images = [key for key in features if type(features[key]).__name__ == "Image"]
        records = builder.as_data_source(split, decoders=dict.fromkeys(images, skip))
        labels = [int(records[position]["label"]) for position in range(count)]
    return hold_out([str(position) for position in range(count)], labels, share)[held]


def _feature(record: dict[str, Any], path: str) -> np.ndarray:
    for key in path.split("/"):
        record = record[key]
    return np.asarray(record)


def _objects(record: dict[str, Any], path: str, height: int, width: int) -> Objects:
    isotropic = _feature(record, f"{path}/rectangle").reshape(-1, 5)
    labels = _feature(record, f"{path}/label").astype(np.int64)
    rectangles = isotropic_to_pixel(isotropic, height, width)
    return Objects(rectangles, labels, np.zeros(len(labels), bool))


def _largest_box(boxes: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """TFDS boxes [4] or [n, 4] to one pixel rectangle; None if none has an area."""
    ymin, xmin, ymax, xmax = np.clip(boxes.reshape(-1, 4), 0, 1).astype(float).T
    w, h = width * np.maximum(xmax - xmin, 0), height * np.maximum(ymax - ymin, 0)
    if not (w * h > 0).any():
        return None
    best = int(np.argmax(w * h))
    x, y = width * (xmin + xmax)[best] / 2, height * (ymin + ymax)[best] / 2
    return np.array([x, y, w[best] / 2, h[best] / 2, 0.0])
