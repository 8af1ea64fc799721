"""Batches are functions of seed and step; evaluation counts every image once."""

import dataclasses
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from tests.batches import eval_batches, train_batches
from train.config.data import DataConfig
from train.data import pipeline
from train.data.pipeline import Share, input_shape, load_source
from train.data.prefetch import prefetch_to_device
from train.data.sources import DatasetInfo, Example, Truth, UnreadableImageError
from train.data.sources.base import WrongLabelError
from train.data.sources.holding_out import HELD_OUT
from train.data.sources.memory import estimated_bytes, load_into_memory
from train.errors import UserError

SIDE = 6
AUGMENTED = DataConfig(
    flip=True,
    crop_area=(0.3, 0.9),
    color_jitter=0.4,
    trivial_augment=True,
    erasing=0.5,
    mixup=0.4,
    cutmix=1.0,
)


@dataclasses.dataclass(frozen=True)
class Numbered:
    """Image i has label i, random pixels, a rectangle (not every third), a mask."""

    count: int
    truth: Truth = "rotated"
    broken: int = -1

    @property
    def info(self):
        names = tuple(map(str, range(self.count)))
        size = (SIDE, SIDE)
        return DatasetInfo("numbered", "train", names, self.count, self.truth, 3, size)

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index == self.broken:
            raise UnreadableImageError(f"image {index} is damaged.")
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)
        angle = 0.5 if self.truth == "rotated" else 0.0
        rectangle = np.array([*rng.uniform(2, 4, 2), *rng.uniform(1, 2, 2), angle])
        mask = image[..., 0] % 2 if self.truth == "mask" else None
        return Example(image, index, None if index % 3 == 2 else rectangle, mask)


def take(iterator, count):
    batches = list(itertools.islice(iterator, count))
    if hasattr(iterator, "close"):
        iterator.close()
    return batches


def assert_equal(batches, others):
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys() == other.keys()
        for name in batch:
            assert batch[name].dtype == other[name].dtype, name
            np.testing.assert_array_equal(batch[name], other[name], err_msg=name)


# The contract


@pytest.mark.parametrize("truth", ["rotated", "box", "mask", "none"])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_batch_has_the_arrays_of_the_contract(truth, in_memory):
    source = Numbered(9, truth)
    source = load_into_memory(source, DataConfig()) if in_memory else source
    (batch,) = take(train_batches(source, DataConfig(), 4, seed=0), 1)
    expected = {
        "image": ((4, SIDE, SIDE, 3), np.uint8),
        "label": ((4,), np.int32),
        "weight": ((4,), np.float32),
        "rectangle": ((4, 5), np.float32),
        "rectangle_weight": ((4,), np.float32),
    }
    if truth == "mask":
        expected["object_mask"] = ((4, SIDE, SIDE), np.uint8)
    assert {k: (v.shape, v.dtype) for k, v in batch.items()} == expected
    np.testing.assert_array_equal(batch["weight"], 1)
    np.testing.assert_array_equal(batch["rectangle_weight"], batch["label"] % 3 != 2)
    assert not batch["rectangle"][batch["rectangle_weight"] == 0].any()
    for row, label in enumerate(batch["label"]):
        example = source[int(label)]
        np.testing.assert_array_equal(batch["image"][row], example.image)
        if example.rectangle is not None and truth == "rotated":
            isotropic = (example.rectangle - [3, 3, 0, 0, 0]) / [3, 3, 3, 3, 1]
            np.testing.assert_allclose(batch["rectangle"][row], isotropic, atol=1e-6)


def test_input_shape_is_the_sets_own_or_the_configured():
    info = Numbered(3).info
    assert input_shape(info, DataConfig()) == (SIDE, SIDE, 3)
    assert input_shape(info, DataConfig(image_size=10)) == (10, 10, 3)
    oblong = dataclasses.replace(info, image_size=(6, 8), channels=1)
    assert input_shape(oblong, DataConfig()) == (224, 224, 1)
    mixed = dataclasses.replace(info, image_size=None)
    assert input_shape(mixed, DataConfig()) == (224, 224, 3)


# Order


def test_every_epoch_is_another_permutation_of_all_images():
    batches = take(train_batches(Numbered(10), DataConfig(), 4, seed=3), 10)
    labels = np.concatenate([batch["label"] for batch in batches]).reshape(4, 10)
    np.testing.assert_array_equal(
        np.sort(labels, axis=1), np.tile(np.arange(10), 4).reshape(4, 10)
    )
    assert len({tuple(epoch) for epoch in labels.tolist()}) == 4
    (other,) = take(train_batches(Numbered(10), DataConfig(), 4, seed=4), 1)
    assert other["label"].tolist() != batches[0]["label"].tolist()


