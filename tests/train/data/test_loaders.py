"""What the loop is fed, besides what the pipeline's own tests see."""

import dataclasses

import numpy as np
import pytest

from tests.tiny_runs import CLASSES, tiny_config, write_images
from tests.train.data.sources.detection.made_up import CATEGORIES, write_rotated
from train.config.data import DataConfig
from train.data.loaders import Feed
from train.errors import UserError
from train.tasks.classification import Classification
from train.tasks.detection import Detection


def feed_of(folder, **changes):
    data = DataConfig(name=f"folder:{folder}", **changes)
    return Feed(dataclasses.replace(tiny_config(), data=data), Classification())


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


def test_held_out_images_are_fed_once_each_and_never_in_training(folder):
    assert feed_of(folder).validation_source is None
    assert feed_of(folder).validation_batches() is None
    feed = feed_of(folder, validation=0.25)
    batches, held_out = feed.validation_batches(), feed.validation_source
    assert batches is not None
    assert held_out is not None
    labels = np.concatenate([batch["label"] for batch in batches])
    weights = np.concatenate([batch["weight"] for batch in batches])
    np.testing.assert_array_equal(labels[weights == 1], [0, 0, 1, 1, 2, 2])
    assert feed.inputs.num_examples == 18
    held, trained, tested = (
        {source[index].image.tobytes() for index in range(len(source))}
        for source in (held_out, feed.train_source, feed.eval_source)
    )
    assert (len(held), len(trained), len(tested)) == (6, 18, 15)
    assert held.isdisjoint(trained | tested)


@pytest.mark.parametrize("seed", [0, 7])
def test_what_is_held_out_does_not_depend_on_the_seed(folder, seed):
    feed = feed_of(folder, validation=0.25)
    feed._config = dataclasses.replace(feed._config, seed=seed)
    found = feed.validation_source
    expected = feed_of(folder, validation=0.25).validation_source
    assert found is not None
    assert expected is not None
    for index in range(len(expected)):
        np.testing.assert_array_equal(found[index].image, expected[index].image)


def objects_feed(root, facts=None):
    data = DataConfig(name=f"rotated:{root}", image_size=16)
    config = dataclasses.replace(tiny_config(), data=data)
    return Feed(config, Detection(), facts)


def test_the_network_knows_the_categories_of_objects(tmp_path):
    feed = objects_feed(write_rotated(tmp_path))
    facts = feed.inputs
    assert facts.categories == CATEGORIES
    assert (facts.class_names, facts.rotated_objects) == ((), True)
    run = dataclasses.replace(facts, categories=CATEGORIES[::-1])
    (own,) = feed.eval_batches()
    (other,) = objects_feed(tmp_path, run).eval_batches()
    there = own["object_labels"] >= 0
    np.testing.assert_array_equal(other["object_labels"] >= 0, there)
    np.testing.assert_array_equal(
        other["object_labels"][there], 2 - own["object_labels"][there]
    )


def test_what_fills_a_batch_up_holds_no_object(tmp_path):
    (batch,) = objects_feed(write_rotated(tmp_path)).eval_batches()
    np.testing.assert_array_equal(batch["weight"], [1, 1, 1, 1, 0, 0, 0, 0])
    assert (batch["object_labels"][4:] == -1).all()
    assert (batch["objects"][4:, :, 2:4] > 0).all()
    assert (batch["object_labels"] >= 0).sum() == 3
    assert not batch["image"][4:].any()


def test_both_splits_have_the_same_categories(tmp_path):
    root = write_rotated(tmp_path, lambda values: values["categories"].append("dog"))
    with pytest.raises(UserError, match=r"one order; got .*tree, dog and car, person,"):
        _ = objects_feed(root).inputs
