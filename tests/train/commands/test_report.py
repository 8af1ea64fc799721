"""`report` names what it cannot use, and compares the rest honestly."""

import dataclasses
import json
import shutil
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import stats

from tests.tiny_runs import INPUTS, tiny_config
from train.__main__ import main
from train.commands.report.curves import show_legend
from train.commands.report.groups import group_runs
from train.commands.report.runs import read_runs
from train.config.run import to_dict
from train.errors import DONE, WRONG_USE


def make_run(workdir, seed=0, accuracies=(0.3, 0.5), changes=None, **more):
    """A work directory with a config and an evaluation per epoch."""
    workdir.mkdir(parents=True)
    values: dict[str, Any] = to_dict(tiny_config(workdir)) | {"seed": seed}
    for name, value in (changes or {}).items():
        section, _, field = name.partition(".")
        values[section][field] = value
    (workdir / "config.json").write_text(json.dumps(values))
    records = [
        {"kind": "eval", "step": 3 * n, "epoch": n, "accuracy": accuracy, **more}
        for n, accuracy in enumerate(accuracies, start=1)
    ]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (workdir / "metrics.jsonl").write_text(lines)
    return workdir


def report(tmp_path, *runs, output="report"):
    return main(["report", *map(str, runs), "--output", str(tmp_path / output)])


