"""What may be typed after each subcommand, and how it becomes a record of options."""

from train.commands.options.data import parse_data
from train.commands.options.fit import parse_fit, parse_training
from train.commands.options.parsing import field_sentences, parse
from train.commands.options.subcommands import (
    DataReportConfig,
    EvaluateConfig,
    ExportConfig,
    ModelsConfig,
    PredictConfig,
    ReportConfig,
)

__all__ = [
    "DataReportConfig",
    "EvaluateConfig",
    "ExportConfig",
    "ModelsConfig",
    "PredictConfig",
    "ReportConfig",
    "field_sentences",
    "parse",
    "parse_data",
    "parse_fit",
    "parse_training",
]
