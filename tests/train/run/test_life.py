"""The life of a run: what is changed around it, nothing of it is lost."""

import contextlib
import dataclasses
import json
import os
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from tests.tiny_runs import CLASSES, final_state, finish, tiny_arguments, write_images
from train.__main__ import main
from train.config.places import moved_from, with_absolute_places
from train.data.sources.folders.content import Content
from train.errors import CANNOT_WRITE, DONE, WRONG_USE
from train.learning.processes import own_numerics
from train.run.workdir import load_config


@pytest.fixture(scope="module")
def first_folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "images")


@pytest.fixture(scope="module")
def finished(first_folder, tmp_path_factory):
    return finish(first_folder, tmp_path_factory.mktemp("run") / "run")


@pytest.fixture
def folder(first_folder, tmp_path):
    """A copy of the images, to be changed."""
    return shutil.copytree(first_folder, tmp_path / "images")


@pytest.fixture
def workdir(finished, folder, tmp_path):
    """A copy of the finished run, which says it was trained on the copied images."""
    workdir = shutil.copytree(finished, tmp_path / "run")
    values = json.loads((workdir / "config.json").read_text())
    values["data"]["name"] = f"folder:{folder}"
    (workdir / "config.json").write_text(json.dumps(values))
    return workdir


def snapshot(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def without(files, *names):
    return {path: text for path, text in files.items() if path.name not in names}


def evaluate(workdir, *more):
    words = ["evaluate", f"--workdir={workdir}", "--equivariance-images=0", *more]
    return main([str(word) for word in words])


def scores(workdir):
    return json.loads((workdir / "evaluation.json").read_text())["test"]


@pytest.fixture(scope="module")
def expected_scores(finished):
    assert evaluate(finished) == DONE
    found = scores(finished)
    (finished / "evaluation.json").unlink()
    return found


def refused(capsys, code, *parts, exit_code=WRONG_USE):
    text = capsys.readouterr().err
    assert code == exit_code, text
    assert "Traceback" not in text
    assert text.startswith("error: ")
    for part in parts:
        assert part in text


# Data sets that are not the run's.


def add_a_class(folder):
    for split in ("train", "test"):
        shutil.copytree(folder / split / "blob", folder / split / "ant")
    return "other classes than the run: + ant"


def rename_a_class(folder):
    for split in ("train", "test"):
        (folder / split / "blob").rename(folder / split / "zblob")
    text = (folder / "boxes.csv").read_text().replace("/blob/", "/zblob/")
    (folder / "boxes.csv").write_text(text)
    return "other classes than the run: + zblob - blob"


def remove_a_class(folder):
    for split in ("train", "test"):
        shutil.rmtree(folder / split / "edge")
    lines = (folder / "boxes.csv").read_text().splitlines()
    kept = [line for line in lines if "/edge/" not in line]
    (folder / "boxes.csv").write_text("\n".join(kept))
    return "other classes than the run: - edge"


def exchange_for_a_surrogate(folder):
    name = os.fsdecode(b"\xff[b]")
    for split in ("train", "test"):
        (folder / split / "blob").rename(folder / split / name)
    (folder / "boxes.csv").unlink()
    return "has a name that is not UTF-8; rename it"


def remove_an_image(folder):
    (folder / "train" / "blob" / "3.png").unlink()
    lines = (folder / "boxes.csv").read_text().splitlines()
    kept = [line for line in lines if not line.startswith("train/blob/3.png")]
    (folder / "boxes.csv").write_text("\n".join(kept))
    return "another number of training images than the run: 23, not 24"


def enlarge_the_images(folder):
    from PIL import Image

    for path in folder.rglob("*.png"):
        with Image.open(path) as image:
            larger = image.resize((16, 16))
        larger.save(path)
    return "images of another shape than the run: [16, 16, 3], not [12, 12, 3]"


CHANGES = [
    add_a_class,
    rename_a_class,
    remove_a_class,
    exchange_for_a_surrogate,
    remove_an_image,
    enlarge_the_images,
]


@pytest.mark.parametrize("change", CHANGES)
def test_fit_on_other_data_is_refused_and_changes_nothing(
    folder, workdir, capsys, change
):
    named, before = change(folder), snapshot(workdir)
    for _ in range(2):
        code = main(tiny_arguments(folder, workdir))
        refused(capsys, code, named)
        assert snapshot(workdir) == before


@pytest.mark.parametrize("change", [add_a_class, rename_a_class])
def test_evaluate_on_unknown_classes_is_refused(folder, workdir, capsys, change):
    named, before = change(folder), snapshot(workdir)
    refused(capsys, evaluate(workdir), named)
    assert snapshot(workdir) == before


def test_evaluate_on_some_of_the_classes_scores_them_by_name(
    folder, workdir, expected_scores
):
    """Two classes at a time: each is in two of the three parts."""
    hits = 0
    for left_out in CLASSES:
        part = shutil.copytree(folder, folder.parent / left_out)
        (part / "boxes.csv").unlink()
        for split in ("train", "test"):
            shutil.rmtree(part / split / left_out)
        assert evaluate(workdir, f"--data.name=folder:{part}") == DONE
        assert scores(workdir)["images"] == 10
        hits += round(10 * scores(workdir)["accuracy"])
    assert hits == 2 * round(15 * expected_scores["accuracy"])


def set_order(monkeypatch, order):
    """What another order of the same classes would give."""
    original = Content.by_class

    def listed(self, top):
        rank = {name: number for number, name in enumerate(order)}
        classes = original(self, top)
        names = sorted(classes, key=lambda name: (rank.get(name, 9), name))
        return {name: classes[name] for name in names}

    monkeypatch.setattr(Content, "by_class", listed)


@pytest.mark.parametrize("memory_limit_mb", [0, 1024])
def test_labels_go_by_the_name_of_their_class_not_by_their_order(
    folder, workdir, expected_scores, monkeypatch, memory_limit_mb
):
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    values["data"]["memory_limit_mb"] = memory_limit_mb
    path.write_text(json.dumps(values))
    before = (workdir / "inputs.json").read_bytes()
    set_order(monkeypatch, ["edge", "blob", "cross"])
    assert evaluate(workdir) == DONE
    assert scores(workdir) == pytest.approx(expected_scores)
    limit = f"--data.memory-limit-mb={memory_limit_mb}"
    assert main(tiny_arguments(folder, workdir, limit)) == DONE
    assert (workdir / "inputs.json").read_bytes() == before


# Places.


def test_the_same_folder_in_other_spellings_is_the_same(
    folder, workdir, capsys, monkeypatch
):
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("HOME", str(folder.parent))
    before = load_config(workdir)
    for spelling in (f"{folder}/", "images", "./images/../images", "link", "~/images"):
        data = dataclasses.replace(before.data, name=f"folder:{spelling}")
        now = with_absolute_places(dataclasses.replace(before, data=data))
        assert moved_from(before, now) is None
    assert main(tiny_arguments(Path("~/link"), Path("~/run"))) == DONE
    output = capsys.readouterr().out
    assert "Going on from" in output
    assert "were in" not in output


def test_a_moved_folder_is_accepted_with_a_line_and_can_be_told_to_evaluate(
    folder, workdir, capsys, expected_scores
):
    moved = folder.rename(folder.parent / "moved")
    refused(capsys, evaluate(workdir), f"were in {folder}", "--data.name folder:PATH")
    assert evaluate(workdir, f"--data.name=folder:{moved}") == DONE
    assert scores(workdir) == pytest.approx(expected_scores)
    before = snapshot(workdir)
    assert main(tiny_arguments(moved, workdir)) == DONE
    assert f"The images were in {folder} before" in capsys.readouterr().out
    assert without(snapshot(workdir), "config.json") == without(before, "config.json")
    assert evaluate(workdir) == DONE


def test_a_place_in_the_config_does_not_depend_on_where_it_was_started(
    folder, tmp_path, monkeypatch
):
    monkeypatch.chdir(folder.parent)
    assert main(tiny_arguments(Path("images"), tmp_path / "run", "--epochs=1")) == DONE
    monkeypatch.chdir("/")
    assert evaluate(tmp_path / "run") == DONE


@pytest.mark.parametrize(
    "name", ["a [1,2]*? [/red]", os.fsdecode(b"\xff\xc3\xbc\n")], ids=ascii
)
def test_run_images_and_output_may_have_any_name(first_folder, tmp_path, capsys, name):
    base = tmp_path / name
    folder = shutil.copytree(first_folder, base / "images")
    workdir = base / "run"
    arguments = tiny_arguments(folder, workdir, "--epochs=1", "--output.tensorboard")
    arguments.append("--output.pictures=2")
    assert main(arguments) == DONE
    assert main(arguments) == DONE
    assert evaluate(workdir) == DONE
    image = folder / "test" / "blob" / "0.png"
    words = ["predict", image, "--workdir", workdir, "--output", base / "out"]
    assert main([str(word) for word in words]) == DONE
    assert "Traceback" not in capsys.readouterr().err
    assert not (workdir / "checkpoints-broken").exists()
    assert final_state(workdir)[0] == 3


def a_file(path):
    path.write_text("mine")
    return path


def a_dangling_link(path):
    path.symlink_to("nowhere")
    return path


def below_a_file(path):
    path.write_text("mine")
    return path / "run"


def with_a_long_name(path):
    return path / ("n" * 300)


def a_link_to_itself(path):
    path.symlink_to(path)
    return path


def far_too_deep(path):
    return path.joinpath(*["d" * 200] * 20)


@pytest.mark.parametrize(
    "place",
    [
        a_file,
        a_dangling_link,
        below_a_file,
        with_a_long_name,
        a_link_to_itself,
        far_too_deep,
    ],
)
def test_a_work_directory_that_cannot_be_is_refused_before_training(
    folder, tmp_path, capsys, place
):
    workdir = place(tmp_path / "place")
    before = snapshot(tmp_path)
    code = main(tiny_arguments(folder, workdir))
    refused(capsys, code, exit_code=CANNOT_WRITE)
    assert snapshot(tmp_path) == before


# The run's own files.


def no_config(workdir):
    (workdir / "config.json").unlink()
    return "no config.json"


def empty_config(workdir):
    (workdir / "config.json").write_text("")
    return "config.json cannot be read"


def config_of_nothing(workdir):
    (workdir / "config.json").write_text("[]")
    return "config.json cannot be read"


def binary_config(workdir):
    (workdir / "config.json").write_bytes(b"\xff\xfe\x00")
    return "config.json cannot be read"


def newer_config(workdir):
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    values["model"]["glasses"] = "on"
    path.write_text(json.dumps(values))
    return "does not know model.glasses: a newer version"


def broken_section(workdir):
    path = workdir / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model": 3}))
    return "does not know model"


def no_inputs(workdir):
    (workdir / "inputs.json").unlink()
    return "inputs.json cannot be read"


def empty_inputs(workdir):
    (workdir / "inputs.json").write_text("")
    return "inputs.json cannot be read"


def partial_inputs(workdir):
    (workdir / "inputs.json").write_text('{"truth": "box"}')
    return "inputs.json does not fit this version"


def wrong_inputs(workdir):
    path = workdir / "inputs.json"
    values = json.loads(path.read_text()) | {"image_shape": None}
    path.write_text(json.dumps(values))
    return "inputs.json"


@pytest.mark.parametrize(
    "spoil",
    [
        no_config,
        empty_config,
        config_of_nothing,
        binary_config,
        newer_config,
        broken_section,
        no_inputs,
        empty_inputs,
        partial_inputs,
        wrong_inputs,
    ],
)
def test_a_damaged_record_of_a_run_is_named_and_nothing_is_touched(
    folder, workdir, capsys, spoil
):
    named, before = spoil(workdir), None
    before = snapshot(workdir)
    refused(capsys, main(tiny_arguments(folder, workdir)), named)
    refused(capsys, evaluate(workdir), *([named] if spoil is not no_config else []))
    assert snapshot(workdir) == before


def remove_checkpoints(workdir):
    shutil.rmtree(workdir / "checkpoints")


def empty_checkpoints(workdir):
    for path in (workdir / "checkpoints").iterdir():
        shutil.rmtree(path)


def set_aside_checkpoints(workdir):
    (workdir / "checkpoints").rename(workdir / "checkpoints-broken")
    for name in ("checkpoints-first.json", "result.json"):
        (workdir / name).unlink()


@pytest.mark.parametrize(
    "take", [remove_checkpoints, empty_checkpoints, set_aside_checkpoints]
)
def test_a_run_whose_checkpoints_are_gone_is_not_trained_over(
    folder, workdir, capsys, take
):
    take(workdir)
    before = snapshot(workdir)
    for _ in range(2):
        code = main(tiny_arguments(folder, workdir))
        refused(capsys, code, "has no checkpoints any more")
    refused(capsys, evaluate(workdir), "has no checkpoint yet")
    assert snapshot(workdir) == before


def test_metrics_outlive_checkpoints_that_are_all_damaged(folder, workdir, capsys):
    for path in (workdir / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    before = snapshot(workdir)
    for _ in range(2):
        refused(capsys, main(tiny_arguments(folder, workdir)), "None of the ")
    assert snapshot(workdir) == before


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json", "inputs.json"])
def test_a_directory_with_files_of_another_kind_is_left_alone(
    folder, tmp_path, capsys, name
):
    workdir = tmp_path / "mine"
    workdir.mkdir()
    (workdir / name).write_text('{"mine": 1}\n')
    before = snapshot(workdir)
    refused(capsys, main(tiny_arguments(folder, workdir)))
    assert snapshot(workdir) == before


def test_lines_of_the_metrics_that_a_crash_spoilt_are_passed_over(
    folder, workdir, finished
):
    text = (finished / "metrics.jsonl").read_bytes()
    spoilt = b"\n\n[]\nnull\n3\n{}\n" + text + b'\x00\x00\xff\n{"kind": "tra'
    (workdir / "metrics.jsonl").write_bytes(spoilt)
    assert main(tiny_arguments(folder, workdir)) == DONE
    assert (workdir / "metrics.jsonl").read_bytes() == text


# The environment.


@contextlib.contextmanager
def settings(**values):
    before = {name: getattr(jax.config, name) for name in values}
    try:
        for name, value in values.items():
            jax.config.update(name, value)
        yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("jax_enable_x64", True),
        ("jax_default_prng_impl", "rbg"),
        ("jax_default_prng_impl", "unsafe_rbg"),
        ("jax_numpy_dtype_promotion", "strict"),
        ("jax_numpy_rank_promotion", "raise"),
    ],
)
def test_the_programs_numbers_are_its_own_and_the_callers_come_back(name, value):
    with settings(**{name: value}):
        with own_numerics():
            assert getattr(jax.config, name) != value
            assert jax.numpy.arange(1.0).dtype == np.float32
            assert jax.random.key_data(jax.random.key(0)).shape == (2,)
        assert getattr(jax.config, name) == value


