"""What is asked of the masks (options --sharpness.*, --equivariance.*, --budget.*)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.config.checks import require, require_choices, require_fields


@dataclass(frozen=True)
class SharpnessConfig:
    """Edges of the rectangles: soft first, so that gradients reach far, then sharp."""

    start: float = 3.0
    """Sharpness at the first step: an edge is about 1 / sharpness wide, in units of the
    rectangle's size."""
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


@dataclass(frozen=True)
class BudgetConfig:
    """The losses that close the masks, and what keeps the network good meanwhile."""

    area: float | None = None
    """Target: the masks of a batch may cover this share of their map on average, and a
    larger share costs its excess squared. None: no target."""
    area_weight: float = 10.0
    """Weight of that loss."""
    price: float = 0.0
    """Price of the whole map: each mask costs this times the share that it covers."""
    outside: float = 0.0
    """Weight of the loss that asks that what lies outside a mask tell nothing; the
    layer learns from it, the network behind the layer does not."""
    start_fraction: float = 0.1
    """Share of the training steps that goes by before all of this begins."""
    ramp_fraction: float = 0.4
    """Share of the training steps over which its weights then rise from 0."""
    mask_dropout: float = 0.0
    """Share of the images, drawn anew in each step, whose masks count as open: so the
    network does not forget what lies outside."""

    @property
    def is_on(self) -> bool:
        """Whether a mask costs or loses anything at all."""
        has_target = self.area is not None and self.area_weight > 0
        return has_target or max(self.price, self.outside, self.mask_dropout) > 0

    def is_in_force(self, step: int, total_steps: int) -> bool:
        """Whether its weights have risen to the full, or there is none to rise.

        Before that, masks are wider than those that the run is to end with.
        """
        end = min(self.start_fraction + self.ramp_fraction, 1.0)
        return not self.is_on or step >= end * total_steps

    def __post_init__(self):
        """Checks ranges."""
        for names, accept, must in _BUDGET_RULES:
            require_fields(self, "budget", names, accept, must)
        require(
            self.start_fraction + self.ramp_fraction <= 1,
            "budget.start_fraction and budget.ramp_fraction must not exceed 1 together",
            self.start_fraction + self.ramp_fraction,
        )


_BUDGET_RULES = (
    (["area"], lambda value: 0 < value <= 1, "be a share of the map, in (0, 1]"),
    (["area_weight", "price", "outside"], lambda value: value >= 0, "not be negative"),
    (
        ["start_fraction", "ramp_fraction"],
        lambda value: 0 <= value <= 1,
        "be in [0, 1]",
    ),
    (["mask_dropout"], lambda value: 0 <= value < 1, "be in [0, 1)"),
)
