"""One start at a time in a work directory."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from train.errors import CannotWriteError, UserError
from train.run import layout
from train.run.lock import in_use

HOLDER = """
import os, sys, time
from pathlib import Path
from train.run.lock import in_use
with in_use(Path(sys.argv[1])):
    if sys.argv[2:] and os.fork() == 0:
        time.sleep(60)  # a worker that outlives its parent
        os._exit(0)
    print("held", flush=True)
    sys.stdin.readline()
"""


def start(workdir, *more):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workdir), *more],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def end(process):
    process.stdin.close()
    process.stdout.close()
    return process.wait(30)


def test_a_second_start_is_refused_by_name_of_the_first(tmp_path):
    process = start(tmp_path / "run")
    about = json.loads((tmp_path / "run" / layout.LOCK).read_text())
    other_spelling = tmp_path / "run" / ".." / "run"
    for _ in range(2):
        with (
            pytest.raises(UserError, match=f"in use by process {process.pid} on host"),
            in_use(other_spelling),
        ):
            pass
    assert about["process"] == process.pid
    assert end(process) == 0
    assert not list((tmp_path / "run").iterdir())
    with in_use(tmp_path / "run"):
        pass


@pytest.mark.parametrize("more", [(), ("fork",)])
def test_a_killed_start_locks_nobody_out(tmp_path, more):
    process = start(tmp_path, *more)
    process.send_signal(signal.SIGKILL)
    end(process)
    assert (tmp_path / layout.LOCK).exists()
    with in_use(tmp_path):
        assert (
            json.loads((tmp_path / layout.LOCK).read_text())["process"] != process.pid
        )
    assert not (tmp_path / layout.LOCK).exists()


def test_a_start_that_fails_lets_go(tmp_path):
    with pytest.raises(ZeroDivisionError), in_use(tmp_path):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())


def test_a_lock_that_cannot_be_written_is_one_sentence(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    with (
        pytest.raises(CannotWriteError, match="No space left on device"),
        in_use(tmp_path),
    ):
        pass


def test_a_file_system_without_locks_serves_too(tmp_path, monkeypatch):
    def no_locks(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", no_locks)
    with in_use(tmp_path):
        assert (tmp_path / layout.LOCK).exists()
