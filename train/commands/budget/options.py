"""Command line options of `budget`: those of `fit`, and which areas to try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from train.commands.options import parse_training
from train.config.checks import require
from train.config.run import FitConfig

_ABOUT = """Chooses how much of an image the masks may cover.

Trains the bare network and one for each of --areas, scores them on held-out training
images (--data.validation), draws accuracy against area, and chooses the smallest area
that keeps the accuracy. No box is looked at, and test images choose nothing. --preset
and all options are those of fit; --areas takes the place of --budget.area. The same
command goes on where it was stopped, and areas may be added. Exit codes: see fit.
"""


@dataclass(frozen=True)
class CurveConfig(FitConfig):
    """Trains without attention and with each area; chooses on held-out images."""

    workdir: Path = Path("runs/budget")
    """Directory of all runs (each in a folder of its own), budget.json and .png."""
    areas: tuple[float, ...] = (0.2, 0.33, 0.5, 0.7)
    """The values of budget.area to try, in any order; others may be added later."""
    seeds: int = 1
    """Runs of each, with seeds from --seed on; accuracies are their means."""
    within: float = 0.01
    """Loss of held-out accuracy that counts as none (0.01 is one point); one image's
    worth counts as none too."""

    def __post_init__(self):
        """Checks ranges."""
        super().__post_init__()
        areas = bool(self.areas) and all(0 < area <= 1 for area in self.areas)
        require(areas, "areas must be shares of the map, in (0, 1]", self.areas)
        require(self.seeds >= 1, "seeds must be 1 or more", self.seeds)
        require(0 <= self.within < 1, "within must be in [0, 1)", self.within)
        weight = self.budget.area_weight
        require(weight > 0, "budget.area_weight must be positive here", weight)


def parse_curve(arguments: Sequence[str]) -> CurveConfig:
    """The config of `budget`; raises as `train.commands.options.parse_fit`."""
    return parse_training(CurveConfig, "budget", _ABOUT, arguments)
