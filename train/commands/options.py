"""Command line options of every subcommand; tyro turns them into configs."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import itertools
import textwrap
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from train.config.places import expanded
from train.config.presets import PRESETS, preset, summary
from train.config.run import FitConfig
from train.errors import UserError

PROGRAM = "python -m train"


@dataclass(frozen=True)
class MovedDataConfig:
    """Where the images of a run are now."""

    name: str | None = None
    """Data set to score on, as in fit ("folder:PATH"); none: the run's own."""
    data_dir: str | None = None
    """Where prepared data sets live now; none: as in training."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Scores a trained network on its evaluation images."""

    workdir: Path
    """Directory of the run."""
    checkpoint: str = "latest"
    """Which checkpoint: latest, best on held-out images (data.validation), or the
    number of a step."""
    batch_size: int | None = None
    """Images at a time; none: as in training."""
    split: str | None = None
    """Split to score, or validation for the held-out training images; none: the run's
    own evaluation split."""
    train_images: bool = False
    """Also score the training images, which shows the gap between the two."""
    equivariance_images: int = 500
    """Images that are also shown rotated, scaled and shifted, to see whether the
    masks move along (WORKDIR/equivariance.png); 0: none."""
    yardsticks: bool = True
    """Where objects are known: also score the whole image, a constant box, an oracle
    and class activation maps, in a table beside the layers."""
    data: MovedDataConfig = dataclasses.field(default_factory=MovedDataConfig)


@dataclass(frozen=True)
class PredictConfig:
    """Says what a trained network sees in images of yours, and where it looks."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files, folders (walked at any depth), or patterns in quotes."""
    workdir: Path
    """Directory of the run."""
    output: Path | None = None
    """Directory for the pictures (NAME-rectangle.png) and predictions.json; none:
    WORKDIR/predictions. No file is written over that predict has not written."""
    checkpoint: str = "latest"
    """Which checkpoint: latest, best on held-out images (data.validation), or the
    number of a step."""
    cam: bool = False
    """Also draw the class activation map of the predicted class, beside the
    rectangle."""


@dataclass(frozen=True)
class ReportConfig:
    """Compares runs: a Markdown table over seeds, and curves as PNG."""

    runs: tyro.conf.Positional[tuple[Path, ...]]
    """Work directories. Runs whose configs differ only in the seed form one row.
    What is no evaluated run is named and passed over."""
    output: Path = Path("report")
    """Directory for report.md and the curves."""


@dataclass(frozen=True)
class ModelsConfig:
    """Lists the networks and attention layers by name."""

    image_size: int = 224
    """Side of the square image for which FLOPs are counted."""
    channels: int = 3
    """Channels of that image."""
    classes: int = 1000
    """Number of classes."""


def _take_preset(arguments: Sequence[str]) -> tuple[str | None, list[str]]:
    """Takes `--preset NAME` out of the arguments: tyro gets the others."""
    rest, name, position = [], None, 0
    arguments = list(arguments)
    while position < len(arguments):
        word = arguments[position]
        if word == "--preset":
            if position + 1 == len(arguments):
                raise UserError("--preset needs a name: " + ", ".join(PRESETS) + ".")
            position += 1
            name = arguments[position]
        elif word.startswith("--preset="):
            name = word.partition("=")[2]
        else:
            rest.append(word)
        position += 1
    return name, rest


def option_names(kind: type[Any], prefix: str = "") -> list[str]:
    """All options of a config class: `--optimizer.learning-rate`, ..."""
    names = []
    for item in dataclasses.fields(kind):
        name = item.name.replace("_", "-")
        if dataclasses.is_dataclass(item.default_factory):
            names += option_names(item.default_factory, f"{prefix}{name}.")
            continue
        names.append(f"--{prefix}{name}")
        if item.type in ("bool", bool):
            names.append(f"--{prefix}no-{name}")
    return names


def _check_options(kind: type[Any], arguments: Sequence[str]) -> None:
    """Refuses an unknown option with the one that was probably meant.

    tyro suggests too, but only for small slips in a full name; most people forget
    the section, as in `--learning-rate`.
    """
    known = [*option_names(kind), "--help", "--preset"]
    by_last = {name.rpartition(".")[2].lstrip("-"): name for name in known}
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if not name.startswith("--") or name in known:
            continue
        # Here, so that `--help` need not import jax.
        from cram_jax.checks import nearest

        last = name.rpartition(".")[2].lstrip("-")
        near = [by_last[each] for each in nearest(last, by_last, cutoff=0.8)]
        near = nearest(name, known, cutoff=0.85) or near
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"Unknown option {name}.{hint} See --help for all.")


def field_sentences(kind: type[Any]) -> dict[str, str]:
    """The text under each field of a config class, on one line, by field."""
    (definition,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(definition, ast.ClassDef)
    sentences = {}
    for field, text in itertools.pairwise(definition.body):
        match field, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                sentences[name] = " ".join(words.split())
    return sentences


def _give_help(kind: type[Any]) -> None:
    """Hands tyro each field's text; by itself it keeps line breaks of the source."""
    sentences = field_sentences(kind)
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.default_factory):
            _give_help(item.default_factory)
    for name, hint in typing.get_type_hints(kind, include_extras=True).items():
        if name in sentences:
            help_text = tyro.conf.arg(help=sentences[name])
            kind.__annotations__[name] = Annotated[hint, help_text]


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
    return parse_training(FitConfig, "fit", _fit_description(), arguments)


def parse_training(
    kind: type[Any], command: str, description: str, arguments: Sequence[str]
) -> Any:
    """The config of a subcommand that trains: `FitConfig` or a class built on it."""
    name, rest = _take_preset(arguments)
    values = {} if name is None else vars(preset(name))
    # No preset names a directory: each command has its own.
    default = kind(**{k: v for k, v in values.items() if k != "workdir"})
    _check_options(kind, rest)
    for each in dict.fromkeys((FitConfig, kind)):
        _give_help(each)
    config = tyro.cli(
        kind,
        default=default,
        args=rest,
        prog=f"{PROGRAM} {command}",
        description=description,
    )
    return _at_home(config)


def parse(kind: type[Any], command: str, arguments: Sequence[str]) -> Any:
    """The config of any other subcommand; raises as `parse_fit`."""
    _check_options(kind, arguments)
    _give_help(kind)
    config = tyro.cli(kind, args=list(arguments), prog=f"{PROGRAM} {command}")
    return _at_home(config)


def _at_home(config: Any) -> Any:
    """The config with `~` replaced in its paths: no shell does it in --option=~/x."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(config):
        match getattr(config, item.name):
            case Path() as path:
                changes[item.name] = Path(expanded(str(path)))
            case (Path(), *_) as paths:
                changes[item.name] = tuple(Path(expanded(str(each))) for each in paths)
    return dataclasses.replace(config, **changes)