def test_a_batch_may_be_larger_than_the_set():
    (batch,) = take(train_batches(Numbered(3), DataConfig(), 7, seed=0), 1)
    counts = np.bincount(batch["label"], minlength=3)
    assert sorted(counts) == [2, 2, 3]


@pytest.mark.parametrize("config", [DataConfig(), DataConfig(flip=True), AUGMENTED])
def test_memory_threads_and_processes_do_not_change_a_batch(config):
    source = Numbered(11)
    reference = take(train_batches(source, config, 4, seed=5), 6)
    in_memory = load_into_memory(source, DataConfig())
    assert_equal(take(train_batches(in_memory, config, 4, seed=5), 6), reference)
    threaded = dataclasses.replace(config, threads=4)
    assert_equal(take(train_batches(source, threaded, 4, seed=5), 6), reference)
    shares = [
        take(
            train_batches(source, config, 4, seed=5, share=Share(i, 2)),
            6,
        )
        for i in range(2)
    ]
    joined = [
        {name: np.concatenate([left[name], right[name]]) for name in left}
        for left, right in zip(*shares, strict=True)
    ]
    assert_equal(joined, reference)


@pytest.mark.parametrize("truth", ["box", "mask"])
def test_a_set_in_memory_mirrors_as_one_on_disk_does(truth):
    source, config = Numbered(9, truth), DataConfig(flip=True, image_size=9)
    reference = take(train_batches(source, config, 4, seed=5), 5)
    in_memory = load_into_memory(source, DataConfig())
    assert_equal(take(train_batches(in_memory, config, 4, seed=5), 5), reference)


def test_worker_processes_give_the_same_batches_resume_and_name_bad_images():
    config = dataclasses.replace(AUGMENTED, workers=2)
    reference = take(train_batches(Numbered(11), AUGMENTED, 4, seed=5), 6)
    iterator = train_batches(Numbered(11), config, 4, seed=5)
    first = [next(iterator) for _ in range(4)]
    assert_equal(first, reference[:4])
    iterator.set_state({"step": 2})
    assert_equal(take(iterator, 2), reference[2:4])
    broken = train_batches(Numbered(11, broken=7), config, 11, seed=5)
    with pytest.raises(Exception, match="image 7 is damaged"):
        next(broken)
    broken.close()


@pytest.mark.parametrize("step", [0, 1, 5])
def test_resume_is_exact(step):
    source = Numbered(7)
    reference = take(train_batches(source, AUGMENTED, 3, seed=1), 9)
    iterator = train_batches(source, AUGMENTED, 3, seed=1)
    take_some = [next(iterator) for _ in range(step)]
    assert_equal(take_some, reference[:step])
    state = json.loads(json.dumps(iterator.get_state()))
    assert state == {"step": step}
    iterator.close()
    resumed = train_batches(source, AUGMENTED, 3, seed=1)
    resumed.set_state(state)
    assert_equal(take(resumed, 9 - step), reference[step:])


# Augmentation


def test_half_of_the_images_are_mirrored_with_their_rectangles():
    source = Numbered(50)
    batches = take(train_batches(source, DataConfig(flip=True), 50, seed=0), 4)
    mirrored = []
    for batch in batches:
        for row, label in enumerate(batch["label"]):
            example = source[int(label)]
            flipped = (batch["image"][row] != example.image).any()
            mirrored.append(flipped)
            expected = example.image[:, ::-1] if flipped else example.image
            np.testing.assert_array_equal(batch["image"][row], expected)
            if example.rectangle is not None:
                sign = -1 if flipped else 1
                x, angle = batch["rectangle"][row, [0, 4]]
                assert angle == sign * 0.5
                assert x == pytest.approx(sign * (example.rectangle[0] / 3 - 1))
    assert 0.4 < np.mean(mirrored) < 0.6


def test_augmentation_differs_between_epochs():
    source = Numbered(1)
    first, second = take(train_batches(source, AUGMENTED, 1, seed=0), 2)
    assert (first["image"] != second["image"]).any()


def test_evaluation_is_not_augmented():
    (batch,) = eval_batches(Numbered(3), AUGMENTED, 3)
    for row in range(3):
        np.testing.assert_array_equal(batch["image"][row], Numbered(3)[row].image)


@pytest.mark.parametrize("jitter", [0.0, 0.3])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_crop_area_of_one_trains_on_the_largest_central_square(in_memory, jitter):
    source = load_into_memory(Numbered(3), DataConfig()) if in_memory else Numbered(3)
    cropped = DataConfig(eval_crop=0.5, color_jitter=jitter)
    whole = dataclasses.replace(cropped, eval_crop=1.0)
    assert_equal(
        take(train_batches(source, cropped, 3, seed=0), 2),
        take(train_batches(source, whole, 3, seed=0), 2),
    )
    (small,), (large,) = (eval_batches(source, c, 3) for c in (cropped, whole))
    assert (small["image"] != large["image"]).any()


