"""Held-out training images choose the best checkpoint; test images choose nothing."""

import json

import pytest

from tests.tiny_runs import finish, tiny_arguments, write_images
from train.__main__ import main
from train.errors import DONE, WRONG_USE
from train.learning.evaluator import Evaluator
from train.run import layout
from train.run.metric_log import read_records


@pytest.fixture(scope="module")
def plain(folder, tmp_path_factory):
    """A run that holds nothing out."""
    return finish(folder, tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def held_out(folder, tmp_path_factory):
    """A run that holds out a quarter: 18 images to train on, 6 to choose by."""
    more = ("--data.validation=0.25", "--output.tensorboard")
    return finish(folder, tmp_path_factory.mktemp("held_out"), *more)


def scores_of(workdir, kind):
    records = read_records(workdir / "metrics.jsonl")
    return {r["step"]: r["accuracy"] for r in records if r["kind"] == kind}


def evaluation_of(workdir, *options):
    words = ["evaluate", "--workdir", str(workdir), "--equivariance-images", "0"]
    assert main([*words, *options]) == DONE
    return json.loads((workdir / "evaluation.json").read_text())


def test_held_out_images_are_scored_beside_the_test_images(held_out):
    records = read_records(held_out / "metrics.jsonl")
    by_kind = {
        kind: [r for r in records if r["kind"] == kind]
        for kind in ("eval", "validation")
    }
    steps = [record["step"] for record in by_kind["eval"]]
    assert [record["step"] for record in by_kind["validation"]] == steps
    assert {record["images"] for record in by_kind["validation"]} == {6}
    assert {record["images"] for record in by_kind["eval"]} == {15}
    result = json.loads((held_out / "result.json").read_text())
    assert result["images"] == 15
    assert result["validation"]["images"] == 6
    board = b"".join(p.read_bytes() for p in (held_out / "tensorboard").iterdir())
    assert b"validation/accuracy" in board
    assert b"eval/accuracy" in board


def test_the_best_checkpoint_is_that_of_best_validation_accuracy(
    folder, tmp_path, monkeypatch
):
    """The second evaluation is best on held-out images, the third on test images."""
    real = Evaluator.scores
    validation = iter([0.2, 0.9, 0.1, 0.1, 0.1])
    test = iter([0.2, 0.1, 0.9, 0.1, 0.1])

    def scores(self, variables, step, batches):
        found = real(self, variables, step, batches)
        chosen = validation if found["images"] == 6 else test
        return found | {"accuracy": next(chosen)}

    monkeypatch.setattr(Evaluator, "scores", scores)
    arguments = tiny_arguments(folder, tmp_path, "--data.validation=0.25")
    arguments += ["--checkpoint.every-steps=100", "--checkpoint.keep-latest=1"]
    assert main(arguments) == DONE
    monkeypatch.undo()
    by_step = scores_of(tmp_path, "validation")
    best = max(by_step, key=by_step.__getitem__)
    assert scores_of(tmp_path, "eval")[best] == 0.1
    assert evaluation_of(tmp_path, "--checkpoint", "best")["step"] == best


def test_no_checkpoint_is_best_while_a_budget_has_not_closed_the_masks(
    folder, tmp_path, monkeypatch
):
    """Of 9 steps, evaluated at each second, the weights rise until after the sixth."""
    real = Evaluator.scores
    validation = iter([0.9, 0.8, 0.7, 0.4, 0.3])

    def scores(self, variables, step, batches):
        found = real(self, variables, step, batches)
        return found | ({"accuracy": next(validation)} if found["images"] == 6 else {})

    monkeypatch.setattr(Evaluator, "scores", scores)
    arguments = tiny_arguments(folder, tmp_path, "--data.validation=0.25")
    arguments += ["--budget.area=0.5", "--budget.start-fraction=0.25"]
    arguments += ["--budget.ramp-fraction=0.5", "--checkpoint.every-steps=100"]
    assert main(arguments) == DONE
    by_step = scores_of(tmp_path, "validation")
    assert by_step == {2: 0.9, 4: 0.8, 6: 0.7, 8: 0.4, 9: 0.3}
    scored = json.loads((tmp_path / layout.CHECKPOINT_SCORES).read_text())
    assert scored == {"8": 0.4, "9": 0.3}


def test_without_held_out_images_no_checkpoint_is_best(plain, capsys):
    assert scores_of(plain, "validation") == {}
    assert not (plain / layout.CHECKPOINT_SCORES).exists()
    # An older version's scores, on test images, choose nothing either.
    (plain / layout.CHECKPOINT_SCORES).write_text('{"9": 0.9}')
    for command in (["evaluate"], ["predict", "a.png"]):
        words = [*command, "--workdir", str(plain), "--checkpoint", "best"]
        assert main(words) == WRONG_USE
        message = capsys.readouterr().err
        assert "No checkpoint is best, for this run held no images out" in message
        assert "--checkpoint latest, or train with --data.validation 0.1" in message
        assert message.count("\n") == 1
    (plain / layout.CHECKPOINT_SCORES).unlink()


def test_held_out_images_may_be_evaluated_alone(held_out):
    result = json.loads((held_out / "result.json").read_text())
    found = evaluation_of(held_out, "--split", "validation")
    assert set(found) - {"equivariance", "yardsticks"} == {"step", "validation"}
    assert found["validation"]["images"] == 6
    expected = result["validation"]["accuracy"]
    assert found["validation"]["accuracy"] == pytest.approx(expected)
    assert evaluation_of(held_out, "--split", "train")["train"]["images"] == 18


def test_a_run_that_held_nothing_out_has_no_validation_split(plain, capsys):
    words = ["evaluate", "--workdir", str(plain), "--split", "validation"]
    assert main(words) == WRONG_USE
    message = capsys.readouterr().err
    assert "no validation split" in message
    assert message.count("\n") == 1


def test_other_shares_are_other_runs(held_out, folder, capsys):
    assert main(tiny_arguments(folder, held_out, "--data.validation=0.5")) == WRONG_USE
    assert "data.validation: 0.25, now 0.5" in capsys.readouterr().err


def test_a_finished_run_keeps_its_validation_scores(held_out, folder):
    before = (held_out / "result.json").read_text()
    arguments = tiny_arguments(folder, held_out, "--data.validation=0.25")
    assert main(arguments) == DONE
    assert (held_out / "result.json").read_text() == before


# Names of what `evaluate` writes


def test_the_training_images_are_written_under_a_key_of_their_own(plain):
    both = evaluation_of(plain, "--train-images")
    assert (both["train"]["images"], both["test"]["images"]) == (24, 15)
    same = evaluation_of(plain, "--split", "train", "--train-images")
    assert same["train"]["images"] == 24
    assert "train_images" not in same


def test_a_part_of_the_training_images_is_not_all_of_them(folder, tmp_path):
    arguments = tiny_arguments(folder, tmp_path, "--data.train-examples=16")
    assert main([*arguments, "--epochs=1"]) == DONE
    found = evaluation_of(tmp_path, "--split", "train", "--train-images")
    assert found["train"]["images"] == 24
    assert found["train_images"]["images"] == 16


def test_splits_called_as_other_keys_lose_neither(tmp_path):
    folder = write_images(tmp_path / "images")
    for name in ("step", "equivariance"):
        (folder / name).symlink_to(write_images(tmp_path / name) / "test")
    arguments = tiny_arguments(folder, tmp_path / "run", "--epochs=1")
    assert main(arguments) == DONE
    for name in ("step", "equivariance"):
        words = ["evaluate", "--workdir", str(tmp_path / "run"), "--split", name]
        assert main([*words, "--equivariance-images", "8"]) == DONE
        found = json.loads((tmp_path / "run" / "evaluation.json").read_text())
        assert found[f"{name}_split"]["images"] == 15
        assert found["step"] == 3
        assert set(found["equivariance"]) == {"angle", "scale", "shift"}
