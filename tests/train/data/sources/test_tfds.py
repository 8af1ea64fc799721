"""Prepared TFDS sets as data sources, on mocked data: nothing is downloaded."""

import dataclasses

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.batches import eval_batches
from tests.train.data.sources.opened import opened
from tests.train.data.sources.test_layouts import sentences_anew  # noqa: F401
from train.config.data import DataConfig
from train.data.pipeline import load_source
from train.data.sources import UnreadableImageError
from train.data.sources.base import WrongLabelError
from train.data.sources.holding_out import HELD_OUT
from train.data.sources.tfds import source as tfds_source

HEIGHT, WIDTH = 20, 40


def example(**features):
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    return {"image": image, "label": 2, **features}


def mocked(*examples):
    """A stand-in for reading records; the features are those of TFDS's own code."""
    return tfds.testing.mock_data(
        as_data_source_fn=lambda builder, split, **_: list(examples)
    )


def test_images_and_labels_of_a_mocked_set(tmp_path):
    with tfds.testing.mock_data(num_examples=5):
        source = opened("tfds:cars196", "train", data_dir=tmp_path)
        assert len(source) == source.info.num_examples == 5
        first = source[0]
        assert (first.image.dtype, first.image.ndim) == (np.uint8, 3)
        assert 0 <= first.label < 196
        assert source.info.name == "tfds:cars196"
        assert (source.info.num_classes, source.info.channels) == (196, 3)
        assert source.info.truth == "box"
        assert source.info.image_size is None
        part = opened("tfds:cars196", "train", data_dir=tmp_path, max_examples=2)
        assert len(part) == 2
        with pytest.raises(IndexError):
            part[2]


def test_a_grey_set_of_one_size_is_known_as_such(tmp_path):
    with tfds.testing.mock_data(num_examples=2):
        source = opened("tfds:mnist", "test", data_dir=tmp_path)
        info = source.info
        assert (info.channels, info.image_size, info.truth) == (1, (28, 28), "none")
        assert source[0].image.shape == (28, 28, 1)
        assert source[0].rectangle is None


def test_cars_have_boxes(tmp_path):
    box = np.array([0.25, 0.1, 0.75, 0.6], np.float32)  # ymin, xmin, ymax, xmax
    with mocked(example(bbox=box)):
        source = opened("tfds:cars196", "train", data_dir=tmp_path)
        np.testing.assert_allclose(rectangle_of(source), [14, 10, 10, 5, 0], atol=1e-5)


def test_the_largest_of_several_dogs_counts(tmp_path):
    boxes = np.array([[0, 0, 0.1, 0.1], [0.5, 0.5, 1, 1], [0, 0, 0.2, 0.3]], np.float32)
    with mocked(example(objects={"bbox": boxes})):
        source = opened("tfds:stanford_dogs", "train", data_dir=tmp_path)
        assert source.info.truth == "box"
        np.testing.assert_allclose(rectangle_of(source), [30, 15, 10, 5, 0])


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [0.6, 0.6, 0.4, 0.4]])
def test_a_box_without_area_is_no_truth(tmp_path, box):
    with mocked(example(bbox=np.array(box, np.float32))):
        source = opened("tfds:cars196", "train", data_dir=tmp_path)
        assert source[0].rectangle is None


def test_pets_are_scored_by_their_mask(tmp_path):
    trimap = np.full((HEIGHT, WIDTH, 1), 2, np.uint8)
    trimap[4:12, 8:20] = 3
    trimap[5:11, 10:18] = 1
    head = np.array([0.5, 0.5, 0.9, 0.9], np.float32)
    with mocked(example(segmentation_mask=trimap, head_bbox=head)):
        source = opened("tfds:oxford_iiit_pet", "train", data_dir=tmp_path)
        assert source.info.truth == "mask"
        np.testing.assert_array_equal(source[0].mask, trimap[..., 0] == 1)
        np.testing.assert_allclose(rectangle_of(source), [14, 8, 4, 3, 0])


