"""Named experiments: complete configs, and where their figures are."""

from __future__ import annotations

import inspect
from collections.abc import Callable

from train.config.presets import detection, digits, photographs
from train.config.run import FitConfig
from train.errors import choose

PRESETS: dict[str, Callable[[], FitConfig]] = {
    "digits": digits.digits,
    "digits-small": digits.digits_small,
    "photographs": photographs.photographs,
    "pets3": photographs.pets3,
    "butterflies": photographs.butterflies,
    "pets": photographs.pets,
    "digits-segment": digits.digits_segment,
    "butterflies-segment": photographs.butterflies_segment,
    "pets3-segment": photographs.pets3_segment,
    "digits-detect": detection.digits_detect,
    "uav-cars": detection.uav_cars,
}


def preset(name: str) -> FitConfig:
    """The named config.

    Raises:
      UserError: for an unknown name, with the nearest and all names.
    """
    return PRESETS[choose("preset", name, PRESETS)]()


def summary(name: str) -> str:
    """The first sentence about a preset."""
    return (inspect.getdoc(PRESETS[name]) or "").splitlines()[0]
