"""Detection: a label is the category and the rotated rectangle of each object."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.similarity import Similarity
from cram_jax.heads.detection import DetectionHead, Detector
from cram_jax.heads.detections import Detections, decode_detections
from train.config.run import FitConfig
from train.data.facts import Facts
from train.data.objects.rows import (
    blank_objects,
    mirrored_objects,
    moved_objects,
    padded_objects,
)
from train.data.objects.seen import visible_objects
from train.data.sources.base import (
    DatasetInfo,
    Example,
    UnreadableImageError,
    WrongLabelError,
)
from train.data.views import View
from train.errors import UserError
from train.printing import printable
from train.tasks.detection_pictures import (
    draw_beside_truth,
    draw_objects,
    objects_in_pixels,
)
from train.tasks.losses.detection import detection_losses
from train.tasks.scores.detection import detection_record, not_finite
from train.tasks.sums import Sums
from train.tasks.task import Batch, Caption, Loss, Task

# Of an upright box that the view cuts, this share of its area must be left.
_LEAST_SHARE = 0.3


@dataclasses.dataclass(frozen=True)
class Detection(Task):
    """A rectangle and a category for each object.

    Outputs are heat maps and codes of boxes; see `cram_jax.heads.detection`.

    Attributes:
      stage: the stage, counted from 1, on whose map the head lies.
      decoder: how the head joins maps, "sum" or "concat".
      width: channels of the head.
      max_objects: room for objects in a row.
      max_detections: the most that are told of an image.
      box_loss: a name of `BOX_LOSSES`.
      box_weight: share of that loss.
      max_iou: overlap above which one of two detections of a category is dropped.
      shown_score: detections with less are neither drawn nor named.
    """

    stage: int = 2
    decoder: str = "sum"
    width: int = 32
    max_objects: int = 64
    max_detections: int = 100
    box_loss: str = "gaussian"
    box_weight: float = 1.0
    max_iou: float | None = 0.5
    shown_score: float = 0.3

    name = "detection"
    best_score = "ap"
    shown = ("ap", "ap50", "ap75")

    @classmethod
    def of(cls, config: FitConfig) -> Detection:
        """The task of a config."""
        task = config.task
        return cls(
            task.detection_stage,
            task.decoder,
            task.decoder_width,
            task.max_objects,
            task.max_detections,
            task.box_loss,
            task.box_weight,
            task.max_iou,
            task.shown_score,
        )

    def names(self, facts: Facts) -> tuple[str, ...]:
        """The categories.

        Raises:
          UserError: for a set without objects, or with more in an image than there is
            room for.
        """
        if not facts.categories:
            raise UserError(
                "The task detection needs the objects of each image, and the data set"
                " names none; give it as rotated:PATH, coco:PATH or dota:PATH, or try"
                " many_digits."
            )
        if facts.most_objects > self.max_objects:
            raise UserError(
                f"An image of the data set has {facts.most_objects} objects, and"
                f" task.max_objects is {self.max_objects}; the others would be left out"
                f" in silence. Use --task.max-objects {facts.most_objects}."
            )
        return facts.categories

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """No object."""
        del size
        return blank_objects(self.max_objects)

    def truth_of(self, example: Example, view: View) -> dict[str, np.ndarray]:
        """The objects that are seen."""
        if example.objects is None:
            return self.blank_truth((view.height, view.width))
        seen = visible_objects(view, example.objects, min_share=_LEAST_SHARE)
        return padded_objects(seen, self.max_objects).arrays

    def check(self, example: Example, info: DatasetInfo, name: str) -> None:
        """Refuses an image whose objects are not known, or too many; see `Task.check`.

        Raises:
          UnreadableImageError: with the image, as for one that is damaged.
          WrongLabelError: where some objects would be left out, and scores be wrong.
        """
        if example.objects is None:
            raise UnreadableImageError(f"{name} of {info.name} has no list of objects.")
        count = len(example.objects)
        if count > self.max_objects:
            raise WrongLabelError(
                f"{name} of {info.name} has {count} objects, and task.max_objects is"
                f" {self.max_objects}; use --task.max-objects {count} or more."
            )

    def mirrored(self, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The objects, mirrored."""
        return mirrored_objects(truth)

    def network(self, make_backbone: Callable[..., nn.Module], facts: Facts) -> Any:
        """The backbone's maps, and the head on them."""
        # The classifier that these outputs would be for is never asked.
        encoder: Any = make_backbone(1)
        head = DetectionHead(
            len(self.names(facts)),
            self.stage,
            self.width,
            self.decoder,
            dtype=encoder.dtype,
            param_dtype=encoder.param_dtype,
        )
        return Detector(encoder, head)

    def losses(self, outputs: Any, batch: Batch) -> dict[str, Loss]:
        """The focal loss of heat maps, and that of boxes; see `detection_losses`."""
        heat, boxes = detection_losses(outputs, batch, box_loss=self.box_loss)
        return {
            "heat_loss": heat,
            "box_loss": (self.box_weight * boxes[0], boxes[1]),
        }

    def moved(self, similarities: Similarity, batch: Batch) -> Batch:
        """The objects move along, or leave."""
        rows = {name: batch[name] for name in blank_objects(1)}
        size = batch["image"].shape[1:3]
        return {**batch, **moved_objects(similarities, rows, size)}

    def sums(self, outputs: Any, batch: Batch) -> Sums:
        """How many images there are, and of how many the outputs are no numbers."""
        weight = batch["weight"]
        return {"weight": weight.sum(), "not_finite": not_finite(outputs, weight)}

    def rows(self, outputs: Any, batch: Batch) -> dict[str, jax.Array]:
        """Detections and objects of each image, padded."""
        found = self._decoded(outputs, batch["image"].shape[1:3])
        return {
            "rectangles": found.rectangle.as_array(),
            "scores": found.score,
            "labels": found.label,
            **{name: batch[name] for name in blank_objects(1)},
        }

    def record(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, facts: Facts
    ) -> dict[str, float]:
        """See `detection_record`."""
        return detection_record(sums, rows, self.names(facts))

    def prediction(
        self, outputs: Any, view: View, facts: Facts, size: tuple[int, int]
    ) -> dict[str, Any]:
        """The objects, the surest first, in pixels of the original.

        Each has "category", "score", "center" (x, y), "size" (width, height), "angle"
        in radians from +x towards +y, and "corners".
        """
        del size
        found = self._decoded(outputs, (view.height, view.width))
        return {
            "objects": objects_in_pixels(
                found, view, self.names(facts), least=self.shown_score
            )
        }

    def line(self, prediction: Mapping[str, Any]) -> str:
        """How many objects of each category."""
        counts = Counter(each["category"] for each in prediction["objects"])
        parts = [f"{count} {printable(name)}" for name, count in counts.most_common()]
        return ", ".join(parts) or "no object"

    def caption(self, prediction: Mapping[str, Any]) -> Caption:
        """As `line`."""
        return Caption(self.line(prediction))

    def draw(
        self, picture: np.ndarray, prediction: Mapping[str, Any], scale: float
    ) -> np.ndarray:
        """Each object's rectangle in the colour of its category, with its score."""
        return draw_objects(picture, prediction["objects"], scale)

    def compared(
        self, picture: np.ndarray, outputs: Any, truth: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Objects in white; in the colours of their categories what was found."""
        found = None
        if outputs is not None:
            found = self._decoded(outputs, picture.shape[:2])
        return draw_beside_truth(picture, found, truth, least=self.shown_score)

    def _decoded(self, outputs: Any, size: tuple[int, ...]) -> Detections:
        return decode_detections(
            outputs,
            self.max_detections,
            extents=map_extents(*size),
            max_iou=self.max_iou,
        )