def test_birds_have_a_box_and_a_mask(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    mask[5:10, 10:20] = 255
    mask[5:10, 20:25] = 51  # one annotator of five
    box = np.array([0.2, 0.2, 0.6, 0.7], np.float32)
    with mocked(example(segmentation_mask=mask, bbox=box)):
        source = opened("tfds:caltech_birds2011", "train", data_dir=tmp_path)
        assert source.info.truth == "mask"
        np.testing.assert_array_equal(source[0].mask, mask[..., 0] == 255)
        np.testing.assert_allclose(rectangle_of(source), [18, 8, 10, 4, 0], atol=1e-5)


def test_a_mask_of_another_size_is_named(tmp_path):
    with mocked(example(segmentation_mask=np.ones((5, 5, 1), np.uint8))):
        source = opened("tfds:oxford_iiit_pet", "train", data_dir=tmp_path)
        with pytest.raises(
            UnreadableImageError,
            match="mask of tfds:oxford_iiit_pet train example 0 must have the 20x40",
        ):
            source[0]


def test_a_broken_record_is_named(tmp_path):
    class Broken(list):
        def __getitem__(self, index):
            raise OSError("bad checksum")

    with tfds.testing.mock_data(as_data_source_fn=lambda *_, **__: Broken([0])):
        source = opened("tfds:cars196", "test", data_dir=tmp_path)
        with pytest.raises(
            UnreadableImageError, match="cars196 test example 0 is damaged: bad check"
        ):
            source[0]


def test_a_mocked_set_goes_through_the_pipeline(tmp_path):
    box = np.array([0.0, 0.25, 1.0, 0.75], np.float32)
    config = DataConfig("tfds:cars196", data_dir=str(tmp_path), image_size=10)
    with mocked(*[example(bbox=box)] * 3):
        batches = list(eval_batches(load_source(config, "eval"), config, 2))
    assert [batch["weight"].tolist() for batch in batches] == [[1, 1], [1, 0]]
    np.testing.assert_array_equal(batches[0]["label"], [2, 2])
    np.testing.assert_allclose(batches[0]["rectangle"][0], [0, 0, 1, 1, 0], atol=1e-6)


def rectangle_of(source):
    rectangle = source[0].rectangle
    assert rectangle is not None
    return rectangle


def test_a_set_that_is_not_prepared_says_how_to(tmp_path):
    with pytest.raises(ValueError, match="not ready in") as caught:
        opened("tfds:oxford_iiit_pet", "train", data_dir=tmp_path)
    message = str(caught.value)
    assert "pip install 'cram-jax[prepare]'" in message
    command = f"--file_format=array_record --data_dir={tmp_path}"
    assert f"tfds build oxford_iiit_pet {command}" in message


def test_a_set_that_needs_tensorflow_to_be_described_says_how_to(tmp_path, monkeypatch):
    def builder(name, data_dir):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(ValueError, match=r"without tensorflow.*tfds build coco --file"):
        opened("tfds:coco", "train", data_dir=tmp_path)


def test_an_unknown_set_or_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no data set 'cars195'; did you mean cars196"):
        opened("tfds:cars195", "train", data_dir=tmp_path)
    with pytest.raises(ValueError, match="cannot open 'mnist_corrupted/nope'"):
        opened("tfds:mnist_corrupted/nope", "train", data_dir=tmp_path)


def test_a_set_without_images_and_labels_is_refused(tmp_path):
    with (
        tfds.testing.mock_data(num_examples=1),
        pytest.raises(ValueError, match="features image and label of an image classif"),
    ):
        opened("tfds:imdb_reviews", "train", data_dir=tmp_path)


def test_the_users_own_tfds_directory_is_searched_too(tmp_path, monkeypatch):
    from train.data.sources.digits import cluttered

    sizes = {"train": 3, "test": 2}
    monkeypatch.setattr(cluttered, "SPLIT_SIZES", sizes)
    monkeypatch.setenv("CRAM_JAX_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    opened("digits", "train", data_dir=tmp_path)
    source = opened("tfds:cluttered_digits", "test")
    assert len(source) == 2
    assert source.info.truth == "rotated"
    same = opened("digits", "test", data_dir=tmp_path)
    np.testing.assert_array_equal(source[1].image, same[1].image)
    np.testing.assert_array_equal(rectangle_of(source), rectangle_of(same))


# Labels


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("memory_limit_mb", [0, 100])
@pytest.mark.parametrize("on_bad_image", ["raise", "skip"])
def test_images_without_labels_are_refused_by_name(
    tmp_path, split, memory_limit_mb, on_bad_image
):
    config = DataConfig(
        "tfds:imagenet2012",
        data_dir=str(tmp_path),
        image_size=8,
        memory_limit_mb=memory_limit_mb,
        on_bad_image=on_bad_image,
    )

    def evaluate():
        source = load_source(config, "train" if split == "train" else "eval")
        return list(eval_batches(source, config, 2))

    with (
        mocked(*[example() | {"label": -1}] * 4),
        pytest.raises(ValueError, match=rf"imagenet2012 {split} has no labels") as seen,
    ):
        evaluate()
    message = str(seen.value)
    assert "--data.eval-split validation" in message
    assert "\n" not in message


@pytest.mark.parametrize("label", [1000, 7777])
def test_a_label_beyond_the_classes_is_refused_by_name(tmp_path, label):
    with mocked(example(), example() | {"label": label}):
        source = opened("tfds:imagenet2012", "train", data_dir=tmp_path)
        assert source[0].label == 2
        with pytest.raises(WrongLabelError, match=f"example 1 has label {label}, and"):
            source[1]


# Splits


@pytest.fixture
def small(tmp_path, monkeypatch):
    """`cluttered_digits` of few images, as any prepared set: made by split sizes."""
    from train.data.sources.digits import cluttered

    def prepare(**sizes):
        monkeypatch.setattr(cluttered, "SPLIT_SIZES", sizes)
        opened("digits", next(iter(sizes)), data_dir=tmp_path)
        return DataConfig("tfds:cluttered_digits", data_dir=str(tmp_path))

    return prepare


def images_of(config, split):
    source = load_source(config, split)
    return [source[index].image.tobytes() for index in range(len(source))]


def test_slices_are_splits(small):
    config = small(train=40)
    sliced = dataclasses.replace(
        config, train_split="train[:80%]", eval_split="train[80%:]"
    )
    train, test = images_of(sliced, "train"), images_of(sliced, "eval")
    assert (len(train), len(test)) == (32, 8)
    whole = dataclasses.replace(config, eval_split="train[:10]+train[35:]")
    assert train + test == images_of(whole, "train")
    assert len(images_of(whole, "eval")) == 15


def test_images_that_are_trained_on_too_are_named(small, caplog):
    config = dataclasses.replace(small(train=40), eval_split="train[80%:]")
    assert len(images_of(config, "eval")) == 8
    assert "also in its training split train" in caplog.messages[-1]


@pytest.mark.parametrize("name", ["tfds:cluttered_digits", "digits"])
def test_a_set_without_a_test_split_says_how_to_hold_images_out(small, name):
    config = dataclasses.replace(small(train=40), name=name)
    with pytest.raises(ValueError, match="no split 'test'") as caught:
        load_source(config, "eval")
    if name != "digits":
        message = str(caught.value)
        assert "it has train." in message
        assert "--data.train-split train[:80%] --data.eval-split train[80%:]" in message
        assert "--data.validation 0.2" in message


@pytest.mark.parametrize("split", ["train[80%", "train[30:50:2]", "train[50:60]"])
def test_a_slice_that_is_none_is_refused(small, split):
    config = dataclasses.replace(small(train=40), eval_split=split)
    with pytest.raises(ValueError, match=r"no images 'train.*written as train\[80%:\]"):
        load_source(config, "eval")


def test_an_unknown_split_lists_those_there_are(small):
    config = dataclasses.replace(small(train=20, test=5), eval_split="dev[:5]")
    with pytest.raises(ValueError, match=r"has no split 'dev'; it has t.*, t"):
        load_source(config, "eval")


@pytest.mark.parametrize("eval_split", ["test", "validation"])
def test_held_out_images_stand_in_for_a_missing_test_split(small, eval_split, caplog):
    config = dataclasses.replace(small(train=60), validation=0.2, eval_split=eval_split)
    train, held = images_of(config, "train"), images_of(config, "validation")
    assert images_of(config, "eval") == held
    assert load_source(config, "eval").info.split == "validation"
    whole = images_of(dataclasses.replace(config, validation=0.0), "train")
    assert sorted(train + held) == sorted(whole)
    said = any("has no test split, so the held-out" in m for m in caplog.messages)
    assert said == (eval_split == "test")


def test_held_out_images_are_a_share_of_each_class(small):
    config = dataclasses.replace(small(train=200, test=5), validation=0.25)
    source = load_source(config, "validation")
    held = np.bincount([source[i].label for i in range(len(source))], minlength=10)
    training = load_source(config, "train")
    kept = np.bincount([training[i].label for i in range(len(training))], minlength=10)
    np.testing.assert_allclose(held, 0.25 * (held + kept), atol=1)
    prepared = images_of(config, "validation"), images_of(config, "train")
    digits = dataclasses.replace(config, name="digits")
    assert (images_of(digits, "validation"), images_of(digits, "train")) == prepared
    few = dataclasses.replace(digits, train_examples=7)
    assert images_of(few, "train") == prepared[1][:7]


def test_a_split_called_validation_is_its_own(tmp_path):
    with mocked(*[example(), example() | {"label": 5}] * 4):
        config = DataConfig(
            "tfds:imagenet2012", data_dir=str(tmp_path), validation=0.25,
            eval_split="validation",
        )  # fmt: skip
        assert load_source(config, "eval").info.num_examples == 8
        assert load_source(config, "validation").info.num_examples == 2
        assert load_source(config, "train").info.num_examples == 6


def test_large_sets_are_held_out_without_reading_labels(tmp_path, monkeypatch):
    monkeypatch.setattr(tfds_source, "_MANY", 3)
    with mocked(*[example()] * 40):
        options = {"data_dir": tmp_path, "validation": 0.25}
        assert len(opened("tfds:cars196", HELD_OUT, **options)) == 10
        assert len(opened("tfds:cars196", "train", **options)) == 30
