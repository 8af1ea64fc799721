"""What a mask costs, else it stays wider than the picture (options --budget.*)."""

from __future__ import annotations

from dataclasses import dataclass

from train.config.checks import require, require_fields


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
        for names, accept, must in _RULES:
            require_fields(self, "budget", names, accept, must)
        require(
            self.start_fraction + self.ramp_fraction <= 1,
            "budget.start_fraction and budget.ramp_fraction must not exceed 1 together",
            self.start_fraction + self.ramp_fraction,
        )


_RULES = (
    (["area"], lambda value: 0 < value <= 1, "be a share of the map, in (0, 1]"),
    (["area_weight", "price", "outside"], lambda value: value >= 0, "not be negative"),
    (
        ["start_fraction", "ramp_fraction"],
        lambda value: 0 <= value <= 1,
        "be in [0, 1]",
    ),
    (["mask_dropout"], lambda value: 0 <= value < 1, "be in [0, 1)"),
)
