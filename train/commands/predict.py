"""The subcommand `predict`: what a network sees in image files, and where it looks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from cram_jax.drawing import image_grid
from train.commands.image_files import Found, find_images
from train.commands.options import PredictConfig
from train.data.sources.base import UnreadableImageError
from train.data.sources.decoding import decode_image
from train.errors import DONE, WRONG_USE, UserError
from train.evidence.sight import NoAnswerError, area_lines, as_record
from train.evidence.sight_picture import draw_sight
from train.learning.devices import JitParallel
from train.printing import printable, say
from train.run import layout
from train.run.checkpoints.restore import Trained, restore_trained
from train.run.outputs import Outputs
from train.run.workdir import load_config
from train.use import Prediction, TrainedRun

_COMMAND = "predict"
_CAM_CAPTION = "class activation map"


class Predictor:
    """Predicts image after image; one that cannot be used does not stop the others.

    Attributes:
      records: one for each image so far, with "error" where it cannot be used.
      failures: how many those are.
    """

    def __init__(
        self, trained: Trained, outputs: Outputs, *, cam: bool = False, top: int = 1
    ):
        """Compiles nothing yet.

        Args:
          trained: the network.
          outputs: where the pictures go.
          cam: draw the class activation map of the predicted class, too.
          top: how many of the likeliest classes to name.

        Raises:
          UserError: for `cam` or more than one class, if the task has no classes.
        """
        self.records: list[dict[str, Any]] = []
        self.failures = 0
        self._task, self._outputs = trained.experiment.task, outputs
        self._run, self._cam, self._top = TrainedRun(trained), cam, top
        self._taken: set[str] = set()
        self._notes: set[str] = set()
        if cam:
            self._run.check_cam()
        if top > 1 and not self._task.chooses_class:
            raise UserError(
                f"--top needs a task that chooses a class, and this run's is"
                f" {self._task.name!r}; leave it out."
            )

    def predict(self, file: Path) -> None:
        """Writes the picture of one image and prints its line."""
        try:
            image = decode_image(file, channels=3)
            (found,) = self._run.predict([image], cam=self._cam)
        except UnreadableImageError as error:
            self.fail(file, str(error).replace(str(file), "", 1).strip())
            return
        except (NoAnswerError, MemoryError) as error:
            self.fail(file, str(error) or "is too large for this machine's memory.")
            return
        best = found.top(self._top) if self._top > 1 else []
        picture = self._write_picture(file, image, found)
        record = {"image": printable(file), "picture": printable(picture)}
        record |= self._with_maps_written(file, found.answer)
        record |= {"top": best} if best else {}
        self.records.append(record | as_record(found.sight))
        others = [f"{printable(e['class'])} ({e['probability']:.1%})" for e in best[1:]]
        words = [self._task.line(found.answer), *others, *area_lines(found.sight)]
        say(f"{printable(file)}: {', '.join(words)}")

    def _write_picture(self, file: Path, image: np.ndarray, found: Prediction) -> Path:
        task = self._task
        caption = task.caption(found.answer)
        if caption.note is not None and caption.note not in self._notes:
            self._notes.add(caption.note)
            say(caption.note)

        def draw(picture: np.ndarray, scale: float) -> np.ndarray:
            return task.draw(picture, found.answer, scale)

        name = self._outputs.free_name(file.stem, layout.PREDICTION_ENDING, self._taken)
        picture = draw_sight(found.sight, image, caption.text, draw)
        if found.cam_sight is not None:
            beside = draw_sight(found.cam_sight, image, _CAM_CAPTION, spotlight=True)
            picture = image_grid([picture, beside], columns=2)
        return self._outputs.write(name, _png(picture))

    def _with_maps_written(
        self, file: Path, prediction: dict[str, Any]
    ) -> dict[str, Any]:
        """The prediction with the names of files in place of its maps of numbers."""
        written = dict(prediction)
        for name, value in prediction.items():
            if isinstance(value, np.ndarray):
                name_of_file = self._outputs.free_name(
                    file.stem, f"-{name}.png", self._taken
                )
                path = self._outputs.write(name_of_file, _png(value))
                written[name] = printable(path)
        return written

    def fail(self, file: Path, reason: str) -> None:
        """Notes an image that cannot be used."""
        self.failures += 1
        reason = _one_line(reason)
        self.records.append({"image": printable(file), "error": reason})
        say(f"error: {printable(file)} {reason}", error=True)


def predict(options: PredictConfig) -> int:
    """Writes a picture of each image, and predictions.json; prints one line each.

    Returns:
      WRONG_USE if one of the images could not be used, which does not stop the others.

    Raises:
      UserError: without any image, for a missing checkpoint, or where a file of
        another than this run's `predict` would have to be written over.
    """
    if not options.images:
        raise UserError("predict needs at least one image file.")
    if options.top < 1:
        raise UserError(f"--top must be 1 or more; got {options.top}.")
    load_config(options.workdir)
    outputs = Outputs(
        options.output or options.workdir / layout.PREDICTIONS_FOLDER,
        _COMMAND,
        [options.workdir],
    )
    outputs.check(layout.PREDICTIONS)
    found = find_images(options.images, made_by=_COMMAND)
    if not found.files:
        raise UserError(_no_image(found))
    parallel = JitParallel(jax.local_devices()[:1])
    trained = restore_trained(options.workdir, options.checkpoint, parallel)
    predictor = Predictor(trained, outputs, cam=options.cam, top=options.top)
    for note in found.notes:
        say(note)
    try:
        for path, reason in found.unusable.items():
            predictor.fail(path, reason)
        for file in found.files:
            predictor.predict(file)
    finally:
        # Also of what was done before a full disk or an impatient user.
        outputs.write_json(layout.PREDICTIONS, predictor.records)
    say(f"Pictures and {layout.PREDICTIONS} are in {printable(outputs.directory)}.")
    if predictor.failures:
        say(
            f"{predictor.failures} of {len(predictor.records)} could not be used; see"
            f' "error" in {layout.PREDICTIONS}.',
            error=True,
        )
    return WRONG_USE if predictor.failures else DONE


def _no_image(found: Found) -> str:
    reasons = [
        f"{printable(path)}: {_one_line(reason)}"
        for path, reason in found.unusable.items()
    ]
    return " ".join(["There is no image to look at.", *reasons, *found.notes])


def _one_line(text: str) -> str:
    return " ".join(printable(line) for line in text.splitlines())


def _png(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()
