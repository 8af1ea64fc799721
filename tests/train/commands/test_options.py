"""What a new user gets wrong on the command line, and `--help`."""

import dataclasses
import json

import pytest

from tests.tiny_runs import INPUTS, tiny_config
from train.__main__ import COMMANDS, main
from train.commands.options import (
    DataReportConfig,
    EvaluateConfig,
    ExportConfig,
    ModelsConfig,
    PredictConfig,
    ReportConfig,
    field_sentences,
)
from train.config.data import DataConfig
from train.config.presets import PRESETS, preset
from train.config.run import FitConfig, to_dict
from train.errors import WRONG_USE
from train.run.claim import claimed
from train.run.workdir import load_config


def outcome(capsys, *arguments):
    """Exit code and messages of one command, joined to one line."""
    try:
        code = main([str(word) for word in arguments])
    except SystemExit as end:
        code = end.code
    captured = capsys.readouterr()
    text = captured.out + captured.err
    assert "Traceback" not in text
    return code, " ".join(text.replace("│", " ").split())


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["fitt"], "Unknown subcommand 'fitt'. Did you mean 'fit'?"),
        (["fit", "--preset", "digit"], "Unknown preset 'digit'. Did you mean 'digits'"),
        (["fit", "--preset"], "--preset needs a name"),
        (
            ["fit", "--model.attention", "rectangel"],
            "Unknown attention 'rectangel'. Did you mean 'rectangular'?",
        ),
        (
            ["fit", "--model.backbone", "resnet19"],
            "Unknown backbone 'resnet19'. Did you mean 'resnet18'",
        ),
        (["fit", "--optimiser.learning-rate=1"], "mean --optimizer.learning-rate?"),
        (["fit", "--learning-rate", "1"], "mean --optimizer.learning-rate?"),
        (["fit", "--optimizer.learning_rat", "1"], "mean --optimizer.learning-rate?"),
        (["fit", "--batchsize", "8"], "mean --batch-size?"),
        (["fit", "--output.tensorbord"], "mean --output.tensorboard?"),
        (["fit", "--parallel", "pmpa"], "'jit', 'pmap'"),
        (["fit", "--sharpness.end", "-1"], "sharpness.end must be positive"),
        (["fit", "--epochs", "many"], "--epochs"),
        (["fit", "--data.name", "folder:/nowhere"], "/nowhere"),
        (["fit", "--data.name", "digit"], "'digits'"),
        (["fit", "--model.attention-stages", "9"], "1..3"),
        (["fit", "--hosts.coordinator", "x:1"], "--hosts.count and --hosts.index"),
        (["evaluate", "--workdir", "/nowhere"], "not the work directory of a run"),
        (["predict", "--workdir", "/nowhere", "a.png"], "not the work directory"),
        (["report", "/nowhere"], "not the work directory of a run"),
        (["models", "--image-size", "0"], "must be 1 or more"),
    ],
)
def test_a_mistake_is_met_with_one_clear_sentence(
    capsys, arguments, expected, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if "--model.attention-stages" in arguments:
        (tmp_path / "set").mkdir()
        from tests.tiny_runs import write_images

        folder = write_images(tmp_path / "images")
        arguments = [*arguments, "--data.name", f"folder:{folder}"]
        arguments += ["--batch-size", "8"]
    code, text = outcome(capsys, *arguments)
    assert code == WRONG_USE
    assert expected in text


def test_a_work_directory_without_a_checkpoint_says_how_to_get_one(capsys, tmp_path):
    with claimed(tiny_config(tmp_path), INPUTS):
        pass
    code, text = outcome(capsys, "evaluate", "--workdir", tmp_path)
    assert code == WRONG_USE
    assert "has no checkpoint yet. Train first: python -m train fit" in text


def test_a_package_that_is_not_installed_is_one_sentence(capsys, monkeypatch):
    def fails(name):
        def command(_):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

        return command, "Fails."

    monkeypatch.setitem(COMMANDS, "fit", fails("tyro.conf"))
    code, text = outcome(capsys, "fit")
    assert code == WRONG_USE
    assert text.startswith("error: the package tyro.conf is not installed")
    assert "pip install 'cram-jax[train]'" in text
    # What the program lacks of itself is no matter of packages.
    monkeypatch.setitem(COMMANDS, "fit", fails("train.lost"))
    with pytest.raises(ModuleNotFoundError, match="lost"):
        main(["fit"])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_subcommand_has_help(capsys, command):
    code, text = outcome(capsys, command, "--help")
    assert code in (0, None)
    assert "usage: python -m train " + command in text


def test_plain_help_lists_the_subcommands(capsys):
    code, text = outcome(capsys, "--help")
    assert code == 0
    assert all(name in text for name in COMMANDS)


def configs(kind):
    """A config class and its sections."""
    yield kind
    for item in dataclasses.fields(kind):
        if dataclasses.is_dataclass(item.default_factory):
            yield from configs(item.default_factory)


@pytest.mark.parametrize(
    "kind",
    [
        *configs(FitConfig),
        DataReportConfig,
        EvaluateConfig,
        ExportConfig,
        PredictConfig,
        ReportConfig,
        ModelsConfig,
    ],
)
def test_every_option_has_a_sentence(kind):
    assert kind.__doc__
    sentences = field_sentences(kind)
    for item in dataclasses.fields(kind):
        if not dataclasses.is_dataclass(item.default_factory):
            assert sentences[item.name].endswith("."), item.name


def test_help_texts_are_filled_to_the_width_of_the_terminal(capsys):
    with pytest.raises(SystemExit):
        main(["fit", "--help"])
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    start = next(n for n, line in enumerate(lines) if "--data.image-size" in line)
    first, second = lines[start + 1 : start + 3]
    sentence = field_sentences(DataConfig)["image_size"]
    assert sentence.startswith(f"{first} {second}".partition(" (default")[0])
    # A line is short only where the next word would not have fitted.
    assert len(f"{first} {second.split()[0]}") > 70
    assert len(second) > len(first) / 2


@pytest.mark.parametrize("name", PRESETS)
def test_presets_survive_a_trip_through_their_file(name, tmp_path):
    config = dataclasses.replace(preset(name), workdir=tmp_path)
    with claimed(config, INPUTS):
        pass
    assert load_config(tmp_path) == config
    assert json.loads((tmp_path / "config.json").read_text()) == to_dict(config)
