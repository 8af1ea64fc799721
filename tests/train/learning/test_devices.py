"""One device, a sharded jit and pmap do the same; several processes too."""

import socket
import subprocess
from functools import partial

import jax
import numpy as np
import pytest

from tests import compilation
from tests.checks import assert_close, assert_tree_finite
from tests.tiny_runs import (
    PATIENCE,
    command,
    final_state,
    finish,
    of_task,
    random_batch,
    tiny_arguments,
    tiny_config,
    tiny_experiment,
    write_images,
    write_masks,
    write_objects,
)
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.errors import DONE, UserError
from train.learning.devices import JitParallel, PmapParallel, check_batch
from train.learning.evaluator import Evaluator
from train.learning.steps import train_step
from train.run import layout
from train.run.metric_log import read_records

BATCH = 16
STEPS = 20


def train(parallel, config):
    """The fetched state after 20 steps, and the scores of a padded batch."""
    experiment = tiny_experiment(config, parallel)
    state = experiment.initial_state()
    update = parallel.compile_update(partial(train_step, experiment))
    for step in range(STEPS):
        state = update(state, parallel.place_batch(random_batch(step, BATCH)))
    test = random_batch(STEPS, BATCH)
    test["weight"][-3:] = 0
    evaluator = Evaluator(experiment, parallel)
    scores = evaluator.scores(state.evaluated_variables(), state.step, [test])
    return jax.device_get(parallel.fetchable(state)), scores


@pytest.fixture(scope="module")
def on_one_device():
    return train(JitParallel(jax.devices()[:1]), config())


def config(parts=1):
    # SGD: Adam's first steps turn a rounding error of a tiny gradient into a step.
    rule = OptimizerConfig(
        name="sgd", learning_rate=0.05, accumulate=parts, ema_decay=0.9, clip_norm=1.0
    )
    return tiny_config(batch_size=BATCH, optimizer=rule)


def assert_agree(result, expected):
    (state, scores), (expected_state, expected_scores) = result, expected
    assert int(state.step) == STEPS
    for name in ("params", "batch_stats", "average"):
        ours, theirs = getattr(state, name), getattr(expected_state, name)
        assert_tree_finite(ours)
        jax.tree.map(partial(assert_close, atol=1e-5, rtol=1e-5), ours, theirs)
    assert scores["images"] == expected_scores["images"] == BATCH - 3
    for name, value in scores.items():
        assert value == pytest.approx(expected_scores[name], abs=1e-4), name


@pytest.mark.parametrize("parallel", [JitParallel, PmapParallel])
def test_eight_devices_agree_with_one_after_twenty_steps(parallel, on_one_device):
    result = train(parallel(), config())
    assert_agree(result, on_one_device)


def test_jit_and_pmap_cut_a_batch_into_the_same_parts():
    assert_agree(train(PmapParallel(), config(2)), train(JitParallel(), config(2)))


def test_batch_statistics_of_an_attention_layer_are_those_of_all_devices():
    """Coordinate attention has a BatchNorm of its own."""
    model = ModelConfig(widths=(4, 4, 4), attention_stages=(1,), attention="coordinate")
    images = jax.random.normal(jax.random.key(0), (4, 12, 12, 3))

    def statistics(parallel):
        experiment = tiny_experiment(tiny_config(model=model), parallel)
        variables = experiment.model.init(jax.random.key(1), images)

        def measure(part):
            return experiment.model.apply(
                variables, part, train=True, mutable=["batch_stats"]
            )[1]["batch_stats"]

        if parallel.axis_name is None:
            return jax.jit(measure)(images)
        parts = images.reshape(2, 2, *images.shape[1:])
        measured = jax.jit(jax.vmap(measure, axis_name=parallel.axis_name))(parts)
        return jax.tree.map(lambda leaf: leaf[0], measured)

    expected = statistics(JitParallel(jax.devices()[:1]))
    found = statistics(PmapParallel())
    assert "attention1" in expected
    jax.tree.map(partial(assert_close, atol=1e-5, rtol=1e-5), found, expected)


def test_a_batch_that_cannot_be_dealt_out_is_refused_with_one_that_can():
    with pytest.raises(UserError, match=r"multiple of 8 .* got 30\. Try 32\."):
        check_batch(30, 4, 2)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "score"),
    [
        ("classification", "accuracy"),
        ("segmentation", "mean_iou"),
        ("detection", "ap"),
    ],
)
def test_two_processes_agree_with_one_and_their_checkpoint_is_read_by_one(
    tmp_path, task, score
):
    folder = write_objects(write_masks(write_images(tmp_path / "set")))
    # The images move so far that in each process other pairs are out of sight. Slowly,
    # for which ones they are is no smooth function of the parameters.
    settings = (
        *of_task(task, folder),
        "--optimizer.name=sgd",
        "--optimizer.learning-rate=0.002",
        "--equivariance.weight=0.1",
        "--equivariance.max-shift=1.5",
    )
    together, alone = tmp_path / "together", tmp_path / "alone"
    address, processes = f"127.0.0.1:{free_port()}", []
    for index in (0, 1):
        words, keywords = command(
            *tiny_arguments(folder, together, *settings),
            f"--hosts.coordinator={address}",
            "--hosts.count=2",
            f"--hosts.index={index}",
            XLA_FLAGS=compilation.flags(devices=2),
        )
        processes.append(subprocess.Popen(words, **keywords))
    messages = [process.communicate(timeout=PATIENCE) for process in processes]
    assert [process.returncode for process in processes] == [DONE, DONE], messages
    finish(folder, alone, *settings)
    step, state, record = final_state(together)
    expected_step, expected, expected_record = final_state(alone)
    assert step == expected_step == 12
    first, expected_first = (
        read_records(workdir / layout.METRICS)[0] for workdir in (together, alone)
    )
    for name in ("loss", "equivariance_loss", "gradient_norm"):
        assert first[name] == pytest.approx(expected_first[name], rel=1e-5), name
    jax.tree.map(
        partial(assert_close, atol=1e-5, rtol=1e-5),
        (state.params, state.batch_stats),
        (expected.params, expected.batch_stats),
    )
    for name, value in record["scores"].items():
        assert value == pytest.approx(expected_record["scores"][name], abs=1e-3), name
    assert f"test: {score}" in messages[0][0]
    assert f"test: {score}" not in messages[1][0], "only process 0 speaks"
    assert np.isfinite(record["seconds"])
