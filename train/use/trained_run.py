"""A trained run in Python: load it, and show it images of any size and number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cram_jax.drawing.images import as_picture
from train.config.run import FitConfig
from train.data.preparation import with_source_interpolation
from train.data.sources.decoding import decode_image
from train.evidence.sight import NoAnswerError, Seen, Sight, seen_by, sight_of
from train.learning.devices import JitParallel
from train.learning.evaluator import explain_prediction, observe
from train.learning.processes import own_numerics
from train.run.checkpoints.restore import Trained, restore_trained
from train.use.prediction import Prediction

Image = str | os.PathLike[str] | np.ndarray | jax.Array
# Numbers of images that the network is compiled for; others are filled up to the next.
SIZES = (1, 4, 16, 64)


class TrainedRun:
    """A trained network, with all that its run knows about images.

    Attributes:
      config: the run's, as `config.json` has it.
      class_names: one for each class.
      step: the checkpoint's.
      model: the linen network, from normalised images `[B, H, W, C]` to outputs.
      variables: its "params", "batch_stats" and "schedule", for
        `model.apply(variables, images)`.
    """

    def __init__(self, trained: Trained):
        """Compiles nothing yet."""
        experiment = trained.experiment
        self.config: FitConfig = experiment.config
        self.class_names = experiment.inputs.class_names
        self.step = int(trained.step)
        self.model: nn.Module = experiment.model
        self.variables: dict[str, Any] = {
            **trained.variables,
            **experiment.schedule(trained.step),
        }
        self._experiment, self._trained = experiment, trained
        self._data = with_source_interpolation(experiment.config)
        self._look = jax.jit(partial(observe, experiment))
        self._explain = jax.jit(partial(explain_prediction, experiment))

    def predict(
        self, images: Image | Iterable[Image], *, cam: bool = False
    ) -> list[Prediction]:
        """What the network says of images, and where it looked.

        Any number of images goes through the network in batches of 1, 4, 16 or 64, the
        last one filled up, so that it is compiled for few shapes only.

        Args:
          images: one, or many: paths of image files, or arrays `[H, W]`, `[H, W, 1]`
            or `[H, W, 3]` of any size, uint8 or floating in [0, 1]; also an array
            `[N, H, W, C]`.
          cam: also compute the class activation map of the predicted class.

        Returns:
          One `Prediction` for each image, in their order.

        Raises:
          UnreadableImageError: a ValueError that names a file that is no image.
          ValueError: for an array that is none.
          NoAnswerError: a ValueError, if the network's output is not finite.
          UserError: for `cam`, if the task's outputs are no classes.
        """
        given = _each(images)
        with own_numerics():
            if cam:
                self.check_cam()
            return [
                prediction
                for first in range(0, len(given), SIZES[-1])
                for prediction in self._batch(given, first, cam)
            ]

    def check_cam(self) -> None:
        """Raises UserError if there are no class activation maps for this task."""
        shape = (1, *self._experiment.inputs.image_shape)
        images = jax.ShapeDtypeStruct(shape, np.uint8)
        given = self._trained.variables, self._trained.step
        jax.eval_shape(self._explain, *given, images)

    def _batch(self, images: list[Image], first: int, cam: bool) -> list[Prediction]:
        """Predictions for the images from the first on that one batch may hold."""
        facts, task = self._experiment.inputs, self._experiment.task
        # Of photographs only what the network sees is kept.
        seen = [
            seen_by(_picture(image), facts.image_shape, self._data)
            for image in images[first : first + SIZES[-1]]
        ]
        answers = list(self._sights(self._look, seen, first))
        cams = list(self._sights(self._explain, seen, first)) if cam else None
        predictions = []
        for row, (outputs, sight) in enumerate(answers):
            predictions.append(
                Prediction(
                    answer=task.prediction(outputs, sight.view, facts, sight.size),
                    class_names=self.class_names,
                    probabilities=task.class_probabilities(outputs),
                    outputs=outputs,
                    sight=sight,
                    cam_sight=cams[row][1] if cams is not None else None,
                )
            )
        return predictions

    def _sights(
        self, look: Any, seen: list[Seen], first: int
    ) -> Iterator[tuple[Any, Sight]]:
        """Outputs and sight of each, by one call of a compiled function.

        Errors name the image by its number, from `first` on.
        """
        size = next(size for size in SIZES if size >= len(seen))
        images = np.stack([each.image for each in seen])
        padded = np.pad(images, ((0, size - len(seen)), (0, 0), (0, 0), (0, 0)))
        given = self._trained.variables, self._trained.step
        outputs, evidence = jax.device_get(look(*given, padded))
        for row, each in enumerate(seen):
            try:
                yield sight_of(outputs, evidence, row, each)
            except NoAnswerError as error:
                where = f"Image {first + row}: " if len(seen) > 1 else ""
                raise NoAnswerError(f"{where}{error}") from error


def load_run(
    workdir: str | os.PathLike[str], *, checkpoint: str = "latest"
) -> TrainedRun:
    """A trained network from the work directory of its run; needs no training images.

    Args:
      workdir: the run's.
      checkpoint: "latest", "best" on held-out images, or the number of a step.

    Raises:
      UserError: if there is no run, no such checkpoint, or none that can be read.
    """
    with own_numerics():
        parallel = JitParallel(jax.local_devices()[:1])
        return TrainedRun(restore_trained(Path(workdir), checkpoint, parallel))


def _each(images: Image | Iterable[Image]) -> list[Image]:
    """One image or many, as a list."""
    if isinstance(images, str | os.PathLike):
        return [images]
    if isinstance(images, np.ndarray | jax.Array):
        return [images] if images.ndim < 4 else list(np.asarray(images))
    return list(images)


def _picture(image: Image) -> np.ndarray:
    """uint8 `[H, W, 3]`."""
    if isinstance(image, str | os.PathLike):
        return decode_image(Path(image), channels=3)
    return as_picture(image)
