"""What the loop is fed, besides what the pipeline's own tests see."""

import dataclasses

import numpy as np
import pytest

from tests.tiny_runs import CLASSES, tiny_config, write_images
from train.data_config import DataConfig
from train.feed import Feed


def feed_of(folder, **changes):
    data = DataConfig(name=f"folder:{folder}", **changes)
    return Feed(dataclasses.replace(tiny_config(), data=data))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_images(tmp_path_factory.mktemp("set") / "images")


@pytest.mark.parametrize("memory_limit_mb", [0, 100])
def test_the_pictured_images_come_from_all_over_the_set(folder, memory_limit_mb):
    feed = feed_of(folder, memory_limit_mb=memory_limit_mb)
    batch = feed.fixed_batch(6)
    np.testing.assert_array_equal(batch["label"], [0, 0, 1, 1, 2, 2])
    assert set(batch["label"]) == set(range(len(CLASSES)))
    again = feed.fixed_batch(6)
    np.testing.assert_array_equal(batch["image"], again["image"])
    assert len(np.unique(batch["image"].reshape(6, -1), axis=0)) == 6


def test_no_more_images_are_pictured_than_there_are(folder):
    batch = feed_of(folder).fixed_batch(1000)
    np.testing.assert_array_equal(batch["label"], np.repeat([0, 1, 2], 5))


def test_an_evaluation_may_be_repeated(folder):
    feed = feed_of(folder)
    first, second = (
        np.concatenate([batch["label"] for batch in feed.eval_batches()])
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    assert len(first) == 16  # 15 and one to fill up