def rows(text):
    """The table as a list of dicts."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def damage(kind):
    def spoil(runs):
        run = make_run(runs / "spoilt", seed=9)
        config, metrics = run / "config.json", run / "metrics.jsonl"
        match kind:
            case "no config":
                config.unlink()
            case "config cut":
                config.write_text(config.read_text()[:40])
            case "config of bytes":
                config.write_bytes(b"\xff\xfe\x00")
            case "config a list":
                config.write_text("[]")
            case "config of another program":
                config.write_text('{"model": 3, "seed": {}}')
            case "no metrics":
                metrics.unlink()
            case "metrics empty":
                metrics.write_text("")
            case "metrics of bytes":
                metrics.write_bytes(b"\xff\x00\n" + metrics.read_bytes())
            case "metrics of lists":
                metrics.write_text("[1]\n" + metrics.read_text())
            case "metrics without a step":
                metrics.write_text('{"kind": "eval", "accuracy": 1}\n')
            case "metrics a folder":
                metrics.unlink()
                metrics.mkdir()
            case "only trained":
                metrics.write_text('{"kind": "train", "step": 1, "epoch": 1}\n')
        return run

    return spoil


def stray(name):
    def make(runs):
        (runs / name).write_text("x")
        return runs / name

    return make


KINDS = (
    "no config",
    "config cut",
    "config of bytes",
    "config a list",
    "config of another program",
    "no metrics",
    "metrics empty",
    "metrics of bytes",
    "metrics of lists",
    "metrics without a step",
    "metrics a folder",
    "only trained",
)
ENTRIES = {kind: damage(kind) for kind in KINDS} | {
    "file": stray("notes.txt"),
    "hidden file": stray(".DS_Store"),
    "nothing": lambda runs: runs / "nothing",
    "empty folder": lambda runs: (runs / "empty").mkdir() or runs / "empty",
    "hidden run": lambda runs: make_run(runs / ".old", seed=7),
    "copy": lambda runs: shutil.copytree(runs / "0", runs / "copy"),
    "the same again": lambda runs: runs / "1" / ".." / "0",
    "seed again": lambda runs: make_run(runs / "again", accuracies=(0.1, 0.2)),
    "unfinished": lambda runs: make_run(runs / "half", seed=5, accuracies=(0.3,)),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_what_cannot_be_used_is_named_and_passed_over(tmp_path, capsys, entry):
    runs = tmp_path / "runs"
    good = [make_run(runs / f"{n}", n, (0.1, 0.5 + n / 10)) for n in range(3)]
    bad = ENTRIES[entry](runs)
    assert report(tmp_path, *good[:2], bad, good[2]) == DONE
    captured = capsys.readouterr()
    assert captured.err == ""
    (named,) = [line for line in captured.out.splitlines() if "Passed over" in line]
    assert str(bad) in named
    assert named in (tmp_path / "report" / "report.md").read_text()
    (row,) = rows(captured.out)
    assert row["seeds"] == "3"
    half = stats.t.ppf(0.975, 2) * 0.1 / 3**0.5
    assert row["accuracy"] == f"0.6000 ± {half:.4f}"


def test_a_line_cut_short_by_a_crash_is_no_damage(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"kind": "eval", "st')
    assert report(tmp_path, run) == DONE
    assert "Passed over" not in capsys.readouterr().out


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_to_report_on_is_one_sentence(tmp_path, capsys, count):
    paths = [tmp_path / f"none{index}" for index in range(count)]
    assert report(tmp_path, *paths) == WRONG_USE
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert all(str(path) in captured.err for path in paths)
    assert not (tmp_path / "report").exists()


def test_one_seed_and_its_copy_have_no_interval(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    copy = shutil.copytree(run, tmp_path / "copy")
    assert report(tmp_path, run, copy) == DONE
    out = capsys.readouterr().out
    assert "±" not in out
    assert "one seed" in out
    assert rows(out)[0]["seeds"] == "1"


def test_columns_are_those_of_all_runs(tmp_path, capsys):
    runs = [
        make_run(tmp_path / "0", 0, iou=0.5),
        make_run(tmp_path / "1", 1, **{"layer|x/iou": 0.25, "iou": float("nan")}),
        make_run(tmp_path / "2", 2, changes={"model.attention": "none"}, other=1.0),
    ]
    assert report(tmp_path, *runs) == DONE
    first, second = rows(capsys.readouterr().out)
    assert first["layer\\|x/iou"] == "0.2500 (1 of 2)"
    assert first["iou"] == "0.5000 (1 of 2)"
    assert first["other"] == ""
    assert second["other"] == "1.0000"
    text = (tmp_path / "report" / "report.md").read_text()
    assert "nan" not in text.lower()
    assert "iou.png" in text


def test_a_run_of_more_than_ten_seeds_has_students_interval(tmp_path, capsys):
    values = np.random.default_rng(0).uniform(0.4, 0.6, 15).round(4)
    runs = [make_run(tmp_path / f"{n}", n, (0.1, v)) for n, v in enumerate(values)]
    assert report(tmp_path, *runs) == DONE
    half = stats.t.ppf(0.975, 14) * stats.sem(values)
    cell = rows(capsys.readouterr().out)[0]["accuracy"]
    assert cell == f"{values.mean():.4f} ± {half:.4f}"


@pytest.mark.parametrize("name", ["report.md", "accuracy.png"])
def test_a_file_of_the_users_is_not_written_over(tmp_path, capsys, name):
    run, photos = make_run(tmp_path / "run"), tmp_path / "photos"
    photos.mkdir()
    (photos / name).write_text("mine")
    assert report(tmp_path, run, output="photos") == WRONG_USE
    assert "not written over" in capsys.readouterr().err
    assert [path.name for path in photos.iterdir()] == [name]
    assert (photos / name).read_text() == "mine"


def test_notes_that_were_added_to_a_report_are_kept(tmp_path, capsys):
    run = make_run(tmp_path / "run")
    assert report(tmp_path, run) == report(tmp_path, run) == DONE
    path = tmp_path / "report" / "report.md"
    path.write_text(path.read_text() + "\nMy conclusion.\n")
    assert report(tmp_path, run) == WRONG_USE
    assert "was changed since" in capsys.readouterr().err
    assert "My conclusion." in path.read_text()


def test_a_report_on_other_runs_is_not_written_over(tmp_path):
    first, second = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1)
    assert report(tmp_path, first) == DONE
    assert report(tmp_path, second) == WRONG_USE
    assert report(tmp_path, first, second) == DONE


def test_a_report_inside_a_run_leaves_the_run_as_it_is(tmp_path):
    run = make_run(tmp_path / "runs" / "a")
    before = {path: path.read_bytes() for path in run.iterdir()}
    for output in ("runs/a", "runs"):
        assert report(tmp_path, run, output=output) == DONE
    assert {path: path.read_bytes() for path in before} == before
    assert report(tmp_path, *(tmp_path / "runs").iterdir(), output="again") == DONE


def test_an_output_that_is_a_file_is_named(tmp_path, capsys):
    (tmp_path / "report").write_text("mine")
    assert report(tmp_path, make_run(tmp_path / "run")) == WRONG_USE
    assert "is no directory" in capsys.readouterr().err
    assert (tmp_path / "report").read_text() == "mine"


@pytest.mark.parametrize(
    "value", ["$x_$", "$\\frac$", "\u732b\U000e7fff", "_a", "a|b\n"]
)
def test_curves_take_any_text_as_it_is(tmp_path, value):
    runs = [
        make_run(tmp_path / "0", changes={"data.name": f"folder:{value}"}),
        make_run(tmp_path / "1"),
    ]
    assert report(tmp_path, *runs) == DONE
    with Image.open(tmp_path / "report" / "accuracy.png") as picture:
        assert picture.width > 500
    lines = (tmp_path / "report" / "report.md").read_text().splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 4


def inputs(workdir, examples=24):
    values = dataclasses.asdict(INPUTS) | {"num_examples": examples}
    (workdir / "inputs.json").write_text(json.dumps(values))
    return workdir


@pytest.mark.parametrize("plans", [{}, {"epochs": 9.0, "earlier_epochs": [2.0]}])
def test_a_run_that_is_not_finished_is_named_though_nothing_is_longer(
    tmp_path, capsys, plans
):
    """24 images in batches of 8 are 3 steps an epoch: of 4 epochs 2 have been."""
    done = inputs(make_run(tmp_path / "done", 1, (0.1, 0.2, 0.3, 0.4)))
    half = inputs(make_run(tmp_path / "half", changes={"model.attention": "none"}))
    values = json.loads((half / "config.json").read_text()) | plans
    (half / "config.json").write_text(json.dumps(values))
    steps = 27 if plans else 12
    assert report(tmp_path, done, half) == DONE
    out = capsys.readouterr().out
    assert f"Passed over: {half} is not finished: evaluated at step 6 of {steps}" in out
    assert [row["runs"] for row in rows(out)] == ["done"]
    assert report(tmp_path, half, output="none") == WRONG_USE
    capsys.readouterr()
    assert report(tmp_path, done, half, "--unfinished", output="all") == DONE
    assert [row["runs"] for row in rows(capsys.readouterr().out)] == ["done", "half"]


def test_rows_name_their_runs_and_curves_are_called_by_what_these_share(tmp_path):
    long = "a-rather-long-name-of-a-folder-that-says-much"
    runs = [
        make_run(tmp_path / name, seed, changes={"model.attention": attention})
        for name, seed, attention in (
            ("none-0", 0, "none"),
            ("none-1", 1, "none"),
            ("x/run", 0, "cbam"),
            ("y/run", 0, "rectangular"),
            (long, 0, "coordinate"),
        )
    ]
    groups = group_runs(read_runs(runs)[0])
    assert [group.members for group in groups] == [
        ("none-0", "none-1"),
        ("x/run",),
        ("y/run",),
        (long,),
    ]
    assert [group.name for group in groups][:3] == ["none", "x/run", "y/run"]
    assert len(groups[3].name) <= 28
    assert long.startswith(groups[3].name[:-1])
    assert groups[1].config == 'model.attention="cbam"'


def test_the_legend_lies_beside_the_plot():
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 4.5), layout="constrained")
    axes = figure.subplots()
    for index in range(12):
        axes.plot([0, 1], [index, index], label=f"a run of many {index}")
    show_legend(axes)
    figure.draw_without_rendering()
    found = axes.get_legend()
    assert found is not None
    legend, plot = found.get_window_extent(), axes.get_window_extent()
    assert legend.x0 >= plot.x1
    assert legend.x1 <= figure.bbox.x1


def test_the_mean_curve_is_over_epochs_that_all_runs_have(tmp_path):
    from train.commands.report.curves import _mean

    assert _mean([{1: 0.5, 2: 1.0}, {2: 0.0, 3: 7.0}]) == {2: 0.5}