ENVIRONMENTS = [
    {"jax_enable_x64": True, "jax_numpy_rank_promotion": "raise"},
    {"jax_default_prng_impl": "rbg", "jax_numpy_dtype_promotion": "strict"},
    {"jax_default_matmul_precision": "highest", "jax_threefry_partitionable": False},
]


@pytest.mark.slow
@pytest.mark.parametrize("values", ENVIRONMENTS, ids=str)
def test_runs_of_all_environments_read_each_others_checkpoints(
    folder, workdir, tmp_path, values
):
    there = tmp_path / "there"
    with settings(**values):
        assert main(tiny_arguments(folder, there, "--epochs=1")) == DONE
        assert getattr(jax.config, next(iter(values))) == next(iter(values.values()))
        assert main(tiny_arguments(folder, workdir)) == DONE
        assert evaluate(workdir) == DONE
    assert main(tiny_arguments(folder, there, "--epochs=1")) == DONE
    for run in (workdir, there):
        assert not (run / "checkpoints-broken").exists()
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(final_state(there)[1])}
    assert dtypes == {np.dtype(name) for name in ("float32", "int32", "uint32")}


def test_a_run_of_another_optimiser_state_can_still_be_judged(workdir, expected_scores):
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    values["optimizer"]["name"] = "sgd"
    path.write_text(json.dumps(values))
    assert evaluate(workdir) == DONE
    assert scores(workdir) == pytest.approx(expected_scores)


@pytest.mark.parametrize(
    "option",
    ["--optimizer.learning-rate=inf", "--epochs=inf", "--optimizer.clip-norm=inf"],
)
def test_no_option_is_infinite(folder, tmp_path, capsys, option):
    with pytest.raises(SystemExit):
        main([*tiny_arguments(folder, tmp_path / "run"), option])
    text = capsys.readouterr()
    assert "inf" in text.out + text.err
    assert "Traceback" not in text.out + text.err
    assert not (tmp_path / "run").exists()