@dataclasses.dataclass(frozen=True)
class Mislabelled(Numbered):
    """The last image has a label that is no class."""

    label: int = -1

    def __getitem__(self, index):
        example = super().__getitem__(index)
        last = index == self.count - 1
        return dataclasses.replace(example, label=self.label) if last else example


@pytest.mark.parametrize("label", [-1, 4, 255])
@pytest.mark.parametrize("in_memory", [True, False])
def test_a_label_that_is_no_class_is_refused_in_training_too(label, in_memory):
    source = Mislabelled(4, label=label)
    source = load_into_memory(source, DataConfig()) if in_memory else source
    config = DataConfig(on_bad_image="skip", crop_area=(0.5, 1.0))
    for make in (eval_batches, lambda *all_: train_batches(*all_, seed=0)):
        with pytest.raises(WrongLabelError, match=f"image 3 has label {label}, and"):
            take(iter(make(source, config, 4)), 1)


def test_rotated_truth_refuses_a_change_of_aspect():
    config = DataConfig(crop_area=(0.5, 1), crop_aspect=(0.75, 1.33))
    with pytest.raises(
        ValueError, match=r"data\.crop_aspect must be \(1, 1\) for numb"
    ):
        train_batches(Numbered(3), config, 2, seed=0)
    take(train_batches(Numbered(3, "box"), config, 2, seed=0), 1)


# Evaluation


