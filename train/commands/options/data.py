"""The options of `data`: those of a preset, and what was typed."""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from train.commands.options.parsing import (
    PROGRAM,
    check_options,
    give_help,
    take_preset,
)
from train.commands.options.subcommands import DataReportConfig
from train.config.presets import preset
from train.config.run import FitConfig


def parse_data(arguments: Sequence[str]) -> DataReportConfig:
    """The options of `data`, where a preset says how images are augmented."""
    name, rest = take_preset(arguments)
    check_options(DataReportConfig, rest)
    give_help(DataReportConfig)
    chosen = preset(name) if name is not None else FitConfig()
    # Here, for it imports jax.
    from train.data.preparation import with_source_interpolation

    data = with_source_interpolation(chosen)
    return tyro.cli(
        DataReportConfig,
        default=DataReportConfig(tyro.MISSING, data=data, task=chosen.task),
        args=rest,
        prog=f"{PROGRAM} data",
    )
