"""What is asked of the attention (options --sharpness.* and --equivariance.*)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.config.checks import require_choices, require_fields


@dataclass(frozen=True)
class SharpnessConfig:
    """Edges of the rectangles: soft first, so that gradients reach far, then sharp."""

    start: float = 3.0
    """Sharpness at the first step."""
    end: float = 10.0
    """Sharpness from the end of the annealing on."""
    anneal_fraction: float = 0.6
    """Share of the training steps over which it goes from start to end; 0: always
    end."""

    def __post_init__(self):
        """Checks ranges."""
        positive = ("start", "end")
        require_fields(self, "sharpness", positive, lambda v: v > 0, "be positive")
        require_fields(
            self,
            "sharpness",
            ["anneal_fraction"],
            lambda value: 0 <= value <= 1,
            "be in [0, 1]",
        )


@dataclass(frozen=True)
class EquivarianceConfig:
    """The loss that asks the rectangle to move with the image."""

    weight: float = 0.0
    """Weight of the loss; 0 switches it off, not the moved images that
    classify_moved asks for."""
    warmup_fraction: float = 0.2
    """Share of the training steps over which the weight rises from 0."""
    metric: Literal["gaussian", "parameters", "corners", "mask"] = "gaussian"
    """Distance between a rectangle and where it should be."""
    relative: bool = True
    """Measure it in units of the rectangles' own size: absolute units reward
    shrinking."""
    stop_gradient: Literal["none", "original", "moved"] = "none"
    """Side that is a fixed target for the other."""
    classify_moved: bool = False
    """Also learn the classes of the moved images."""
    max_angle: float = 0.7854
    """Largest rotation to either side, in radians (0.7854 is 45 degrees)."""
    max_scale: float = 1.25
    """Largest enlargement, as a factor; the largest reduction is its inverse."""
    max_shift: float = 0.25
    """Largest shift along each axis, in half lengths of the image's longer side."""
    fill: float = 0.0
    """Brightness, from 0 to 1, of what comes from outside of the image."""

    @property
    def moves_images(self) -> bool:
        """Whether a step looks at moved images at all."""
        return self.weight > 0 or self.classify_moved

    def __post_init__(self):
        """Checks ranges."""
        require_choices(self, "equivariance")
        for names, accept, must in (
            (
                ("weight", "max_angle", "max_shift"),
                lambda value: value >= 0,
                "not be negative",
            ),
            (("warmup_fraction", "fill"), lambda v: 0 <= v <= 1, "be in [0, 1]"),
            (("max_scale",), lambda value: value >= 1, "be 1 or more"),
        ):
            require_fields(self, "equivariance", names, accept, must)
