"""What the labels mean (options --task.*)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.config.checks import require_choices, require_fields


@dataclass(frozen=True)
class TaskConfig:
    """What the network learns to say about an image."""

    name: str = "classification"
    """Name of the task: classification (one class for each image), segmentation (a
    region for each pixel; needs masks) or detection (a rotated rectangle and a
    category for each object; needs those)."""
    by_class: bool = False
    """Segmentation: the objects of each class are a region of their own. Default:
    objects and background are two regions, whatever the class."""
    attention_in_skips: bool = False
    """Segmentation: the attention layer of a stage gates what the decoder takes from
    it. Default: it sits in the encoder, and deeper stages see its result, too."""
    decoder: Literal["sum", "concat"] = "sum"
    """Segmentation and detection: how the decoder joins the maps of two stages. sum:
    both have the same channels. concat: side by side, as in a U-Net, and channels
    double with each deeper stage."""
    decoder_width: int = 32
    """Segmentation and detection: channels of the decoder where it ends, a multiple of
    8."""
    dice_weight: float = 1.0
    """Segmentation: share of the Dice loss beside the cross-entropy."""
    detection_stage: int = 2
    """Detection: the stage of the network, counted from 1, on whose map objects are
    told: one rectangle at most in each of its cells."""
    max_objects: int = 64
    """Detection: room for so many objects in an image; a set with more is refused."""
    max_detections: int = 100
    """Detection: the most objects that are found in an image."""
    box_loss: Literal["smooth-l1", "gaussian", "iou"] = "gaussian"
    """Detection: what is small where a rectangle is right: smooth-l1 of its numbers,
    gaussian (Gaussian Wasserstein distance) or iou (1 minus the rotated IoU)."""
    box_weight: float = 1.0
    """Detection: share of that loss beside the heat maps'."""
    max_iou: float | None = 0.5
    """Detection: of two found objects of one category that overlap more, the less sure
    one is dropped (non-maximum suppression). none: both stay."""
    shown_score: float = 0.3
    """Detection: found objects with a lower score are not drawn and not in
    predictions.json; scores of the set count all."""

    def __post_init__(self):
        """Checks ranges."""
        require_choices(self, "task")
        require_fields(
            self,
            "task",
            ["decoder_width"],
            lambda width: width >= 8 and width % 8 == 0,
            "be a multiple of 8",
        )
        require_fields(
            self,
            "task",
            ["dice_weight", "box_weight"],
            lambda weight: weight >= 0,
            "not be negative",
        )
        require_fields(
            self,
            "task",
            ["detection_stage", "max_objects", "max_detections"],
            lambda count: count >= 1,
            "be 1 or more",
        )
        require_fields(
            self,
            "task",
            ["max_iou", "shown_score"],
            lambda share: share is None or 0 <= share <= 1,
            "be in 0 to 1",
        )
