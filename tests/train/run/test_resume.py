"""A run that is killed and started again ends as one that never stopped."""

import json
import random
import signal
import subprocess
import time

import jax
import numpy as np
import pytest

from tests.tiny_runs import (
    PATIENCE,
    command,
    final_state,
    finish,
    of_task,
    run,
    tiny_arguments,
    write_images,
    write_masks,
    write_objects,
)
from train.errors import DONE, INTERRUPTED
from train.run.metric_log import Records

SETTINGS = (
    "--epochs=15",
    "--output.log-every=1",
    "--output.evaluate-every=5",
    "--optimizer.accumulate=2",
    "--optimizer.ema-decay=0.9",
    "--optimizer.clip-norm=1",
    "--data.flip",
    "--data.trivial-augment",
    "--data.erasing=0.5",
    "--data.cutmix=1",
)


def cached(tmp_path_factory) -> dict[str, str]:
    """Each start compiles the same programs: keep them between starts."""
    directory = tmp_path_factory.getbasetemp() / "compiled"
    return {
        "JAX_COMPILATION_CACHE_DIR": str(directory),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    images = write_images(tmp_path_factory.mktemp("set") / "tiny images")
    return write_objects(write_masks(images))


@pytest.fixture(scope="module")
def variables(tmp_path_factory):
    return cached(tmp_path_factory)


@pytest.fixture(scope="module")
def uninterrupted(folder, variables, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result = run(*tiny_arguments(folder, workdir, *SETTINGS), **variables)
    assert result.returncode == DONE, result.stderr
    return workdir


def records(workdir):
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    found = [json.loads(line) for line in lines]
    for record in found:
        for clock in ("seconds", "images_per_second"):
            record.pop(clock, None)
    return found


def last_step(workdir) -> int:
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return 0
    steps = [json.loads(line)["step"] for line in path.read_text().split("\n")[:-1]]
    return max(steps, default=0)


def signal_at(step, number, words, keywords, workdir) -> tuple[int, str]:
    """Starts, sends a signal once `step` is recorded; exit code and messages."""
    process = subprocess.Popen(words, **keywords)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None and last_step(workdir) < step:
        assert time.monotonic() < deadline, "no progress"
        time.sleep(0.005)
    process.send_signal(number)
    output, messages = process.communicate(timeout=PATIENCE)
    return process.returncode, output + messages


def assert_same_end(workdir, expected):
    step, state, record = final_state(workdir)
    expected_step, expected_state, expected_record = final_state(expected)
    assert step == expected_step == 45
    assert record["checksums"] == expected_record["checksums"]
    assert record["data_step"] == expected_record["data_step"]
    jax.tree.map(np.testing.assert_array_equal, state, expected_state)
    assert records(workdir) == records(expected)


@pytest.mark.slow
def test_killed_at_five_random_steps_it_ends_bit_for_bit_the_same(
    folder, variables, uninterrupted, tmp_path
):
    words, keywords = command(*tiny_arguments(folder, tmp_path, *SETTINGS), **variables)
    generator = random.Random(0)
    killed = 0
    for part in range(5):
        step = generator.randrange(7 * part + 1, 7 * part + 8)
        code, _ = signal_at(step, signal.SIGKILL, words, keywords, tmp_path)
        killed += code == -signal.SIGKILL
    assert killed == 5
    result = subprocess.run(words, timeout=PATIENCE, check=False, **keywords)
    assert result.returncode == DONE, result.stderr
    assert "Going on from the checkpoint" in result.stdout
    assert_same_end(tmp_path, uninterrupted)
    steps = [r["step"] for r in records(tmp_path) if r["kind"] == "train"]
    assert steps == list(range(1, 46))


class PowerCut(BaseException):
    """Nobody catches it, and nothing is saved."""


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_a_run_of_any_task_that_dies_ends_bit_for_bit_the_same(
    folder, task, tmp_path, monkeypatch
):
    # Moved images with their truth, crops, parts of a batch: all that has a state.
    moved = ("--equivariance.weight=0.3", "--equivariance.classify-moved")
    crops = ("--data.crop-area", "0.5", "1")
    settings = [*SETTINGS, *moved, *crops, *of_task(task, folder), "--output.quiet"]
    one = jax.devices()[:1]
    monkeypatch.setattr(jax, "devices", lambda *_: one)
    if task == "detection":
        settings.remove("--data.cutmix=1")
    whole, stopped = finish(folder, tmp_path / "whole", *settings), tmp_path / "stopped"
    write = Records.write

    def write_until(self, kind, step, *values, **about):
        if step == 20:
            raise PowerCut
        write(self, kind, step, *values, **about)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "write", write_until)
        with pytest.raises(PowerCut):
            finish(folder, stopped, *settings)
    assert last_step(stopped) == 19
    assert_same_end(finish(folder, stopped, *settings), whole)


@pytest.mark.slow
def test_sigterm_in_an_epoch_with_workers_saves_and_the_same_command_goes_on(
    folder, variables, uninterrupted, tmp_path
):
    words, keywords = command(
        *tiny_arguments(folder, tmp_path, *SETTINGS),
        "--data.workers=1",
        "--data.memory-limit-mb=0",
        **variables,
    )
    code, messages = signal_at(10, signal.SIGTERM, words, keywords, tmp_path)
    assert code == INTERRUPTED, messages
    assert "SIGTERM: saving and stopping" in messages
    assert "Traceback" not in messages
    stopped = final_state(tmp_path)[0]
    assert stopped == last_step(tmp_path) < 45
    result = subprocess.run(words, timeout=PATIENCE, check=False, **keywords)
    assert result.returncode == DONE, result.stderr
    assert_same_end(tmp_path, uninterrupted)


def test_a_second_signal_ends_at_once_without_saving(tmp_path):
    program = (
        "import os, signal, sys\n"
        "from train.run.interrupts import Interrupts\n"
        "with Interrupts() as interrupts:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    assert interrupts.requested(agree=False)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    print('still here')\n"
    )
    words, keywords = command()
    result = subprocess.run(
        [words[0], "-c", program], timeout=120, check=False, **keywords
    )
    assert result.returncode == 128 + signal.SIGTERM
    assert "still here" not in result.stdout
