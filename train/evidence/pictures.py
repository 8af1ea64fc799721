"""Pictures of where the network looks: one grid per evaluation, and their film."""

from __future__ import annotations

import io
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cram_jax.drawing import PALETTE, draw_rectangles, image_grid, overlay_mask
from cram_jax.geometry.rectangle import Rectangle
from train.run.outputs import Outputs

DIRECTORY = "pictures"
FILM = "looking.gif"
_TRUTH_COLOR = "#ffffff"
_SHOWN_SIDE = 144
_COLUMNS = 8


def picture_of(
    image: np.ndarray,
    evidence: Mapping[str, Mapping[str, Any]],
    index: int,
    truth: np.ndarray | None,
) -> np.ndarray:
    """One image with the rectangle (or tinted mask) of each layer.

    Args:
      image: uint8 `[H, W, C]`.
      evidence: fetched, of a batch; see `train.learning.metrics.layer_evidence`.
      index: of the image in that batch.
      truth: five numbers of the true rectangle, drawn in white; or None.
    """
    upscale = max(1, _SHOWN_SIDE // max(image.shape[:2]))
    picture = image.repeat(upscale, axis=0).repeat(upscale, axis=1)
    for layer in evidence.values():
        if "rectangle" not in layer:
            mask = np.clip(np.asarray(layer["mask"][index], np.float32), 0.0, 1.0)
            picture = overlay_mask(picture, mask)
    if truth is not None:
        true = Rectangle.from_array(truth)
        picture = draw_rectangles(picture, true, color=_TRUTH_COLOR, width=1.5)
    found = [layer["rectangle"] for layer in evidence.values() if "rectangle" in layer]
    for rectangle, color in zip(found, itertools.cycle(PALETTE), strict=False):
        one = jax.tree.map(lambda leaf: np.asarray(leaf[index], np.float32), rectangle)
        picture = draw_rectangles(picture, one, color=color)
    return picture


def grid_of(
    batch: Mapping[str, np.ndarray],
    evidence: Mapping[str, Mapping[str, Any]],
    truth: str,
) -> np.ndarray:
    """A grid of all images of a batch, uint8 `[H, W, 3]`."""
    pictures = []
    for index in np.flatnonzero(np.asarray(batch["weight"]) > 0):
        known = truth != "none" and batch["rectangle_weight"][index] > 0
        true = batch["rectangle"][index] if known else None
        pictures.append(picture_of(batch["image"][index], evidence, int(index), true))
    return image_grid(pictures, columns=_COLUMNS)


def save_picture(workdir: Path, step: int, picture: np.ndarray) -> None:
    """Writes WORKDIR/pictures/step_00000123.png, or step_00000123-2.png."""
    outputs = Outputs(workdir / DIRECTORY, "fit", [workdir])
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    outputs.write(
        outputs.free_name(f"step_{step:08d}", ".png", set()), buffer.getvalue()
    )


def save_film(workdir: Path, seconds_per_picture: float = 0.4) -> Path | None:
    """Makes WORKDIR/looking.gif of all pictures; None if there are fewer than two.

    Where another's looking.gif stands, the film's name gets a number.
    """
    files = sorted((workdir / DIRECTORY).glob("step_*.png"))
    if len(files) < 2:
        return None
    frames = []
    for file in files:
        with Image.open(file) as frame:
            frames.append(frame.convert("P", palette=Image.Palette.ADAPTIVE))
    milliseconds = round(1000 * seconds_per_picture)
    durations = [milliseconds] * (len(frames) - 1) + [5 * milliseconds]
    buffer = io.BytesIO()
    frames[0].save(
        buffer,
        "GIF",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
    )
    outputs = Outputs(workdir, "fit", [workdir])
    name = outputs.free_name(Path(FILM).stem, Path(FILM).suffix, set())
    return outputs.write(name, buffer.getvalue())
