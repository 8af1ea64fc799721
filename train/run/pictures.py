"""The pictures of a run: a file for each evaluation, and their film."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from train.run.outputs import Outputs

DIRECTORY = "pictures"
FILM = "looking.gif"


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
