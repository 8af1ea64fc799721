"""What a mask costs: nothing else makes it narrower than the picture."""

from __future__ import annotations

from dataclasses import dataclass

from train.config.sections import require


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

    def __post_init__(self):
        """Checks ranges."""
        require(
            self.area is None or 0 < self.area <= 1,
            "budget.area must be a share of the map, in (0, 1]",
            self.area,
        )
        for name in ("area_weight", "price", "outside"):
            value = getattr(self, name)
            require(value >= 0, f"budget.{name} must not be negative", value)
        for name in ("start_fraction", "ramp_fraction"):
            value = getattr(self, name)
            require(0 <= value <= 1, f"budget.{name} must be in [0, 1]", value)
        require(
            self.start_fraction + self.ramp_fraction <= 1,
            "budget.start_fraction and budget.ramp_fraction must not exceed 1 together",
            self.start_fraction + self.ramp_fraction,
        )
        require(
            0 <= self.mask_dropout < 1,
            "budget.mask_dropout must be in [0, 1)",
            self.mask_dropout,
        )
