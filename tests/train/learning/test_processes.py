"""What the processes of one run are told, by flags or by the environment."""

import jax
import jax.numpy as jnp
import pytest

from train.config.output import HostsConfig
from train.errors import UserError
from train.learning.processes import start_hosts
from train.run.profiling import Profiler


@pytest.fixture
def started(monkeypatch):
    """What `jax.distributed.initialize` was called with; nothing is started."""
    calls = []

    def initialize(**arguments):
        calls.append(arguments)

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    for name in ("TRAIN_COORDINATOR", "TRAIN_PROCESS_COUNT", "TRAIN_PROCESS_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return calls


def joined(count, index):
    return [
        {
            "coordinator_address": "host:1",
            "num_processes": count,
            "process_id": index,
        }
    ]


def test_one_process_starts_nothing(started):
    start_hosts(HostsConfig())
    assert started == []


def test_flags_name_the_place_among_the_processes(started):
    start_hosts(HostsConfig(coordinator="host:1", count=4, index=3))
    assert started == joined(4, 3)


def test_the_environment_does_too_and_flags_go_before_it(started, monkeypatch):
    monkeypatch.setenv("TRAIN_COORDINATOR", "host:1")
    monkeypatch.setenv("TRAIN_PROCESS_COUNT", "4")
    monkeypatch.setenv("TRAIN_PROCESS_INDEX", "2")
    start_hosts(HostsConfig())
    start_hosts(HostsConfig(index=0))
    assert started == joined(4, 2) + joined(4, 0)


def test_auto_leaves_it_to_jax(started):
    start_hosts(HostsConfig(coordinator="auto"))
    assert started == [{}]


@pytest.mark.parametrize(
    ("count", "index", "said"),
    [
        ("4", "4", "count 4, index 4"),
        ("4", None, "index None"),
        ("four", "0", "TRAIN_PROCESS_COUNT must be a whole number; it is 'four'"),
    ],
)
def test_a_wrong_place_is_refused(started, monkeypatch, count, index, said):
    monkeypatch.setenv("TRAIN_COORDINATOR", "host:1")
    for name, value in (("COUNT", count), ("INDEX", index)):
        if value is not None:
            monkeypatch.setenv(f"TRAIN_PROCESS_{name}", value)
    with pytest.raises(UserError, match=said):
        start_hosts(HostsConfig())
    assert started == []


@pytest.mark.parametrize(
    ("steps", "last", "traces"), [(2, 20, 1), (9, 12, 1), (0, 20, 0)]
)
def test_profiler_records_its_steps_even_of_a_run_that_ends_early(
    tmp_path, steps, last, traces
):
    with Profiler(tmp_path / "profile", 3, steps) as profiler:
        for step in range(4, last + 4):
            profiler.at(step, jnp.ones(3) * step)
    assert len(list(tmp_path.rglob("*.xplane.pb"))) == traces
