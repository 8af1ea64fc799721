"""The contract of a task: the only thing that knows what a label means.

The rest of the program handles images, *outputs* (whatever tree of arrays a network
returns, batch in front) and a *batch*: "image" `[B, H, W, C]`, "weight" `[B]` (0 for
padding), the place of the object where the data set knows it, and the task's truth.

A task is a frozen dataclass: steps close over it, and worker processes get a copy.
`B` below is the number of images of a batch, or of a device's part of it.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cram_jax.geometry.similarity import Similarity
from train.data.augmentation.mixtures import Mixture, Rows
from train.data.facts import Facts
from train.data.sources.base import DatasetInfo, Example
from train.data.views import View
from train.errors import UserError
from train.tasks.sums import Sums

Batch = Mapping[str, Any]
Outputs = Any
# A loss of each image `[B]`; or, for a mean over some things (all positives of the
# batch), their sum and their weight, which add up over batches and devices.
Loss = jax.Array | tuple[jax.Array, jax.Array]


class Caption(NamedTuple):
    """What is written on a picture.

    Attributes:
      text: one line.
      note: a sentence for the user, if something could not be written; else None.
    """

    text: str
    note: str | None = None


class Task(abc.ABC):
    """One meaning of labels.

    Attributes:
      name: the name in the config.
      best_score: the name, in `record`, of the score that chooses the best checkpoint;
        higher is better.
      shown: names of records that are shown while training.
      chooses_class: whether an answer is a class of the image; `class_probabilities`
        then says how likely each is.
    """

    name: ClassVar[str]
    best_score: ClassVar[str]
    shown: ClassVar[tuple[str, ...]] = ()
    chooses_class: ClassVar[bool] = False

    # The truth of an example, on the host.

    @abc.abstractmethod
    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """The truth of one image `(height, width)` about which nothing is known.

        It says names, shapes and dtypes of a row, and how a row is padded.
        """

    @abc.abstractmethod
    def truth_of(self, example: Example, view: View) -> dict[str, np.ndarray]:
        """The truth of what is seen of an example through a view, of those shapes."""

    def check(self, example: Example, info: DatasetInfo, name: str) -> None:
        """Refuses an example whose truth means nothing; `name` is the image's.

        Raises:
          WrongLabelError: says what is wrong, and with which image.
        """
        del example, info, name

    @abc.abstractmethod
    def mirrored(self, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The truth `[N, ...]` of images that are mirrored left to right."""

    def mixed(self, truth: Rows, others: Rows, mixture: Mixture) -> Rows:
        """The truth of mixtures of images: that of `blank_truth`, and perhaps more.

        Only training mixes; a name that comes in here is not there in evaluation.

        Args:
          truth: the images', `[N, ...]`.
          others: that of the images that they are mixed with.
          mixture: what is seen of which.

        Raises:
          UserError: for a task to which such mixtures mean nothing.
        """
        del truth, others, mixture
        raise UserError(
            f"The task {self.name!r} cannot say what two mixed images show; leave"
            " data.mixup and data.cutmix out."
        )

    # Training, on the device.

    @abc.abstractmethod
    def network(self, make_backbone: Callable[..., nn.Module], facts: Facts) -> Any:
        """The network: a linen module from images `[B, H, W, C]` to outputs.

        Args:
          make_backbone: makes the configured backbone with its attention; its first
            argument is the number of outputs of its classifier.
          facts: what is known of the data set.
        """

    @abc.abstractmethod
    def losses(self, outputs: Outputs, batch: Batch) -> dict[str, Loss]:
        """Losses by name; their sum is what the task wants small.

        Outputs of images without weight are 0, whatever the network gave.
        """

    def moved(self, similarities: Similarity, batch: Batch) -> Batch:
        """The batch of the same images, each moved by its similarity `[B]`."""
        del similarities
        return batch

    def ignorance(self, outputs: Outputs) -> jax.Array:
        """How far outputs are from saying "I do not know", `[B]`, at least 0.

        Raises:
          UserError: for a task that has no such measure.
        """
        del outputs
        raise UserError(
            f"The task {self.name!r} cannot say how much its outputs know, so it has no"
            " loss of what lies outside a mask; leave budget.outside out."
        )

    def training_sums(self, outputs: Outputs, batch: Batch) -> Sums:
        """Cheap weighted sums over the images; their means are recorded by name."""
        del outputs, batch
        return {}

    # Scores.

    @abc.abstractmethod
    def sums(self, outputs: Outputs, batch: Batch) -> Sums:
        """Weighted sums over the images, which add up over batches and devices."""

    def rows(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array] | None:
        """What each image adds to a score that is no mean over images, `[B, ...]`."""
        del outputs, batch

    @abc.abstractmethod
    def record(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, facts: Facts
    ) -> dict[str, float]:
        """The scores by name from fetched sums and the rows of all images, each once.

        It holds finite numbers only, "images" among them.
        """

    def guess(self, facts: Facts) -> dict[str, float]:
        """The scores, named as in `record`, of who guesses; {} if nobody knows them."""
        del facts
        return {}

    def compared(
        self, picture: np.ndarray, outputs: Outputs, truth: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """What is shown of an image of the data set: outputs beside the truth.

        Args:
          picture: uint8 `[h, w, 3]`, the image enlarged, with what layers show on it.
          outputs: the network's, without the batch axis; they may be not finite. None
            where there is no network.
          truth: the image's.
        """
        del outputs, truth
        return picture

    # One image.

    @abc.abstractmethod
    def prediction(
        self, outputs: Outputs, view: View, facts: Facts, size: tuple[int, int]
    ) -> dict[str, Any]:
        """What the outputs of one image mean, as JSON, in pixels of the original.

        A value may be a map of numbers, uint8 `[height, width]`: it is written as a PNG
        beside the picture, and in the JSON stands the name of that file.

        Args:
          outputs: the network's, finite, without the batch axis.
          view: what the network saw of the original.
          facts: what is known of the data set.
          size: (height, width) of the original.
        """

    def class_probabilities(self, outputs: Outputs) -> np.ndarray | None:
        """How likely each class is, float32 `[classes]`, from outputs as above.

        None for tasks that choose no class for an image.
        """
        del outputs

    @abc.abstractmethod
    def line(self, prediction: Mapping[str, Any]) -> str:
        """A prediction in a few words, for the terminal."""

    @abc.abstractmethod
    def caption(self, prediction: Mapping[str, Any]) -> Caption:
        """A prediction in a few words, for its picture."""

    def explained(self, outputs: Outputs, batch: Batch) -> dict[str, jax.Array]:
        """Which output a class activation map is to explain, int `[B]`, by name.

        Names are "predicted class" and, where the batch has the truth, "true class".
        It is empty for tasks whose outputs are no logits `[B, classes]`.
        """
        del outputs, batch
        return {}

    def draw(
        self, picture: np.ndarray, prediction: Mapping[str, Any], scale: float
    ) -> np.ndarray:
        """The picture uint8 `[h, w, 3]` with the prediction drawn on it.

        Args:
          picture: the original at the size that is shown.
          prediction: in pixels of the original.
          scale: pixels of the picture per pixel of the original.
        """
        del prediction, scale
        return picture
