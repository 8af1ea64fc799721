"""Prepared TFDS image classification sets, read without TensorFlow."""

from __future__ import annotations

import dataclasses
import difflib
import logging
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.datasets.base import DatasetInfo, Example, Truth, UnreadableImageError
from train.datasets.boxes import mask_rectangle
from train.datasets.decoding import object_mask
from train.datasets.locations import default_data_dir
from train.transforms import isotropic_to_pixel


class Layout(NamedTuple):
    """Where a set keeps the truth: feature names, "/" between nested ones.

    Attributes:
        box: a BBoxFeature (ymin, xmin, ymax, xmax in [0, 1]), or a sequence of them,
            of which the largest counts.
        mask: an image of one channel.
        is_object: mask values -> bool.
        rectangle: a rectangle in isotropic coordinates of the image.
    """

    box: str | None = None
    mask: str | None = None
    is_object: Callable[[np.ndarray], np.ndarray] | None = None
    rectangle: str | None = None

    @property
    def truth(self) -> Truth:
        """The best truth that the set has."""
        if self.rectangle:
            return "rotated"
        return "mask" if self.mask else "box" if self.box else "none"


def _is_one(mask: np.ndarray) -> np.ndarray:
    return mask == 1


def _is_bright(mask: np.ndarray) -> np.ndarray:
    return mask > 127


LAYOUTS = {
    "cluttered_digits": Layout(rectangle="rectangle"),
    # head_bbox is all zero on the test split, and not the animal: the mask counts.
    "oxford_iiit_pet": Layout(mask="segmentation_mask", is_object=_is_one),
    # Grey levels are the share of annotators.
    "caltech_birds2011": Layout("bbox", "segmentation_mask", _is_bright),
    "cars196": Layout("bbox"),
    "stanford_dogs": Layout("objects/bbox"),
}


@dataclasses.dataclass(frozen=True)
class TfdsSource:
    """A split of a prepared TFDS set; made by `open_tfds`."""

    info: DatasetInfo
    records: Sequence[Any]
    layout: Layout

    def __len__(self) -> int:
        """The number of images."""
        return self.info.num_examples

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        if not 0 <= index < len(self):
            raise IndexError(f"index must be in [0, {len(self)}), got {index}.")
        name = f"{self.info.name} {self.info.split} example {index}"
        try:
            record = self.records[index]
        # TFDS and Pillow raise nearly anything on a broken record.
        except Exception as error:
            raise UnreadableImageError(f"{name} is damaged: {error}.") from error
        image = np.asarray(record["image"])
        height, width = image.shape[:2]
        mask, rectangle = None, None
        if self.layout.mask and self.layout.is_object:
            present = self.layout.is_object(_feature(record, self.layout.mask)[..., 0])
            mask = object_mask(present, height, width, name=f"The mask of {name}")
            rectangle = mask_rectangle(mask)
        if self.layout.box:
            boxes = _feature(record, self.layout.box)
            rectangle = _largest_box(boxes, height, width)
        if self.layout.rectangle:
            isotropic = _feature(record, self.layout.rectangle)
            rectangle = isotropic_to_pixel(isotropic, height, width)
        return Example(image, int(record["label"]), rectangle, mask)


def open_tfds(
    name: str, split: str, *, data_dir: str | None, max_examples: int | None = None
) -> TfdsSource:
    """Opens NAME[/CONFIG][:VERSION] that was prepared as array_record.

    Args:
        name: as TFDS knows it. The sets of `LAYOUTS` have their truth read; of others
            a "bbox" feature.
        split: "train" or "test" (or the only validation split), or any of the set's.
        data_dir: where it was prepared; default: the first of `default_data_dir()` and
            TFDS's own directory that has it.
        max_examples: the first so many (TFDS stores examples in random order).

    Raises:
        ValueError: the set is unknown, not prepared, or not of images with labels.
    """
    import tensorflow_datasets as tfds

    # TFDS recommends OpenCV by a warning at the first image.
    logging.getLogger("absl").addFilter(_not_about_opencv)
    for directory in _directories(data_dir):
        builder = _builder(tfds, name, directory)
        if list(builder.info.splits):
            break
    return from_builder(builder, split, name=f"tfds:{name}", max_examples=max_examples)


