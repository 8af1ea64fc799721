"""What a trained network says of one image, in pixels of that image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from train.evidence.sight import Sight, as_record
from train.evidence.sight_picture import over_original


@dataclass(frozen=True)
class Prediction:
    """What a network says of one image, and where it looked.

    x is to the right, y down; 0 is the left or upper edge of the image.

    Attributes:
      answer: what the task says, as JSON values and maps of numbers `[H, W]`; for
        classification "class", "label" (the class's number) and "probability", for
        segmentation "regions" (the region of each pixel) and "shares".
      class_names: one for each class.
      probabilities: float32 `[classes]`; None for tasks that choose no class.
      outputs: the network's own for this image, as numpy arrays.
      sight: where it looked, as the network's layers say it.
      cam_sight: the class activation map of the predicted class as the mask of one
        layer, if it was asked for; else None.
    """

    answer: dict[str, Any]
    class_names: tuple[str, ...]
    probabilities: np.ndarray | None
    outputs: Any
    sight: Sight
    cam_sight: Sight | None = None

    @property
    def rectangles(self) -> dict[str, Any]:
        """The rectangle of each layer that has one, by layer; of several, their list.

        "pixels" holds center_x, center_y, half_width, half_height (pixels) and angle
        (radians, positive from +x to +y); "corners" the four (x, y); "box" is
        (xmin, ymin, xmax, ymax) of its part inside of the image, "area" that part's
        share of the image.
        """
        return as_record(self.sight)["rectangles"]

    @property
    def boxes(self) -> dict[str, Any]:
        """Each rectangle's upright box (xmin, ymin, xmax, ymax), cut at the edges.

        A layer of several rectangles has a list of boxes.
        """
        return {
            layer: [one["box"] for one in found]
            if isinstance(found, list)
            else found["box"]
            for layer, found in self.rectangles.items()
        }

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """Masks float32 `[H, W]` in [0, 1] of the layers that have no rectangle."""
        return _over_image(self.sight)

    @property
    def cam(self) -> np.ndarray | None:
        """The class activation map float32 `[H, W]` in [0, 1] over the image.

        It is 0 where the network saw nothing, and None unless it was asked for.
        """
        if self.cam_sight is None:
            return None
        (cam,) = _over_image(self.cam_sight).values()
        return cam

    def top(self, count: int) -> list[dict[str, Any]]:
        """The likeliest classes, most likely first; none where nothing is a class."""
        if self.probabilities is None:
            return []
        # Of equal ones the first leads, as everywhere.
        order = np.argsort(-self.probabilities, kind="stable")[:count]
        return [
            {
                "class": self.class_names[label],
                "label": int(label),
                "probability": float(self.probabilities[label]),
            }
            for label in order
        ]


def _over_image(sight: Sight) -> dict[str, np.ndarray]:
    return {
        layer: over_original(mask, sight.view, sight.size)
        for layer, mask in sight.masks.items()
    }
