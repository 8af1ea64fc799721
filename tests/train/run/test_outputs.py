"""No command writes over a file that it has not written itself."""

import json
import os
import stat
from pathlib import Path

import pytest

from train.errors import CannotWriteError, UserError
from train.files import finite
from train.run.outputs import Outputs, written_here


def outputs(directory, run="run", command="predict"):
    return Outputs(directory, command, [directory.parent / run])


def identity(path):
    """What changes if a file is written or replaced, and not if it is read."""
    found = path.lstat()
    return found.st_mode, found.st_ino, found.st_size, found.st_mtime_ns


@pytest.fixture
def place(tmp_path):
    return tmp_path / "out"


def test_our_own_file_is_written_again_and_again(place):
    for content in (b"one", b"two", b"two", b"three"):
        outputs(place).write("a.png", content)
        assert (place / "a.png").read_bytes() == content
    assert written_here(place, "predict") == {"a.png"}
    # No other files are left lying about.
    assert sorted(path.name for path in place.iterdir()) == [
        ".cram-jax-outputs.jsonl",
        "a.png",
    ]


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        (lambda p: (p / "a.png").write_bytes(b"mine"), "not written by this command"),
        (lambda p: (p / "a.png").write_bytes(b""), "not written by this command"),
        (lambda p: (p / "a.png").mkdir(), "not written by this command"),
        (lambda p: (p / "a.png").symlink_to("nowhere"), "not written by this command"),
        (lambda p: os.mkfifo(p / "a.png"), "not written by this command"),
        (lambda p: outputs(p, "other").write("a.png", b"x"), "of .*other, another run"),
        (
            lambda p: outputs(p, command="report").write("a.png", b"x"),
            "is a result of report",
        ),
        (
            lambda p: (
                outputs(p).write("a.png", b"x"),
                (p / "a.png").write_bytes(b"x, with my notes"),
            ),
            "was changed since it was written",
        ),
        (
            lambda p: (
                outputs(p).write("a.png", b"x"),
                (p / ".cram-jax-outputs.jsonl").write_bytes(b"\xff[]\nnull\n{}\n"),
            ),
            "not written by this command",
        ),
    ],
)
def test_any_other_file_is_left_alone(place, before, reason):
    place.mkdir()
    before(place)
    path = place / "a.png"
    told = identity(path)
    with pytest.raises(UserError, match=reason):
        outputs(place).check("b.png", "a.png")
    with pytest.raises(UserError, match=reason):
        outputs(place).write("a.png", b"ours")
    assert identity(path) == told
    assert outputs(place).free_name("a", ".png", set()) == "a-2.png"


def test_a_run_that_moves_with_its_results_knows_them(tmp_path):
    run = tmp_path / "run"
    Outputs(run / "predictions", "predict", [run]).write("a.png", b"x")
    moved = run.rename(tmp_path / "moved")
    Outputs(moved / "predictions", "predict", [moved]).write("a.png", b"y")
    assert (moved / "predictions" / "a.png").read_bytes() == b"y"


def test_a_report_on_more_runs_is_the_same_report(place):
    first, second, third = (place.parent / name for name in "abc")
    Outputs(place, "report", [first]).write("report.md", b"1")
    Outputs(place, "report", [second, first]).write("report.md", b"2")
    with pytest.raises(UserError, match="another run"):
        Outputs(place, "report", [third]).write("report.md", b"3")


def test_the_same_directory_in_another_spelling_is_the_same(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "run")
    Outputs(tmp_path / "out", "predict", [tmp_path / "run"]).write("a", b"1")
    monkeypatch.chdir(tmp_path)
    Outputs(Path("out"), "predict", [Path("run")]).write("a", b"2")
    Outputs(Path("./run/../out"), "predict", [link]).write("a", b"3")
    assert (tmp_path / "out" / "a").read_bytes() == b"3"


@pytest.mark.parametrize(
    "stems",
    [
        ["a", "a", "a"],
        ["a", "A"],  # one name on macOS and Windows
        ["caf\u00e9", "cafe\u0301"],  # composed and not
        ["stra\u00dfe", "STRASSE"],
        ["a", "a-rectangle", "a-rectangle-2", "a"],
        ["x\ud8ff", "x\udce9", "x\n"],
        ["n" * 255, "n" * 254, "\u732b" * 85],
        ["", ".", "..", "-", " "],
    ],
)
def test_names_are_unique_on_any_file_system(place, stems):
    taken: set[str] = set()
    names = [outputs(place).free_name(stem, "-rectangle.png", taken) for stem in stems]
    assert len({name.casefold() for name in names}) == len(stems)
    for name in names:
        outputs(place).write(name, name.encode())
        assert name.isprintable()
    assert {path.name for path in place.glob("*.png")} | {
        path.name for path in place.glob(".*.png")
    } == set(names)


def test_files_have_the_usual_rights(place):
    (place.parent / "usual").write_text("")
    outputs(place).write("a", b"x")
    usual = stat.S_IMODE((place.parent / "usual").stat().st_mode)
    assert stat.S_IMODE((place / "a").stat().st_mode) == usual


def test_a_directory_that_is_a_file_is_named(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="is no directory"):
        outputs(tmp_path / "out")
    with pytest.raises(CannotWriteError, match="cannot be written"):
        outputs(tmp_path / "out" / "deeper").write("a", b"x")
    assert (tmp_path / "out").read_text() == "mine"


def test_json_has_no_nan(place):
    values = {"a": [float("nan"), 1.5, {"b": float("-inf")}], "c": (1, None, "NaN")}
    path = outputs(place).write_json("a.json", values)
    found = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert found == {"a": [None, 1.5, {"b": None}], "c": [1, None, "NaN"]}
    assert finite(values)["a"][0] is None
