"""A planted shortcut: photographs with a small marker that gives the class away.

In a set called "beside" each photograph keeps its class and shows that class's marker
as well: the network may use either. In "alone" the photographs are dealt out to the
classes at random, so that the marker is all there is to go by. Markers are squares of
checks in two colours, the same from all sides that mirroring shows, at a random place.
boxes.csv gives the marker's box as the object's: the program then scores how well the
marker is found.
"""

from __future__ import annotations

import colorsys
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.faithfulness_judge import (
    accuracy_of,
    evaluation_images,
    joined,
    rectangles_of,
    shown_of,
)
from benchmarks.faithfulness_regions import highest
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask
from train.data.sources.decoding import decode_image
from train.data.views import eval_view, render_view
from train.run.checkpoints.restore import Trained

# How a test image is shown: as in training, without, with another class's marker.
MARKED, PLAIN, SWAPPED = "marked", "plain", "swapped"
VARIANTS = ("beside", "alone")
_CHECK = 3  # pixels
_DONE = "done.txt"


def marker_of(kind: int, kinds: int, side: int) -> np.ndarray:
    """The marker of a class, uint8 `[side, side, 3]`: checks of a colour and black."""
    colour = np.array(colorsys.hsv_to_rgb(kind / kinds, 1.0, 1.0)) * 255
    checks = (np.indices((side, side)) // _CHECK).sum(axis=0) % 2
    return np.where(checks[..., None] == 0, np.rint(colour), 0).astype(np.uint8)


def with_marker(image: np.ndarray, marker: np.ndarray, x: int, y: int) -> np.ndarray:
    """The image with the marker's upper left pixel at (x, y)."""
    side = len(marker)
    result = np.array(image)
    result[y : y + side, x : x + side] = marker
    return result


class Photograph(NamedTuple):
    """What becomes of one photograph.

    Attributes:
      file: the photograph.
      split: "train" or "test".
      label: number of its class, and of its marker.
      other: the marker that another class has.
      x, y: upper left pixel of its marker.
    """

    file: Path
    split: str
    label: int
    other: int
    x: int
    y: int


def planned(
    source: Path, classes: Sequence[str], variant: str, room: int
) -> Iterator[Photograph]:
    """All photographs of a folder SPLIT/CLASS/IMAGE; a function of their order.

    Args:
      source: the folder.
      classes: names of its class folders.
      variant: one of `VARIANTS`.
      room: how many places there are for a marker along x and y.
    """
    for number, split in enumerate(("train", "test")):
        rng = np.random.default_rng(number)
        files = [
            (file, label)
            for label, name in enumerate(classes)
            for file in sorted((source / split / name).iterdir())
        ]
        labels = np.array([label for _, label in files])
        # The same places in both variants.
        places = rng.integers(0, room, (len(files), 2))
        steps = rng.integers(1, len(classes), len(files))
        if variant == "alone":
            labels = rng.permutation(labels)
        others = (labels + steps) % len(classes)
        for (file, _), *rest in zip(files, labels, others, places, strict=True):
            label, other, (x, y) = rest
            yield Photograph(file, split, int(label), int(other), int(x), int(y))


def make_folders(
    source: Path, root: Path, variant: str, *, size: int, side: int
) -> dict[str, Path]:
    """Writes the photographs with and without markers, unless that is done.

    Photographs are cut to their central square and resized first, as the network sees
    them, so that all markers are of one size.

    Args:
      source: a folder SPLIT/CLASS/IMAGE with train and test.
      root: the folders `MARKED`, `PLAIN` and `SWAPPED` are made in it.
      variant: one of `VARIANTS`.
      size: side of the network's input in pixels.
      side: the marker's, in pixels.
    """
    folders = {name: root / name for name in (MARKED, PLAIN, SWAPPED)}
    if (root / _DONE).exists():
        return folders
    classes = sorted(path.name for path in (source / "train").iterdir())
    markers = [marker_of(kind, len(classes), side) for kind in range(len(classes))]
    boxes = []
    photographs = planned(source, classes, variant, size - side + 1)
    for number, each in enumerate(photographs):
        image = decode_image(each.file, channels=3)
        image = render_view(image, eval_view(image.shape[:2], (size, size)))
        place, path = each[-2:], f"{each.split}/{classes[each.label]}/{number:05d}.png"
        swapped = with_marker(image, markers[each.other], *place)
        marked = with_marker(image, markers[each.label], *place)
        for name, shown in ((MARKED, marked), (PLAIN, image), (SWAPPED, swapped)):
            _save(shown, folders[name] / path)
        boxes.append((path, each.x, each.y, each.x + side, each.y + side))
    for folder in folders.values():
        with (folder / "boxes.csv").open("w", newline="") as file:
            columns = "path", "xmin", "ymin", "xmax", "ymax"
            csv.writer(file).writerows([columns, *boxes])
    (root / _DONE).write_text("")
    return folders


def _save(image: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)


def pointed(points: np.ndarray, boxes: np.ndarray, reach: float) -> float:
    """The share of points `[N, 2]` no further than `reach` from boxes `[N, 4]`."""
    low, high = boxes[:, :2] - reach, boxes[:, 2:] + reach
    return float(np.mean(np.all((points >= low) & (points <= high), axis=1)))


def marker_scores(
    trained: Trained, folders: dict[str, Path], *, reach: float, share: float
) -> dict[str, Any]:
    """How a network does with and without the marker, and where it looks.

    Args:
      trained: with a rectangle, or without a layer.
      folders: what `make_folders` made.
      reach: pixels that a point may lie beside the marker, to be near it.
      share: part of the image, for the region of a map where there is no rectangle.
    """
    accuracy = accuracy_of(trained)
    batches = {
        name: evaluation_images(trained, f"folder:{folder}")
        for name, folder in folders.items()
    }
    batch = batches[MARKED]
    size = batch["image"].shape[1]
    boxes = _pixel_boxes(batch["rectangle"], size)
    shown = shown_of(trained, batch)
    parts = [(each.class_maps["CAM, predicted class"], count) for each, count in shown]
    cam = joined(parts)
    counts = np.full(len(cam), round(share * size * size))
    looks: dict[str, Any] = {}
    if next(iter(shown))[0].layers:
        found = Rectangle.from_array(rectangles_of(shown))
        region = np.asarray(render_hard_mask(found, size, size))
        counts = region.sum(axis=(1, 2))
        center = np.stack([found.center_x, found.center_y], axis=-1)
        looks["rectangle"] = _look((center + 1) / 2 * size, region, boxes, reach)
    row, column = np.divmod(cam.reshape(len(cam), -1).argmax(axis=1), size)
    peak = np.stack([column, row], axis=-1) + 0.5
    looks["CAM"] = _look(peak, highest(cam, counts), boxes, reach)
    middle = np.full((len(cam), 2), size / 2)
    chance = _look(middle, np.zeros_like(cam, bool), boxes, reach)
    looks["middle of the image"] = {name: chance[name] for name in ("on", "near")}
    return {
        "images": len(cam),
        "accuracy": {name: accuracy(each) for name, each in batches.items()},
        "looks": looks,
    }


def _pixel_boxes(rectangles: np.ndarray, size: int) -> np.ndarray:
    center, half = rectangles[:, :2], rectangles[:, 2:4]
    return (np.concatenate([center - half, center + half], axis=1) + 1) / 2 * size


def _look(
    points: np.ndarray, regions: np.ndarray, boxes: np.ndarray, reach: float
) -> dict[str, float]:
    """Where points and regions lie; "chance" is with the markers of other images."""

    def within(boxes: np.ndarray) -> float:
        column, row = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2).astype(int).T
        return float(np.mean(regions[np.arange(len(regions)), row, column]))

    others = [np.roll(boxes, shift, axis=0) for shift in range(1, min(len(boxes), 50))]
    return {
        "on": pointed(points, boxes, 0.0),
        "near": pointed(points, boxes, reach),
        "near, chance": float(np.mean([pointed(points, b, reach) for b in others])),
        "inside": within(boxes),
        "inside, chance": float(np.mean([within(other) for other in others])),
        "area": float(regions.mean()),
    }
