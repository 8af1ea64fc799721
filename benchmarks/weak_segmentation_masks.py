"""Photographs with masks made from what networks show, for `weak_segmentation`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image

from cram_jax import render_hard_mask
from train.config.data import DataConfig
from train.data.sources.base import IGNORED, Example
from train.data.sources.folders.folder import FolderSource, open_folder
from train.evidence.sight_picture import over_original
from train.use import Prediction

RECTANGLE, MAP = "rectangle", "class activation map"
MASKS = "masks"  # the folder's tree of masks
_BATCH = 32


class Network(Protocol):
    """What is asked of a `train.use.TrainedRun`."""

    def predict(self, images: Sequence[Path], *, cam: bool = ...) -> list[Prediction]:
        """What it says of image files."""
        ...


def object_pixels(made: np.ndarray, true: np.ndarray) -> tuple[int, int]:
    """Pixels of both objects, and of either one, where both maps know the region."""
    known = (made != IGNORED) & (true != IGNORED)
    both, either = (made == 1) & (true == 1), (made == 1) | (true == 1)
    return int((known & both).sum()), int((known & either).sum())


def rectangle_mask(found: Prediction) -> np.ndarray:
    """Bool `[H, W]` on the original: the inside of the only layer's rectangle."""
    (layer,) = found.sight.rectangles
    rectangle = found.sight.on_picture(layer)
    return np.asarray(render_hard_mask(rectangle, *found.sight.size)) > 0.5


def highest_pixels(values: np.ndarray, count: int, seen: np.ndarray) -> np.ndarray:
    """Bool `[H, W]`: the `count` highest values among the pixels that were seen."""
    order = np.argsort(-np.where(seen, values, -np.inf), axis=None, kind="stable")
    chosen = np.zeros(values.size, bool)
    chosen[order[:count]] = True
    return chosen.reshape(values.shape) & seen


def made_masks(
    layered: list[Prediction], bare: list[Prediction]
) -> Iterator[dict[str, np.ndarray]]:
    """Regions uint8 `[H, W]` of each photograph by source; what was not seen, ignored.

    Args:
      layered: predictions of the network with a rectangle.
      bare: predictions of the network without, with class activation maps.
    """
    for one, other in zip(layered, bare, strict=True):
        view = one.sight.view
        whole = np.ones((view.height, view.width), np.float32)
        seen = over_original(whole, view, one.sight.size) > 0
        inside = rectangle_mask(one) & seen
        cam = other.cam
        assert cam is not None
        masks = {
            RECTANGLE: inside,
            MAP: highest_pixels(cam, int(inside.sum()), seen),
        }
        yield {name: np.where(seen, mask, IGNORED) for name, mask in masks.items()}


def make_folders(
    original: Path, places: Mapping[str, Path], layered: Network, bare: Network
) -> dict[str, float]:
    """Writes folders of the same photographs, whose training masks are made.

    Test images keep their true masks, which are written in the same form.

    Args:
      original: SPLIT/CLASS/NAME and masks.
      places: where the folder of each source of masks goes.
      layered: a network with a rectangle.
      bare: one without, whose class activation maps are taken.

    Returns:
      IoU of the made objects with the true ones, over all training pixels, by source.
    """
    test, train = (_split(original, split) for split in ("test", "train"))
    for number in range(len(test)):
        for place in places.values():
            _add(place, test, number, _regions(test[number]))
    pixels = dict.fromkeys(places, np.zeros(2))
    for first in range(0, len(train), _BATCH):
        files = [train.root / path for path in train.paths[first : first + _BATCH]]
        looks = layered.predict(files), bare.predict(files, cam=True)
        for number, masks in enumerate(made_masks(*looks), first):
            true = _regions(train[number])
            for kind, mask in masks.items():
                _add(places[kind], train, number, mask)
                pixels[kind] = pixels[kind] + object_pixels(mask, true)
    return {kind: float(both / either) for kind, (both, either) in pixels.items()}


def _split(original: Path, split: str) -> FolderSource:
    return open_folder(DataConfig(name=f"folder:{original}"), split)


def _regions(example: Example) -> np.ndarray:
    if example.regions is None:
        raise SystemExit(f"The photographs must have masks: {example.no_regions}")
    return example.regions


def _add(place: Path, source: FolderSource, number: int, regions: np.ndarray) -> None:
    """A photograph and its mask; it stands in SPLIT/CLASS/NAME as in its source."""
    path = PurePosixPath(source.paths[number])
    for folder in (place, place / MASKS):
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
    (place / path).symlink_to((source.root / path).resolve())
    picture = Image.fromarray(regions.astype(np.uint8))
    picture.save(place / MASKS / path.with_suffix(".png"))
