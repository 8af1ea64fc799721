"""A short run from its first step to its report, in one process."""

import contextlib
import dataclasses
import json
import resource
import shutil

import jax
import numpy as np
import pytest
from PIL import Image, ImageSequence

from tests.tiny_runs import CLASSES, final_state, finish, tiny_arguments
from train.__main__ import main
from train.errors import CANNOT_WRITE, DONE, NOT_FINITE, WRONG_USE
from train.run.metric_log import read_records
from train.run.workdir import load_config

PICTURES = ("--output.pictures=4", "--output.tensorboard")


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    return finish(folder, tmp_path_factory.mktemp("run"), *PICTURES)


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy of the finished run, to be spoilt."""
    return shutil.copytree(finished, tmp_path / "run")


def test_a_finished_run_leaves_all_its_records(finished):
    records = read_records(finished / "metrics.jsonl")
    train = [record for record in records if record["kind"] == "train"]
    assert [record["step"] for record in train] == [2, 4, 6, 8, 10, 12]
    for name in ("loss", "accuracy", "gradient_norm", "learning_rate", "sharpness"):
        assert all(np.isfinite(record[name]) for record in train), name
    assert "attention1/mask_area" in train[0]
    result = json.loads((finished / "result.json").read_text())
    assert result["images"] == 15
    assert 0 <= result["attention1/iou"] <= 1
    pictures = sorted(path.name for path in (finished / "pictures").glob("*.png"))
    steps = [0, 3, 6, 9, 12]
    assert pictures == [f"step_{step:08d}.png" for step in steps]
    with Image.open(finished / "looking.gif") as film:
        frames = [
            np.asarray(frame.convert("L")) for frame in ImageSequence.Iterator(film)
        ]
    assert len(frames) == 5
    # Below each frame it says the step: black on white, and never the same.
    lines = [frame[-20:] for frame in frames]
    assert all(line.min() < 60 and np.median(line) > 200 for line in lines)
    assert len({line.tobytes() for line in lines}) == 5
    assert list((finished / "tensorboard").iterdir())


def test_a_finished_run_started_again_changes_nothing(folder, workdir, capsys):
    before = (workdir / "metrics.jsonl").read_text()
    assert main(tiny_arguments(folder, workdir, *PICTURES)) == DONE
    assert (workdir / "metrics.jsonl").read_text() == before
    assert "Going on from the checkpoint of step 12" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_replaced_by_training_from_the_one_before(
    folder, workdir, finished, capsys
):
    for path in (workdir / "checkpoints" / "12").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert main(tiny_arguments(folder, workdir, *PICTURES)) == DONE
    output = capsys.readouterr().out
    assert "checkpoint of step 12 is damaged" in output
    assert "Going on from the checkpoint of step 9" in output
    _, state, _ = final_state(workdir)
    _, expected, _ = final_state(finished)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_work_directory_of_another_config_is_refused_by_field(
    folder, workdir, capsys
):
    code = main(tiny_arguments(folder, workdir, "--seed=1", "--model.remat"))
    text = capsys.readouterr().err
    assert code == WRONG_USE
    assert "model.remat: False, now True" in text
    assert "seed: 0, now 1" in text
    assert "learning_rate" not in text


@contextlib.contextmanager
def files_no_larger_than(size):
    """What a quota does: writing fails, whoever writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_with_one_sentence_and_loses_nothing(
    folder, workdir, finished, capfd
):
    shutil.rmtree(workdir / "checkpoints" / "12")
    # More than the metrics need, less than a checkpoint does.
    with files_no_larger_than(20_000):
        code = main(tiny_arguments(folder, workdir, "--output.pictures=0"))
    text = capfd.readouterr().err
    assert code == CANNOT_WRITE
    assert "The checkpoint of step 12 could not be written (File too large)" in text
    assert "earlier checkpoints are whole" in text
    assert text.count("\n") == 1
    assert main(tiny_arguments(folder, workdir, *PICTURES)) == DONE
    assert "Going on from the checkpoint of step 9" in capfd.readouterr().out
    _, state, _ = final_state(workdir)
    _, expected, _ = final_state(finished)
    jax.tree.map(np.testing.assert_array_equal, state, expected)


def test_a_run_of_an_older_version_goes_on_where_newer_fields_have_their_defaults(
    folder, workdir, capsys
):
    path = workdir / "config.json"
    values = json.loads(path.read_text())
    del values["model"]["remat"], values["optimizer"]["ema_decay"]
    path.write_text(json.dumps(values))
    assert main(tiny_arguments(folder, workdir, *PICTURES)) == DONE
    assert main(tiny_arguments(folder, workdir, "--model.remat")) == WRONG_USE
    assert "model.remat: False, now True" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run_by_step(folder, tmp_path, capsys):
    settings = ("--optimizer.name=sgd", "--optimizer.warmup-fraction=0")
    arguments = tiny_arguments(folder, tmp_path, *settings)
    arguments += ["--optimizer.learning-rate=1e30", "--checkpoint.every-steps=1"]
    assert main(arguments) == NOT_FINITE
    text = capsys.readouterr().err
    assert "is not finite at step " in text
    assert "a lower --optimizer.learning-rate" in text
    assert "Traceback" not in text
    step, state, _ = final_state(tmp_path)
    named = int(text.partition("at step ")[2].partition(".")[0])
    assert step < named
    assert np.isfinite(float(state.window["loss"]))