def from_builder(
    builder: Any, split: str, *, name: str, max_examples: int | None = None
) -> TfdsSource:
    """A split of the set of a TFDS builder; see `open_tfds`."""
    features = builder.info.features
    for key, kind in (("image", "Image"), ("label", "ClassLabel")):
        if key not in features or type(features[key]).__name__ != kind:
            raise ValueError(
                f"{name} must have the features image and label of an image "
                f"classification set, got {', '.join(features)}."
            )
    stored_split = _stored_split(list(builder.info.splits), split, name)
    try:
        records = builder.as_data_source(stored_split)
    except Exception as error:
        how = _how_to_prepare(name.removeprefix("tfds:"), builder.data_dir_root)
        raise ValueError(
            f"{name} is not ready in {builder.data_path}. {how}"
        ) from error
    default = Layout("bbox") if "bbox" in features else Layout()
    layout = LAYOUTS.get(builder.name, default)
    height, width, channels = features["image"].shape
    num_examples = min(len(records), max_examples or len(records))
    info = DatasetInfo(
        name=name,
        split=split,
        class_names=tuple(features["label"].names),
        num_examples=num_examples,
        truth=layout.truth,
        channels=channels or 3,
        image_size=(height, width) if height and width else None,
    )
    return TfdsSource(info, records, layout)


def _feature(record: dict[str, Any], path: str) -> np.ndarray:
    for key in path.split("/"):
        record = record[key]
    return np.asarray(record)


def _largest_box(boxes: np.ndarray, height: int, width: int) -> np.ndarray | None:
    """TFDS boxes [4] or [n, 4] to one pixel rectangle; None if none has an area."""
    ymin, xmin, ymax, xmax = np.clip(boxes.reshape(-1, 4), 0, 1).astype(float).T
    w, h = width * np.maximum(xmax - xmin, 0), height * np.maximum(ymax - ymin, 0)
    if not (w * h > 0).any():
        return None
    best = int(np.argmax(w * h))
    x, y = width * (xmin + xmax)[best] / 2, height * (ymin + ymax)[best] / 2
    return np.array([x, y, w[best] / 2, h[best] / 2, 0.0])


def _directories(data_dir: str | None) -> list[str]:
    if data_dir is not None:
        return [str(Path(data_dir).expanduser())]
    own = os.environ.get("TFDS_DATA_DIR", str(Path.home() / "tensorflow_datasets"))
    return [own, str(default_data_dir())]


def _builder(tfds: Any, name: str, data_dir: str) -> Any:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.registered.DatasetNotFoundError as error:
        known = tfds.list_builders(with_community_datasets=False)
        close = difflib.get_close_matches(name.split("/")[0], known, 3)
        hint = f"; did you mean {' or '.join(close)}?" if close else "."
        raise ValueError(f"TFDS has no data set {name!r}{hint}") from error
    except ModuleNotFoundError as error:
        raise ValueError(
            f"TFDS cannot read {name!r} here without {error.name}. "
            f"{_how_to_prepare(name, data_dir)}"
        ) from error
    except ValueError as error:  # an unknown configuration; TFDS lists those it has
        raise ValueError(f"TFDS cannot open {name!r}: {error}") from error


def _stored_split(stored: list[str], split: str, name: str) -> str:
    """The set's name for a split; "test" may be its only validation split."""
    # A set that is not prepared yet has no splits; opening it says so.
    if split in stored or not stored:
        return split
    if split == "test" and "validation" in stored:
        return "validation"
    raise ValueError(f"{name} has no split {split!r}; it has {', '.join(stored)}.")


def _how_to_prepare(name: str, data_dir: str | Path) -> str:
    return (
        f"It must be prepared once as array_record: "
        f"pip install 'cram-jax[prepare]', then "
        f"tfds build {name} --file_format=array_record --data_dir={data_dir}"
    )


def _not_about_opencv(record: logging.LogRecord) -> bool:
    return "OpenCV" not in record.getMessage()
