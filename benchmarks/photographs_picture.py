"""The picture of `benchmarks.photographs`: equal photographs, a row a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cram_jax.drawing import PALETTE, draw_rectangles, image_grid, overlay_mask
from cram_jax.geometry.rectangle import Rectangle
from train.data.loaders import Feed
from train.errors import UserError
from train.evidence.answers import Shown
from train.learning.devices import JitParallel
from train.learning.evaluator import explain
from train.run.checkpoints.restore import Trained, restore_trained

# Arm and caption of each row.
ROWS = (
    ("rectangular-both", "learned rectangle"),
    ("none", "CAM of the bare network"),
    ("positionwise-trunk-both", "position-wise mask"),
)
# Of a photograph in the sheet: 24 of them stay under a megabyte.
_SIDE = 144


def spread_indices(count: int, images: int) -> np.ndarray:
    """The middles of `count` equal parts of a list of images."""
    count = min(count, images)
    return np.arange(count) * images // count + images // (2 * count)


def outlined(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with the edge of a bool mask of the same size in white."""
    from scipy.ndimage import binary_dilation, binary_erosion

    edge = mask & ~np.asarray(binary_erosion(mask), bool)
    around = np.asarray(binary_dilation(mask), bool) & ~mask
    result = np.array(picture)
    result[around] = result[around] // 2
    result[edge] = 255
    return result


def shown_on(image: np.ndarray, shown: Shown, index: int) -> np.ndarray:
    """One image with the rectangle or mask of its layer, or without one its CAM."""
    for layer in shown.layers.values():
        if "rectangle" in layer:
            found = jax.tree.map(
                lambda leaf: np.asarray(leaf[index]), layer["rectangle"]
            )
            rectangle = Rectangle.from_array(np.asarray(found.as_array(), np.float32))
            return draw_rectangles(image, rectangle, color=PALETTE[0], width=2.5)
        return _lit(image, np.asarray(layer["mask"][index]))
    return _lit(image, np.asarray(shown.class_maps["CAM, true class"][index]))


def _lit(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    values = np.clip(values.astype(np.float32), 0.0, 1.0)
    return overlay_mask(image, values, color="#000000", opacity=0.85, outside=True)


def chosen_images(trained: Trained, count: int) -> Mapping[str, Any]:
    """Test images spread over the list, and with it over the classes."""
    feed = Feed(trained.config, trained.experiment.task, trained.experiment.inputs)
    total = len(feed.eval_source)
    chosen = spread_indices(count, total)
    whole = feed.fixed_batch(total)
    return {name: values[chosen] for name, values in whole.items()}


def pictures_of(workdir: Path, count: int) -> list[np.ndarray] | None:
    """What one run shows of its test images; None where nothing was trained."""
    try:
        trained = restore_trained(workdir, "latest", JitParallel(jax.devices()[:1]))
    except (UserError, OSError):
        return None
    batch = chosen_images(trained, count)
    look: Callable = jax.jit(
        partial(explain, trained.experiment, trained.variables, trained.step)
    )
    shown = jax.device_get(look(batch))
    pictures = []
    for index, image in enumerate(batch["image"]):
        picture = shown_on(image, shown, index)
        if "object_mask" in batch:
            picture = outlined(picture, batch["object_mask"][index] > 0)
        elif batch["rectangle_weight"][index] > 0:
            true = Rectangle.from_array(batch["rectangle"][index])
            picture = draw_rectangles(picture, true, color="#ffffff", width=1.5)
        pictures.append(np.asarray(Image.fromarray(picture).resize((_SIDE, _SIDE))))
    return pictures


def draw(workdir: Path, sets: Sequence[str], path: Path, *, count: int = 4) -> bool:
    """Draws the first seed's networks; whether there was anything to draw.

    A row in which one of the sets has no run stays out.
    """
    pictures, captions, columns = [], [], 1
    for arm, caption in ROWS:
        found = [pictures_of(workdir / name / f"{arm}-0", count) for name in sets]
        row = [picture for each in found if each for picture in each]
        if all(found) and row:
            pictures += row
            captions += [caption] * len(row)
            columns = len(row)
    if not pictures:
        return False
    save_sheet(pictures, captions, columns, path)
    return True


def save_sheet(
    pictures: Sequence[np.ndarray], captions: Sequence[str], columns: int, path: Path
) -> None:
    """Writes photographs with captions as a PNG."""
    sheet = image_grid(pictures, columns=columns, captions=captions)
    Image.fromarray(sheet).save(path, optimize=True)
