"""The config of `fit`: a preset's, or the run's own, and what was typed."""

from __future__ import annotations

from collections.abc import Sequence

import tyro

from train.commands.options.parsing import (
    PROGRAM,
    at_home,
    check_options,
    give_help,
    take_preset,
)
from train.config.presets import PRESETS, preset, summary
from train.config.run import FitConfig


def _fit_description() -> str:
    lines = [
        "Trains a network. Started again with the same work directory, it goes on",
        "from its newest checkpoint.",
        "",
        "--preset NAME starts from a named experiment; other options change it:",
        *(f"  {name}: {summary(name)}" for name in PRESETS),
        "",
        "Exit codes: 0 done, 2 wrong use, 3 loss not finite, 74 cannot write (full",
        "disk), 75 stopped by SIGTERM or SIGINT with everything saved: the same",
        "command goes on. A second signal stops at once.",
    ]
    return "\n".join(lines)


def parse_fit(arguments: Sequence[str]) -> FitConfig:
    """The config of `fit`.

    Raises:
      UserError: for an unknown preset or option.
      SystemExit: from tyro, after its own message, for everything else.
    """
    name, rest = take_preset(arguments)
    default = preset(name) if name is not None else FitConfig()
    check_options(FitConfig, rest)
    give_help(FitConfig)
    config = tyro.cli(
        FitConfig,
        default=default,
        args=rest,
        prog=f"{PROGRAM} fit",
        description=_fit_description(),
    )
    return at_home(config)
