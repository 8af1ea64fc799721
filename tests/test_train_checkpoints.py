"""Checkpoints: kept, damaged, unwritable; no network needed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checks import assert_close
from train.checkpoints import BROKEN, Checkpoints
from train.errors import CannotWriteError, UserError
from train.sections import CheckpointConfig

CONFIG = CheckpointConfig(keep_latest=2, keep_best=1)


def state_of(step):
    key = jax.random.key(step)
    return {
        "step": jnp.asarray(step, jnp.int32),
        "params": {"kernel": jax.random.normal(key, (64, 64))},
    }


def save(checkpoints, step, accuracy=None):
    checkpoints.save(step, state_of(step), {"note": step}, accuracy)
    checkpoints.wait()


@pytest.fixture
def checkpoints(tmp_path):
    opened = Checkpoints(tmp_path, CONFIG)
    yield opened
    opened.close()


def test_the_latest_and_the_best_are_kept(checkpoints):
    for step, accuracy in enumerate([0.1, 0.9, None, 0.5, None], start=1):
        save(checkpoints, step, accuracy)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2


def test_the_best_is_still_kept_after_a_new_start(tmp_path):
    for step, accuracy in enumerate([0.9, 0.1, 0.2, None], start=1):
        checkpoints = Checkpoints(tmp_path, CONFIG)
        save(checkpoints, step, accuracy)
        checkpoints.close()
    reader = Checkpoints(tmp_path, CONFIG, read_only=True)
    assert reader.steps() == [1, 3, 4]
    assert reader.best_step() == 1


def test_what_is_saved_comes_back_with_its_record(checkpoints):
    save(checkpoints, 3)
    step, state, record = checkpoints.restore_latest(state_of(0), print)
    assert (step, record["note"]) == (3, 3)
    jax.tree.map(np.testing.assert_array_equal, state, state_of(3))


def test_a_saved_state_may_be_donated_at_once(checkpoints):
    forget = jax.jit(lambda tree: jax.tree.map(lambda a: a * 0, tree), donate_argnums=0)
    state = state_of(7)
    checkpoints.save(7, state, {}, None)
    forget(state)
    checkpoints.wait()
    restored, _ = checkpoints.restore(7, state_of(0))
    jax.tree.map(np.testing.assert_array_equal, restored, state_of(7))


def largest_file(directory):
    files = [path for path in directory.rglob("*") if path.is_file()]
    return max(files, key=lambda path: path.stat().st_size)


def cut_short(directory):
    path = largest_file(directory)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip_a_bit(directory):
    path = largest_file(directory)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def lose_the_record(directory):
    for path in (directory / "record").iterdir():
        path.unlink()


def empty_all_files(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            path.write_bytes(b"")


@pytest.mark.parametrize(
    "damage", [cut_short, flip_a_bit, lose_the_record, empty_all_files]
)
def test_a_damaged_latest_is_reported_and_the_one_before_is_used(tmp_path, damage):
    first = Checkpoints(tmp_path, CONFIG)
    save(first, 1)
    save(first, 2)
    first.close()
    damage(tmp_path / "checkpoints" / "2")
    messages: list[str] = []
    again = Checkpoints(tmp_path, CONFIG)
    restored = again.restore_latest(state_of(0), messages.append)
    assert restored is not None
    step, state, _ = restored
    assert step == 1
    assert_close(state["params"]["kernel"], state_of(1)["params"]["kernel"])
    assert len(messages) == 1
    assert "checkpoint of step 2 is damaged" in messages[0]
    assert (tmp_path / BROKEN / "2").is_dir()
    save(again, 2)
    assert again.steps() == [1, 2]
    again.close()


def test_a_reader_leaves_a_damaged_checkpoint_where_it_is(tmp_path):
    first = Checkpoints(tmp_path, CONFIG)
    save(first, 1)
    first.close()
    cut_short(tmp_path / "checkpoints" / "1")
    reader = Checkpoints(tmp_path, CONFIG, read_only=True)
    with pytest.raises(UserError, match="None of the 1 checkpoints"):
        reader.restore_latest(state_of(0), lambda _: None)
    assert (tmp_path / "checkpoints" / "1").is_dir()


def test_a_failing_disk_ends_with_one_sentence_and_earlier_ones_whole(
    checkpoints, monkeypatch
):
    save(checkpoints, 1)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints._manager, "save", full)
    with pytest.raises(CannotWriteError, match=r"step 2 .*No space left.*Make room"):
        save(checkpoints, 2)
    monkeypatch.undo()
    assert checkpoints.restore_latest(state_of(0), print)[0] == 1
