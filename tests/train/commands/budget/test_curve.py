"""`budget` trains a curve, goes on where it was stopped, and chooses by the rule."""

import json

import pytest
from PIL import Image

from tests.tiny_runs import tiny_arguments, write_images
from train.__main__ import main
from train.commands.budget import runs as budget_runs
from train.commands.budget.options import parse_curve
from train.commands.budget.runs import planned_runs
from train.config.presets import preset
from train.errors import DONE, INTERRUPTED, WRONG_USE
from train.run.workdir import load_config

NAMES = ["bare-seed0", "area-0.3-seed0", "area-0.6-seed0"]


def words(folder, workdir, *more):
    """One epoch of 36 images; 24 are held out, so one is worth 4.2 points."""
    _, *options = tiny_arguments(folder, workdir, "--epochs=1", *more)
    areas = ["--areas", "0.6", "0.3", "0.6", "--budget.area-weight=100"]
    return ["budget", *options, "--data.validation=0.4", *areas]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """20 training images of each class."""
    return write_images(tmp_path_factory.mktemp("set") / "images", per_class=20)


@pytest.fixture(scope="module")
def counted():
    """The names of the runs that `fit` was asked for, one list for each start."""
    return []


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory, counted):
    """A curve that was stopped before its third run, and started again."""
    workdir = tmp_path_factory.mktemp("curve")
    real = budget_runs.fit
    with pytest.MonkeyPatch.context() as patch:
        for stops in (True, False):
            asked: list[str] = []

            def fit(config, asked=asked, stops=stops):
                asked.append(config.workdir.name)
                if stops and len(asked) == 3:
                    return INTERRUPTED
                return real(config)

            patch.setattr(budget_runs, "fit", fit)
            code = main(words(folder, workdir))
            assert code == (INTERRUPTED if stops else DONE)
            assert (workdir / "budget.json").exists() == (not stops)
            counted.append(asked)
    return workdir


def test_finished_runs_are_not_trained_again(finished, counted):
    assert counted == [NAMES, NAMES[2:]]
    assert sorted(p.name for p in finished.iterdir() if p.is_dir()) == sorted(NAMES)


def test_runs_differ_in_their_budget_only(finished):
    bare, narrow, wide = (load_config(finished / name) for name in NAMES)
    assert bare.model.attention == "none"
    assert not bare.budget.is_on
    assert (narrow.budget.area, wide.budget.area) == (0.3, 0.6)
    assert narrow.model == wide.model
    assert bare.data == narrow.data


def test_the_curve_is_made_of_held_out_scores(finished):
    found = json.loads((finished / "budget.json").read_text())
    results = {n: json.loads((finished / n / "result.json").read_text()) for n in NAMES}
    assert found["held_out_images"] == results[NAMES[0]]["validation"]["images"] == 24
    assert found["bare_accuracy"] == results[NAMES[0]]["validation"]["accuracy"]
    assert found["allowed_loss"] == pytest.approx(1 / 24)
    assert [point["target"] for point in found["points"]] == [0.3, 0.6]
    for name, point in zip(NAMES[1:], found["points"], strict=True):
        scores = results[name]["validation"]
        assert point["accuracy"] == scores["accuracy"]
        (area,) = (v for k, v in scores.items() if k.endswith("/mask_area"))
        assert point["area"] == area
        assert [each["run"] for each in point["runs"]] == [name]
    with Image.open(finished / "budget.png") as picture:
        assert picture.size == (840, 540)


def with_scores(finished, monkeypatch, scores):
    """Held-out accuracies as given, by the name of the run."""
    real = budget_runs.held_out_scores

    def changed(workdir):
        return real(workdir) | {"accuracy": scores[workdir.name]}

    monkeypatch.setattr(budget_runs, "held_out_scores", changed)


@pytest.mark.parametrize(
    ("accuracies", "sentence"),
    [
        ((0.9, 0.7, 0.87), "Chosen: --budget.area 0.6 (trained already:"),
        ((0.9, 0.86, 0.7), "Chosen: --budget.area 0.3 (trained already:"),
        ((0.9, 0.7, 0.7), "No area passes: the widest, 0.6, loses 20.0 points."),
    ],
)
def test_what_to_type_is_printed(
    finished, folder, monkeypatch, capsys, accuracies, sentence
):
    scores = dict(zip(NAMES, accuracies, strict=True))
    with_scores(finished, monkeypatch, scores)
    assert main(words(folder, finished)) == DONE
    said = capsys.readouterr().out
    assert sentence in said
    assert "one image is worth 4.2 points" in said
    assert ("Chosen" in said) == ("Chosen" in sentence)


def test_another_config_is_refused_before_anything_is_trained(finished, folder, capsys):
    assert main([*words(folder, finished), "--batch-size=12"]) == WRONG_USE
    assert "batch_size: 8, now 12" in capsys.readouterr().err


def test_a_file_of_the_users_is_not_written_over_by_a_curve(folder, tmp_path, capsys):
    (tmp_path / "budget.json").write_text("mine")
    assert main(words(folder, tmp_path)) == WRONG_USE
    assert "not written over" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["budget.json"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--data.validation=0"], "none are held out; give --data.validation 0.1"),
        (
            ["--data.validation=0.1"],
            "held out to choose a budget by: 6, of which one is worth 16.7 points",
        ),
        (["--model.attention=none"], "A budget needs a layer with a spatial mask"),
        (["--budgetarea=3"], "Unknown option --budgetarea"),
    ],
)
def test_what_cannot_give_a_curve_is_one_sentence(
    folder, tmp_path, capsys, options, sentence
):
    assert main([*words(folder, tmp_path / "new"), *options]) == WRONG_USE
    message = capsys.readouterr().err
    assert sentence in message
    assert message.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "options",
    [
        ["--areas", "0"],
        ["--areas", "0.5", "30"],
        ["--seeds", "0"],
        ["--within", "1"],
        ["--budget.area-weight", "0"],
    ],
)
def test_values_that_mean_nothing_are_refused(options, capsys):
    with pytest.raises((SystemExit, ValueError)):
        parse_curve(options)


def test_a_preset_is_a_curves_too_and_seeds_follow_one_another(tmp_path):
    options = parse_curve(
        ["--preset", "photographs", "--seeds", "2", "--seed", "4", "--areas", "0.5"]
    )
    assert options.workdir.name == "budget"
    found = planned_runs(options)
    assert [run.config.workdir.name for run in found] == [
        f"{name}-seed{seed}" for seed in (4, 5) for name in ("bare", "area-0.5")
    ]
    recipe = preset("photographs")
    assert found[1].config.budget.outside == recipe.budget.outside > 0
    assert found[1].config.optimizer == found[0].config.optimizer == recipe.optimizer
