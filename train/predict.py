"""The subcommand `predict`: class, and where the network looked, of image files."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cram_jax.drawing import PALETTE, draw_rectangles, overlay_mask
from cram_jax.rectangle import Rectangle, rectangle_corners
from train.cli import PredictConfig
from train.datasets.base import UnreadableImageError
from train.datasets.decoding import decode_image
from train.errors import DONE, CannotWriteError, UserError
from train.parallel import JitParallel
from train.pretrained import with_source_interpolation
from train.records import write_json
from train.restoring import Trained, restore_trained
from train.steps import observe
from train.transforms import (
    View,
    eval_view,
    pixel_to_isotropic,
    rectangle_to_source,
    render_view,
)

RESULT_FILE = "predictions.json"
_SHOWN_SIDE = 192
_FIELDS = ("center_x", "center_y", "half_width", "half_height", "angle")


@dataclass(frozen=True)
class Sight:
    """What the network made of one image.

    Attributes:
      label: index of the class.
      probability: of that class.
      rectangles: float64 `[5]` in isotropic coordinates of the view, by layer.
      masks: float32 `[h, w]` over the network's view, of position-wise layers.
      view: what the network saw of the original.
    """

    label: int
    probability: float
    rectangles: dict[str, np.ndarray]
    masks: dict[str, np.ndarray]
    view: View


def see(trained: Trained, look: Any, image: np.ndarray) -> Sight:
    """Classifies one uint8 image `[H, W, C]` of any size."""
    height, width, _ = trained.experiment.inputs.image_shape
    data = with_source_interpolation(trained.config)
    view = eval_view(image.shape[:2], (height, width), data.eval_crop)
    logits, evidence = look(render_view(image, view, data.interpolation)[None])
    probabilities = np.asarray(jax.nn.softmax(logits[0]))
    label = int(np.argmax(probabilities))
    rectangles, masks = {}, {}
    for path, layer in evidence.items():
        if "rectangle" in layer:
            rectangle = layer["rectangle"].as_array()[0]
            rectangles[path] = np.asarray(rectangle, np.float64)
        else:
            masks[path] = np.asarray(layer["mask"][0], np.float32)
    return Sight(label, float(probabilities[label]), rectangles, masks, view)


def _named(rectangle: np.ndarray) -> dict[str, float]:
    return dict(zip(_FIELDS, map(float, rectangle), strict=True))


def as_record(sight: Sight, class_names: tuple[str, ...]) -> dict[str, Any]:
    """The JSON record of one image.

    Of each rectangle "view" holds the five numbers in isotropic coordinates of what
    the network saw, "pixels" those in pixels of the original file (0 is the left or
    upper edge), and "corners" the four (x, y) in those pixels.
    """
    rectangles = {}
    for path, rectangle in sight.rectangles.items():
        pixels = rectangle_to_source(sight.view, rectangle)
        # Corners scale with their rectangle: pixels serve as well as any other unit.
        corners = rectangle_corners(Rectangle.from_array(pixels))
        rectangles[path] = {
            "view": _named(rectangle),
            "pixels": _named(pixels),
            "corners": np.asarray(corners).tolist(),
        }
    return {
        "class": class_names[sight.label],
        "probability": sight.probability,
        "rectangles": rectangles,
    }


def draw(sight: Sight, image: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    """The original image with masks, rectangles, class and probability."""
    height, width = image.shape[:2]
    upscale = max(1, _SHOWN_SIDE // max(height, width))
    picture = image.repeat(upscale, axis=0).repeat(upscale, axis=1)
    for mask in sight.masks.values():
        picture = overlay_mask(picture, _over_original(mask, sight.view, image.shape))
    text = f"{class_names[sight.label]} {sight.probability:.0%}"
    line = max(2.0, max(picture.shape) / 200)
    for index, rectangle in enumerate(sight.rectangles.values()):
        pixels = rectangle_to_source(sight.view, rectangle)
        picture = draw_rectangles(
            picture,
            Rectangle.from_array(pixel_to_isotropic(pixels, height, width)),
            color=PALETTE[index % len(PALETTE)],
            width=line,
            labels=[text] if index == 0 else None,
        )
    return np.asarray(picture)


def _over_original(mask: np.ndarray, view: View, shape: tuple[int, ...]) -> np.ndarray:
    """A mask over the view as one over the whole original, 0 outside the view."""
    left, top = max(round(view.left), 0), max(round(view.top), 0)
    right, bottom = min(round(view.right), shape[1]), min(round(view.bottom), shape[0])
    size = (max(right - left, 1), max(bottom - top, 1))
    stretched = Image.fromarray(mask).resize(size, Image.Resampling.BILINEAR)
    whole = np.zeros(shape[:2], np.float32)
    whole[top:bottom, left:right] = np.clip(np.asarray(stretched), 0.0, 1.0)
    return whole


def _picture_names(files: tuple[Path, ...]) -> list[str]:
    """One name per file; equal names of different directories get a number."""
    names: list[str] = []
    for file in files:
        name, number = f"{file.stem}.png", 2
        while name in names:
            name, number = f"{file.stem}-{number}.png", number + 1
        names.append(name)
    return names


def predict(options: PredictConfig) -> int:
    """Writes a picture of each image, and predictions.json; prints one line each.

    Raises:
      UserError: for a missing checkpoint, or an image that cannot be read.
    """
    if not options.images:
        raise UserError("predict needs at least one image file.")
    parallel = JitParallel(jax.local_devices()[:1])
    trained = restore_trained(options.workdir, options.checkpoint, parallel)
    names = trained.experiment.inputs.class_names
    look = jax.jit(
        partial(observe, trained.experiment.task, trained.variables, trained.step)
    )
    channels = trained.experiment.inputs.image_shape[-1]
    output = options.output or options.workdir / "predictions"
    records = []
    for file, picture in zip(
        options.images, _picture_names(options.images), strict=True
    ):
        image = _decoded(file, channels)
        sight = see(trained, look, image)
        record = {"image": str(file), "picture": str(output / picture)}
        records.append(record | as_record(sight, names))
        _write_picture(output / picture, draw(sight, image, names))
        print(f"{file}: {records[-1]['class']} ({sight.probability:.1%})")
    write_json(output / RESULT_FILE, records)
    print(f"Pictures and {RESULT_FILE} are in {output}.")
    return DONE


def _decoded(file: Path, channels: int) -> np.ndarray:
    try:
        return decode_image(file, channels=channels)
    except UnreadableImageError as error:
        raise UserError(str(error)) from error


def _write_picture(path: Path, picture: np.ndarray) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(path)
    except OSError as error:
        raise CannotWriteError(
            f"{path} cannot be written: {error.strerror or error}."
        ) from error
