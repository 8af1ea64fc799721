"""What may be typed after each subcommand, and how it becomes a record of options."""

from train.commands.options.fit import parse_fit
from train.commands.options.parsing import field_sentences, parse
from train.commands.options.subcommands import (
    EvaluateConfig,
    ModelsConfig,
    PredictConfig,
    ReportConfig,
)

__all__ = [
    "EvaluateConfig",
    "ModelsConfig",
    "PredictConfig",
    "ReportConfig",
    "field_sentences",
    "parse",
    "parse_fit",
]
