"""A run that is stopped, finished, and given more epochs: nothing of it is lost."""

import json
import shlex
import signal

import jax
import numpy as np
import pytest

from tests.tiny_runs import final_state, tiny_arguments
from train.__main__ import main
from train.config.differences import extended, is_extension
from train.config.optimizer import OptimizerConfig
from train.config.run import FitConfig, to_dict
from train.errors import DONE, INTERRUPTED, WRONG_USE
from train.learning.optimizer import learning_rate_schedule
from train.run.progress import Display

# 18 training images are 2.25 steps an epoch; the newest checkpoint alone is kept, and
# the best.
SETTINGS = (
    "--data.validation=0.25",
    "--checkpoint.keep-latest=1",
    "--optimizer.warmup-fraction=0.3",
    "--output.pictures=2",
)


def records(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    clocks = ("seconds", "images_per_second")
    return [
        {name: value for name, value in json.loads(line).items() if name not in clocks}
        for line in lines
    ]


def interrupt_at(step, monkeypatch):
    """Ctrl-C once a step is done."""
    advance = Display.advance

    def interrupted(self, done):
        advance(self, done)
        if done == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Display, "advance", interrupted)


def words_to_go_on(output):
    (line,) = [line for line in output.splitlines() if line.startswith("Stopped:")]
    said, _, command = line.partition(" To go on: ")
    program, *words = shlex.split(command.removeprefix("python -m "))
    assert program == "train"
    return said, words


@pytest.mark.slow
def test_stopped_finished_and_extended_it_ends_as_one_that_was_so_planned(
    folder, tmp_path, monkeypatch, capsys
):
    whole, workdir = tmp_path / "whole", tmp_path / "a run"
    planned = ("--epochs=4", "--earlier-epochs", "2")
    assert main(tiny_arguments(folder, whole, *SETTINGS, *planned)) == DONE
    capsys.readouterr()
    with monkeypatch.context() as patch:
        interrupt_at(1, patch)
        code = main(tiny_arguments(folder, workdir, *SETTINGS, "--epochs=2"))
    assert code == INTERRUPTED
    said, words = words_to_go_on(capsys.readouterr().out)
    assert said == f"Stopped: step 1 of 4 is saved in {workdir}."
    # What is said is typed, and no word more.
    assert main(words) == DONE
    output = capsys.readouterr().out
    assert "Going on from the checkpoint of step 1" in output
    assert "(a guess has 0.333)" in output
    first_end = json.loads((workdir / "result.json").read_text())
    assert first_end["step"] == 4
    for _ in range(2):
        assert main([*words, "--epochs", "4"]) == DONE
    output = capsys.readouterr().out
    assert "was to have 2 epochs, and now goes on to 4" in output
    assert "It has had its 4 epochs before" in output
    step, state, record = final_state(workdir)
    expected_step, expected, expected_record = final_state(whole)
    assert step == expected_step == 9
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    assert record["checksums"] == expected_record["checksums"]
    assert records(workdir) == records(whole)
    for place in (workdir, whole):
        # The end of the first plan stays, though one checkpoint is kept.
        assert (place / "checkpoints" / "4").is_dir()
        names = sorted(path.name for path in (place / "pictures").glob("*.png"))
        assert names[0] == "step_00000000.png"
    scores = "checkpoints-scores.json"
    assert (workdir / scores).read_text() == (whole / scores).read_text()
    config = json.loads((workdir / "config.json").read_text())
    assert (config["epochs"], config["earlier_epochs"]) == (4.0, [2.0])
    assert main([*words, "--epochs", "3"]) == WRONG_USE
    assert "epochs: 4.0, now 3.0" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("old", "typed", "goes_on", "earlier"),
    [
        ((5.0, ()), (10.0, ()), True, (5.0,)),
        ((5.0, ()), (5.0, ()), True, ()),
        ((5.0, ()), (4.0, ()), False, ()),
        ((10.0, (5.0,)), (10.0, ()), True, (5.0,)),
        ((10.0, (5.0,)), (12.0, ()), True, (5.0, 10.0)),
        ((10.0, (5.0,)), (12.0, (5.0, 10.0)), True, (5.0, 10.0)),
        ((10.0, (5.0,)), (12.0, (5.0,)), True, (5.0, 10.0)),
        ((10.0, (5.0,)), (7.0, (5.0,)), False, (5.0,)),
        ((10.0, (5.0,)), (12.0, (6.0, 10.0)), False, (6.0, 10.0)),
        ((10.0, (5.0,)), (10.0, (6.0,)), False, (6.0,)),
        ((10.0, ()), (10.0, (5.0,)), False, (5.0,)),
    ],
)
def test_more_epochs_go_on_and_other_plans_do_not(old, typed, goes_on, earlier):
    before, now = (FitConfig(epochs=e, earlier_epochs=ends) for e, ends in (old, typed))
    assert is_extension(to_dict(before), to_dict(now)) == goes_on
    found = extended(before, now)
    assert found.earlier_epochs == earlier
    if goes_on:
        assert is_extension(to_dict(before), to_dict(found))


@pytest.mark.parametrize("earlier", [(5.0, 5.0), (6.0, 5.0), (0.0,), (20.0,), (-1.0,)])
def test_plans_that_do_not_follow_each_other_are_refused(earlier):
    with pytest.raises(ValueError, match="earlier_epochs must rise"):
        FitConfig(epochs=20.0, earlier_epochs=earlier)


@pytest.mark.parametrize("schedule", ["cosine", "step", "constant"])
def test_the_learning_rate_begins_its_course_anew(schedule):
    config = OptimizerConfig(schedule=schedule, learning_rate=1.0, warmup_fraction=0.2)
    rate = learning_rate_schedule(config, 10, 30)
    first, second = (learning_rate_schedule(config, steps) for steps in (10, 20))
    for step in range(10):
        assert float(rate(step)) == float(first(step))
    for step in range(10, 30):
        again = 1.0 if schedule == "constant" else float(second(step - 10))
        assert float(rate(step)) == pytest.approx(again, rel=1e-6)


def test_what_was_annealed_stays_as_it_ended():
    from tests.tiny_runs import tiny_config, tiny_experiment
    from train.config.attention import EquivarianceConfig
    from train.learning.devices import JitParallel

    moving = EquivarianceConfig(weight=0.5, warmup_fraction=1.0)
    config = tiny_config(epochs=8.0, earlier_epochs=(4.0,), equivariance=moving)
    experiment = tiny_experiment(config, JitParallel(jax.devices()[:1]))
    assert experiment.plan_ends == (12, 24)
    (term,) = experiment.terms
    for step in (12, 13, 23):
        (sharpness,) = jax.tree.leaves(experiment.schedule(jax.numpy.asarray(step)))
        assert float(sharpness) == pytest.approx(config.sharpness.end)
        assert float(term.weight(jax.numpy.asarray(step))) == pytest.approx(0.5)
    assert float(term.weight(jax.numpy.asarray(6))) == pytest.approx(0.25)