def test_skipped_images_are_named_and_counted(folder, tmp_path, caplog):
    spoilt = shutil.copytree(folder, tmp_path / "set")
    (spoilt / "train" / "cross" / "3.png").write_bytes(b"no picture")
    arguments = tiny_arguments(spoilt, tmp_path / "run", "--data.on-bad-image=skip")
    assert main(arguments) == DONE
    records = read_records(tmp_path / "run" / "metrics.jsonl")
    train = [record for record in records if record["kind"] == "train"]
    # Once in each of four epochs.
    assert sum(record["skipped_images"] for record in train) == 4
    # Other libraries may log too, of earlier tests even.
    assert sum("3.png is not an image" in message for message in caplog.messages) == 1


def test_evaluate_gives_the_scores_of_the_last_evaluation(finished, capsys):
    assert main(["evaluate", "--workdir", str(finished), "--batch-size", "5"]) == DONE
    found = json.loads((finished / "evaluation.json").read_text())
    expected = json.loads((finished / "result.json").read_text())
    assert found.pop("step") == expected.pop("step")
    for name, value in expected.items():
        assert found["test"][name] == pytest.approx(value, abs=1e-5), name
    assert 0 <= found["test"]["attention1/equivariance_iou"] <= 1
    assert set(found["equivariance"]) == {"angle", "scale", "shift"}
    assert (finished / "equivariance.png").exists()
    assert "calibration error" in capsys.readouterr().out


def corners_by_hand(values):
    x, y, w, h, a = (values[name] for name in _FIELDS)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return np.array([[-w, -h], [w, -h], [w, h], [-w, h]]) @ turn.T + [x, y]


_FIELDS = ("center_x", "center_y", "half_width", "half_height", "angle")


def test_predict_writes_pictures_and_corners_in_pixels_of_the_file(
    finished, folder, tmp_path
):
    wide = tmp_path / "wide photo.png"
    with Image.open(folder / "test" / "blob" / "0.png") as image:
        image.resize((60, 36)).save(wide)
    same = folder / "test" / "cross" / "0.png"
    arguments = ["predict", "--workdir", finished, wide, same]
    arguments += ["--output", tmp_path / "out"]
    assert main([str(word) for word in arguments]) == DONE
    first, second = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert first["class"] in CLASSES
    assert 1 / 3 <= first["probability"] <= 1
    with Image.open(first["picture"]) as picture:
        assert picture.width * 36 == picture.height * 60
    for record, scale, offset in ((first, 36 / 2, 12), (second, 12 / 2, 0)):
        layer = record["rectangles"]["attention1"]
        view, pixels = layer["view"], layer["pixels"]
        assert pixels["half_width"] == pytest.approx(view["half_width"] * scale)
        expected = (view["center_x"] + 1) * scale + offset
        assert pixels["center_x"] == pytest.approx(expected, abs=1e-4)
        found = np.array(layer["corners"])
        distances = np.linalg.norm(found[:, None] - corners_by_hand(pixels), axis=-1)
        assert np.all(distances.min(axis=1) < 1e-3)


def test_predict_names_an_image_that_cannot_be_read(finished, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    code = main(["predict", "--workdir", str(finished), str(broken)])
    assert code == WRONG_USE
    assert "broken.png is not an image" in capsys.readouterr().err


def test_predict_of_an_unknown_checkpoint_lists_those_there_are(finished, capsys):
    arguments = ["predict", "--workdir", str(finished), "--checkpoint", "7", "a.png"]
    assert main(arguments) == WRONG_USE
    assert "latest, best, or one of the steps" in capsys.readouterr().err


def test_report_gives_mean_and_interval_over_seeds(finished, tmp_path, capsys):
    accuracies = (0.5, 0.6, 0.7)
    runs = []
    for seed, accuracy in enumerate(accuracies):
        run = tmp_path / f"seed{seed}"
        run.mkdir()
        values = json.loads((finished / "config.json").read_text()) | {"seed": seed}
        (run / "config.json").write_text(json.dumps(values))
        lines = [
            {"kind": "eval", "step": step, "epoch": step, "accuracy": accuracy}
            for step in (1, 2)
        ]
        (run / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
        runs.append(str(run))
    assert main(["report", *runs, "--output", str(tmp_path / "report")]) == DONE
    # Student's t for 2 degrees of freedom: 4.303 * 0.1 / sqrt(3).
    row = "| seed0, seed1, seed2 | 3 | 2 | 0.6000 ± 0.2484 |"
    assert row in capsys.readouterr().out
    assert row in (tmp_path / "report" / "report.md").read_text()
    assert (tmp_path / "report" / "accuracy.png").stat().st_size > 0


def test_the_config_beside_the_run_is_the_one_it_was_started_with(finished):
    config = load_config(finished)
    assert config.model.widths == (4, 4, 4)
    assert dataclasses.replace(config, workdir=config.workdir) == config