@pytest.mark.parametrize("processes", [1, 2, 4])
@pytest.mark.parametrize("batch_size", [4, 8, 12, 16])
@pytest.mark.parametrize("in_memory", [True, False])
def test_evaluation_counts_every_image_once(batch_size, processes, in_memory):
    source = load_into_memory(Numbered(10), DataConfig()) if in_memory else Numbered(10)
    shares = []
    for index in range(processes):
        evaluation = eval_batches(
            source,
            DataConfig(),
            batch_size,
            share=Share(index, processes),
        )
        batches = list(evaluation)
        assert len(batches) == len(evaluation) == -(-10 // batch_size)
        assert_equal(list(evaluation), batches)  # again, from the start
        shares.append(batches)
    everything = {
        name: np.concatenate([batch[name] for share in shares for batch in share])
        for name in shares[0][0]
    }
    assert all(len(b["label"]) == batch_size // processes for s in shares for b in s)
    real = everything["weight"] == 1
    assert sorted(everything["label"][real]) == list(range(10))
    for name, values in everything.items():
        assert not values[~real].any(), name


def test_a_batch_is_divided_evenly_between_processes():
    for make in (eval_batches, lambda *a, **k: train_batches(*a, seed=0, **k)):
        with pytest.raises(ValueError, match="multiple of the 2 processes, got 3"):
            make(Numbered(4), DataConfig(), 3, share=Share(0, 2))
        with pytest.raises(ValueError, match="multiple of the 1 processes, got 0"):
            make(Numbered(4), DataConfig(), 0)


# Memory, engines, prefetch


def test_a_set_is_kept_in_memory_if_it_fits(monkeypatch):
    source = Numbered(100)
    assert estimated_bytes(source) == 100 * SIDE * SIDE * 3
    assert estimated_bytes(Numbered(100, "mask")) == 100 * SIDE * SIDE * 4
    monkeypatch.setattr(pipeline, "open_source", lambda *_, **__: Numbered(100_000))
    kept = load_source(DataConfig(memory_limit_mb=0), "train")
    assert isinstance(kept, Numbered)
    monkeypatch.setattr(pipeline, "open_source", lambda *_, **__: source)
    loaded = load_source(DataConfig(memory_limit_mb=1), "train")
    assert not isinstance(loaded, Numbered)
    assert loaded.info == source.info
    np.testing.assert_array_equal(loaded[42].image, source[42].image)


def test_load_source_passes_the_configuration_on(monkeypatch):
    calls = []

    def open_source(*arguments):
        calls.append(arguments)
        return Numbered(2)

    monkeypatch.setattr(pipeline, "open_source", open_source)
    config = DataConfig("folder:x", eval_split="val", train_examples=5, eval_examples=6)
    load_source(config, "train")
    load_source(config, "eval")
    held_out = dataclasses.replace(config, validation=0.1, train_split="small")
    with pytest.raises(ValueError, match=r"held out; train with --data\.validation"):
        load_source(config, "validation")
    load_source(held_out, "validation")
    expected = [(config, "train", 5), (config, "val", 6), (held_out, HELD_OUT)]
    assert calls == expected
    with pytest.raises(ValueError, match='"eval" or "validation", got \'test\''):
        load_source(config, "test")


def test_without_grain_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "grain", None)
    for batches in (
        train_batches(Numbered(5), AUGMENTED, 2, seed=0),
        iter(eval_batches(Numbered(5), AUGMENTED, 2)),
    ):
        with pytest.raises(UserError, match="needs grain: pip install 'cram-jax"):
            next(batches)


def test_prefetch_keeps_order_and_counts_what_it_gave():
    reference = take(train_batches(Numbered(7), DataConfig(), 3, seed=0), 6)
    ahead = prefetch_to_device(
        train_batches(Numbered(7), DataConfig(), 3, seed=0),
        lambda batch: {name: value.copy() for name, value in batch.items()},
        depth=3,
    )
    given = [next(ahead) for _ in range(4)]
    time.sleep(0.05)  # lets it run ahead
    assert ahead.get_state() == {"step": 4}
    ahead.close()
    resumed = train_batches(Numbered(7), DataConfig(), 3, seed=0)
    resumed.set_state(ahead.get_state())
    assert_equal(given + take(prefetch_to_device(resumed, dict), 2), reference)
    with pytest.raises(ValueError, match="closed or has failed"):
        next(ahead)


def test_prefetch_raises_what_went_wrong_and_stops_its_thread():
    before = threading.active_count()
    ahead = prefetch_to_device(
        train_batches(Numbered(4, broken=2), DataConfig(), 4, seed=0), dict
    )
    with pytest.raises(UnreadableImageError, match="image 2 is damaged"):
        next(ahead)
    idle = prefetch_to_device(train_batches(Numbered(4), DataConfig(), 2, seed=0), dict)
    idle.close()
    idle.close()
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before


# Configuration


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": ""}, "data.name must not be empty"),
        ({"train_examples": 0}, "data.train_examples must be 1 or more, got 0"),
        ({"eval_examples": -1}, "data.eval_examples must be 1 or more"),
        ({"image_size": 0}, "data.image_size must be 1 or more"),
        ({"crop_area": (0.0, 1.0)}, "data.crop_area must be 0 < smallest"),
        ({"crop_area": (0.9, 0.5)}, "data.crop_area must be 0 < smallest"),
        ({"crop_aspect": (2.0, 1.0)}, "data.crop_aspect must be 0 < smallest"),
        ({"color_jitter": 1.0}, r"data.color_jitter must be in \[0, 1\), got 1.0"),
        ({"eval_crop": 0.0}, r"data.eval_crop must be in \(0, 1\]"),
        ({"validation": 1.0}, r"data.validation must be in \[0, 1\), got 1.0"),
        ({"validation": -0.1}, r"data.validation must be in \[0, 1\)"),
        ({"eval_split": " "}, "data.eval_split must not be empty"),
        ({"train_split": ""}, "data.train_split must not be empty"),
        ({"workers": -1}, "data.workers must be 0 or more"),
        ({"threads": 0}, "data.threads must be 1 or more"),
        ({"memory_limit_mb": -1}, "data.memory_limit_mb must be 0 or more"),
        ({"on_bad_image": "ignore"}, "must be one of 'raise', 'skip', got 'ignore'"),
    ],
)
def test_impossible_configurations_are_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        DataConfig(**fields)


# Signals


WITH_WORKERS = """
import dataclasses, multiprocessing, os, signal, sys, time
from tests.train.data.test_pipeline import AUGMENTED, Numbered
from tests.batches import train_batches

if __name__ == "__main__":
    signal.signal(signal.SIGINT, lambda *_: None)
    config = dataclasses.replace(AUGMENTED, workers=1)
    iterator = train_batches(Numbered(11), config, 4, seed=5)
    next(iterator)
    os.killpg(os.getpgrp(), signal.SIGINT)
    for _ in range(20):
        next(iterator)
    print(*[child.pid for child in multiprocessing.active_children()], flush=True)
    time.sleep(60)
"""


def alive(pid):
    try:
        os.kill(pid, 0)
        status = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return status != "Z"


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up in /proc")
def test_workers_outlive_ctrl_c_but_not_their_parent(tmp_path):
    script = tmp_path / "with_workers.py"
    script.write_text(WITH_WORKERS)
    root = str(Path(__file__).parents[1])
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=os.environ | {"PYTHONPATH": root},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    try:
        workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 1
        assert all(map(alive, workers))
    finally:
        parent.kill()
        parent.communicate()
    deadline = time.monotonic() + 20
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(alive, workers))
