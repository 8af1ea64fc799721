"""The pictures of a run: a file for each evaluation, and their film."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cram_jax.drawing.fonts import load_font
from train.run import layout
from train.run.outputs import Outputs


def save_picture(workdir: Path, step: int, picture: np.ndarray) -> None:
    """Writes WORKDIR/pictures/step_00000123.png, or step_00000123-2.png."""
    outputs = Outputs(workdir / layout.PICTURES, "fit", [workdir])
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    outputs.write(
        outputs.free_name(layout.step_picture(step), ".png", set()), buffer.getvalue()
    )


def with_step(picture: Image.Image, step: int) -> Image.Image:
    """The picture with a line below it that says the step."""
    text = f"step {step:,}"
    height = 20
    framed = Image.new("RGB", (picture.width, picture.height + height), "white")
    framed.paste(picture, (0, 0))
    pen = ImageDraw.Draw(framed)
    pen.text((4, picture.height + 2), text, font=load_font(text, 14), fill="black")
    return framed


def save_film(workdir: Path, seconds_per_picture: float = 0.4) -> Path | None:
    """Makes WORKDIR/looking.gif of all pictures; None if there are fewer than two.

    Each says below of which step it is. Where another's looking.gif stands, the film's
    name gets a number.
    """
    files = sorted((workdir / layout.PICTURES).glob(layout.STEP_PICTURES))
    if len(files) < 2:
        return None
    frames = []
    for file in files:
        with Image.open(file) as frame:
            named = with_step(frame.convert("RGB"), layout.step_of_picture(file.name))
            frames.append(named.convert("P", palette=Image.Palette.ADAPTIVE))
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
    name = outputs.free_name(*os.path.splitext(layout.FILM), set())
    return outputs.write(name, buffer.getvalue())
