"""`python -m train SUBCOMMAND ...`: see `--help` of each."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable, Sequence

from train.data.sources.base import UnreadableImageError
from train.errors import CANNOT_WRITE, DISK_ERRORS, WRONG_USE, UserError, choose
from train.printing import escape_what_cannot_be_printed, say


def _fit(arguments: Sequence[str]) -> int:
    from train.commands.options import parse_fit

    config = parse_fit(arguments)
    from train.commands.fit import fit
    from train.learning.processes import own_numerics

    with own_numerics():
        return fit(config)


def _evaluate(arguments: Sequence[str]) -> int:
    from train.commands.options import EvaluateConfig, parse

    config = parse(EvaluateConfig, "evaluate", arguments)
    from train.commands.evaluate import evaluate
    from train.learning.processes import own_numerics

    with own_numerics():
        return evaluate(config)


def _predict(arguments: Sequence[str]) -> int:
    from train.commands.options import PredictConfig, parse

    config = parse(PredictConfig, "predict", arguments)
    from train.commands.predict import predict
    from train.learning.processes import own_numerics

    with own_numerics():
        return predict(config)


def _report(arguments: Sequence[str]) -> int:
    from train.commands.options import ReportConfig, parse

    config = parse(ReportConfig, "report", arguments)
    from train.commands.report.command import report

    return report(config)


def _budget(arguments: Sequence[str]) -> int:
    from train.commands.budget.options import parse_curve

    config = parse_curve(arguments)
    from train.commands.budget.curve import draw_budget
    from train.learning.processes import own_numerics

    with own_numerics():
        return draw_budget(config)


def _models(arguments: Sequence[str]) -> int:
    from train.commands.options import ModelsConfig, parse

    config = parse(ModelsConfig, "models", arguments)
    from train.commands.models import print_models

    return print_models(config.image_size, config.channels, config.classes)


def _export(arguments: Sequence[str]) -> int:
    from train.commands.options import ExportConfig, parse

    config = parse(ExportConfig, "export", arguments)
    from train.commands.export import export
    from train.learning.processes import own_numerics

    with own_numerics():
        return export(config)


def _data(arguments: Sequence[str]) -> int:
    from train.commands.options import parse_data

    config = parse_data(arguments)
    from train.commands.data_report import data_report

    return data_report(config)


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "fit": (_fit, "Train a network, or go on training it."),
    "evaluate": (_evaluate, "Score a trained network on its test images."),
    "predict": (_predict, "Class and rectangle of your own images."),
    "export": (_export, "Write a trained network for use elsewhere."),
    "data": (_data, "What a data set holds, and a batch of it."),
    "report": (_report, "Compare runs: table over seeds, curves."),
    "budget": (_budget, "Choose how much of an image the masks may cover."),
    "models": (_models, "List networks and attention layers."),
}


_OWN = (str(__package__), "cram_jax")


def _help() -> str:
    lines = ["usage: python -m train SUBCOMMAND [options]", "", "subcommands:"]
    lines += [f"  {name:<10}{about}" for name, (_, about) in COMMANDS.items()]
    lines += ["", "Options: python -m train SUBCOMMAND --help"]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one subcommand; returns the exit code (see `train.errors`)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    # Orbax and TFDS speak of their own affairs through absl: pages of traceback where
    # a save fails, which `train.run.checkpoints.store` reports in one sentence.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    escape_what_cannot_be_printed()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())
        return 0 if arguments else WRONG_USE
    try:
        command, _ = COMMANDS[choose("subcommand", arguments[0], COMMANDS)]
        return command(arguments[1:])
    except UserError as error:
        say(f"error: {error}", error=True)
        return error.exit_code
    except UnreadableImageError as error:
        say(f"error: {error} --data.on-bad-image skip goes on without it.", error=True)
        return WRONG_USE
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] in _OWN:
            raise
        say(
            f"error: the package {error.name} is not installed in this environment"
            f" ({sys.prefix}): pip install 'cram-jax[train]'. After `make demo` or"
            " `make test` in a clone it is .venv: source .venv/bin/activate.",
            error=True,
        )
        return WRONG_USE
    except BrokenPipeError:
        # Whoever read our output (head, less) has left; so do we, without a word.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        say(
            f"error: {error.filename or 'A file'} could not be read or written"
            f" ({error.strerror}); the checkpoints are whole. Mend that and start the"
            " same command again.",
            error=True,
        )
        return CANNOT_WRITE
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
