"""What the labels mean (options --task.*)."""

from __future__ import annotations

from dataclasses import dataclass

from train.config.checks import require_fields


@dataclass(frozen=True)
class TaskConfig:
    """What the network learns to say about an image."""

    name: str = "classification"
    """Name of the task: classification (one class for each image) or segmentation (a
    region for each pixel; needs masks)."""
    by_class: bool = False
    """Segmentation: the objects of each class are a region of their own. Default:
    objects and background are two regions, whatever the class."""
    attention_in_skips: bool = False
    """Segmentation: the attention layer of a stage gates what the decoder takes from
    it. Default: it sits in the encoder, and deeper stages see its result, too."""
    decoder_width: int = 32
    """Segmentation: channels of the decoder, a multiple of 8."""
    dice_weight: float = 1.0
    """Segmentation: share of the Dice loss beside the cross-entropy."""

    def __post_init__(self):
        """Checks ranges."""
        require_fields(
            self,
            "task",
            ["decoder_width"],
            lambda width: width >= 8 and width % 8 == 0,
            "be a multiple of 8",
        )
        require_fields(
            self, "task", ["dice_weight"], lambda weight: weight >= 0, "not be negative"
        )
