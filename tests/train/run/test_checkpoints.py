"""Checkpoints: kept, damaged, unwritable; no network needed."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.checks import assert_close
from train.config.output import CheckpointConfig
from train.errors import CannotWriteError, UserError
from train.run import layout
from train.run.checkpoints.store import Checkpoints

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


def remove_all_files(directory):
    for path in directory.rglob("*"):
        if path.is_file():
            path.unlink()


def remove_the_metadata(directory):
    (directory / "state" / "_METADATA").unlink()


def lose_the_commit_note(directory):
    for path in directory.rglob("commit_success.txt"):
        path.unlink()
    cut_short(directory)


def spoil_the_record(directory):
    (directory / "record" / "metadata").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        flip_a_bit,
        lose_the_record,
        empty_all_files,
        remove_all_files,
        remove_the_metadata,
        lose_the_commit_note,
        spoil_the_record,
    ],
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
    assert (tmp_path / layout.BROKEN_CHECKPOINTS / "2").is_dir()
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


def snapshot(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


def wider(state):
    return state | {"params": {"kernel": jnp.zeros((64, 65))}}


def renamed(state):
    return state | {"params": {"weights": state["params"]["kernel"]}}


def of_integers(state):
    return state | {"params": {"kernel": jnp.zeros((64, 64), jnp.int32)}}


def with_more(state):
    return state | {"average": {"kernel": jnp.zeros(3)}}


def with_less(state):
    return {"params": state["params"]}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (wider, "params/kernel is float32 [64, 64], wanted is float32 [64, 65]"),
        (renamed, "params/weights is missing; params/kernel is not wanted"),
        (of_integers, "params/kernel is float32 [64, 64], wanted is int32 [64, 64]"),
        (with_more, "average/kernel is missing"),
        (with_less, "step is not wanted"),
    ],
)
def test_a_whole_checkpoint_that_does_not_fit_is_named_and_left_alone(
    tmp_path, change, named
):
    first = Checkpoints(tmp_path, CONFIG)
    save(first, 1)
    save(first, 2)
    first.close()
    before = snapshot(tmp_path)
    again = Checkpoints(tmp_path, CONFIG)
    messages: list[str] = []
    with pytest.raises(UserError) as caught:
        again.restore_latest(change(state_of(0)), messages.append)
    again.close()
    assert named in str(caught.value)
    assert "damaged" not in str(caught.value)
    assert not messages
    assert snapshot(tmp_path) == before


def test_numbers_of_another_width_come_back_in_the_wanted_one(tmp_path, x64):
    first = Checkpoints(tmp_path, CONFIG)
    wide = jax.tree.map(
        lambda a: a.astype("float64" if a.ndim else "int64"), state_of(3)
    )
    first.save(3, wide, {}, None)
    first.close()
    with jax.enable_x64(False):
        again = Checkpoints(tmp_path, CONFIG)
        _, state, _ = again.restore_latest(state_of(0), print)
        again.close()
    rounded = np.asarray(wide["params"]["kernel"]).astype(np.float32)
    np.testing.assert_array_equal(state["params"]["kernel"], rounded)
    assert state["params"]["kernel"].dtype == np.float32
    assert state["step"].dtype == np.int32


def test_parts_of_a_state_can_be_read_whatever_the_others_are(checkpoints):
    save(checkpoints, 3)
    like = {"params": state_of(0)["params"]}
    state, _ = checkpoints.restore(3, like, parts={"params"})
    np.testing.assert_array_equal(
        state["params"]["kernel"], state_of(3)["params"]["kernel"]
    )


def test_a_window_of_other_sums_starts_anew(checkpoints):
    checkpoints.save(3, state_of(3) | {"window": {"loss": jnp.ones(())}}, {}, None)
    like = state_of(0) | {"window": {"loss": jnp.zeros(()), "hits": jnp.zeros(())}}
    state, _ = checkpoints.restore(3, like)
    assert state["window"] == {"loss": 0.0, "hits": 0.0}
    assert state["step"] == 3


def test_where_all_are_damaged_nothing_is_moved(tmp_path):
    first = Checkpoints(tmp_path, CONFIG)
    save(first, 1)
    save(first, 2)
    first.close()
    for step in "12":
        cut_short(tmp_path / "checkpoints" / step)
    before = snapshot(tmp_path)
    for _ in range(2):
        again = Checkpoints(tmp_path, CONFIG)
        with pytest.raises(UserError, match="None of the 2 checkpoints"):
            again.restore_latest(state_of(0), lambda _: None)
        again.close()
    assert snapshot(tmp_path) == before


def test_files_that_cannot_be_read_now_are_not_damaged(tmp_path, monkeypatch):
    first = Checkpoints(tmp_path, CONFIG)
    save(first, 1)
    save(first, 2)
    before = snapshot(tmp_path)

    def forbidden(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(first._manager, "restore", forbidden)
    with pytest.raises(UserError, match=r"step 2 cannot be read now \(Permission"):
        first.restore_latest(state_of(0), print)
    first.close()
    assert snapshot(tmp_path) == before


def test_the_first_checkpoint_is_read_back_at_once(tmp_path, monkeypatch):
    def unreadable(*_, **__):
        raise ValueError("nothing there")

    checkpoints = Checkpoints(tmp_path, CONFIG)
    monkeypatch.setattr(checkpoints._manager, "restore", unreadable)
    with pytest.raises(CannotWriteError, match=r"step 1 .*cannot be read back"):
        checkpoints.save(1, state_of(1), {}, None)
    checkpoints.close()


NAMES = [
    "lr=0.1,[2,3]",
    "[",
    "a]b[c",
    "*",
    "what?",
    "{x,y}",
    "a b  c ",
    "tab\tand\nnewline",
    "naïve-日本語-🙂",
    "e\u0301",
    "%41#frag?query=1&x",
    "back\\slash",
    "quote'\"",
    "$HOME;`id`|",
    "~",
    "-rf",
    "a:b",
    "x" * 200,
    "12",
    "gs:",
    os.fsdecode(b"bytes\xff\xfe"),
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_checkpoints_can_be_kept_under_any_name(tmp_path, name):
    workdir = tmp_path / name / "run"
    workdir.mkdir(parents=True)
    first = Checkpoints(workdir, CONFIG)
    save(first, 1, 0.5)
    save(first, 2, 0.4)
    first.close()
    cut_short(workdir / "checkpoints" / "2")
    again = Checkpoints(workdir, CONFIG)
    step, state, _ = again.restore_latest(state_of(0), lambda _: None)
    again.close()
    assert step == 1
    jax.tree.map(np.testing.assert_array_equal, state, state_of(1))
    assert (workdir / layout.BROKEN_CHECKPOINTS / "2").is_dir()
    moved = tmp_path / "moved"
    workdir.rename(moved)
    reader = Checkpoints(moved, CONFIG, read_only=True)
    assert reader.restore_latest(state_of(0), print)[0] == 1
    reader.close()


def test_a_very_deep_directory_serves_too(tmp_path):
    workdir = tmp_path.joinpath(*["d" * 200] * 15)
    workdir.mkdir(parents=True)
    first = Checkpoints(workdir, CONFIG)
    save(first, 1)
    assert first.restore_latest(state_of(0), print)[0] == 1
    first.close()
