"""Prepared TFDS sets as data sources, on mocked data: nothing is downloaded."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from train.data_config import DataConfig
from train.datasets import UnreadableImageError, open_source, tfds_source
from train.pipeline import eval_batches, load_source

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
        source = open_source("tfds:cars196", "train", data_dir=tmp_path)
        assert len(source) == source.info.num_examples == 5
        first = source[0]
        assert (first.image.dtype, first.image.ndim) == (np.uint8, 3)
        assert 0 <= first.label < 196
        assert source.info.name == "tfds:cars196"
        assert (source.info.num_classes, source.info.channels) == (196, 3)
        assert source.info.truth == "box"
        assert source.info.image_size is None
        part = open_source("tfds:cars196", "train", data_dir=tmp_path, max_examples=2)
        assert len(part) == 2
        with pytest.raises(IndexError):
            part[2]


def test_a_grey_set_of_one_size_is_known_as_such(tmp_path):
    with tfds.testing.mock_data(num_examples=2):
        source = open_source("tfds:mnist", "test", data_dir=tmp_path)
        info = source.info
        assert (info.channels, info.image_size, info.truth) == (1, (28, 28), "none")
        assert source[0].image.shape == (28, 28, 1)
        assert source[0].rectangle is None


def test_cars_have_boxes(tmp_path):
    box = np.array([0.25, 0.1, 0.75, 0.6], np.float32)  # ymin, xmin, ymax, xmax
    with mocked(example(bbox=box)):
        source = open_source("tfds:cars196", "train", data_dir=tmp_path)
        np.testing.assert_allclose(rectangle_of(source), [14, 10, 10, 5, 0], atol=1e-5)


def test_the_largest_of_several_dogs_counts(tmp_path):
    boxes = np.array([[0, 0, 0.1, 0.1], [0.5, 0.5, 1, 1], [0, 0, 0.2, 0.3]], np.float32)
    with mocked(example(objects={"bbox": boxes})):
        source = open_source("tfds:stanford_dogs", "train", data_dir=tmp_path)
        assert source.info.truth == "box"
        np.testing.assert_allclose(rectangle_of(source), [30, 15, 10, 5, 0])


@pytest.mark.parametrize("box", [[0, 0, 0, 0], [0.6, 0.6, 0.4, 0.4]])
def test_a_box_without_area_is_no_truth(tmp_path, box):
    with mocked(example(bbox=np.array(box, np.float32))):
        source = open_source("tfds:cars196", "train", data_dir=tmp_path)
        assert source[0].rectangle is None


def test_pets_are_scored_by_their_mask(tmp_path):
    trimap = np.full((HEIGHT, WIDTH, 1), 2, np.uint8)
    trimap[4:12, 8:20] = 3
    trimap[5:11, 10:18] = 1
    head = np.array([0.5, 0.5, 0.9, 0.9], np.float32)
    with mocked(example(segmentation_mask=trimap, head_bbox=head)):
        source = open_source("tfds:oxford_iiit_pet", "train", data_dir=tmp_path)
        assert source.info.truth == "mask"
        np.testing.assert_array_equal(source[0].mask, trimap[..., 0] == 1)
        np.testing.assert_allclose(rectangle_of(source), [14, 8, 4, 3, 0])


def test_birds_have_a_box_and_a_mask(tmp_path):
    mask = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
    mask[5:10, 10:20] = 255
    mask[5:10, 20:25] = 51  # one annotator of five
    box = np.array([0.2, 0.2, 0.6, 0.7], np.float32)
    with mocked(example(segmentation_mask=mask, bbox=box)):
        source = open_source("tfds:caltech_birds2011", "train", data_dir=tmp_path)
        assert source.info.truth == "mask"
        np.testing.assert_array_equal(source[0].mask, mask[..., 0] == 255)
        np.testing.assert_allclose(rectangle_of(source), [18, 8, 10, 4, 0], atol=1e-5)


def test_a_mask_of_another_size_is_named(tmp_path):
    with mocked(example(segmentation_mask=np.ones((5, 5, 1), np.uint8))):
        source = open_source("tfds:oxford_iiit_pet", "train", data_dir=tmp_path)
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
        source = open_source("tfds:cars196", "test", data_dir=tmp_path)
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
        open_source("tfds:oxford_iiit_pet", "train", data_dir=tmp_path)
    message = str(caught.value)
    assert "pip install 'cram-jax[prepare]'" in message
    command = f"--file_format=array_record --data_dir={tmp_path}"
    assert f"tfds build oxford_iiit_pet {command}" in message


def test_a_set_that_needs_tensorflow_to_be_described_says_how_to(tmp_path, monkeypatch):
    def builder(name, data_dir):
        raise ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow")

    monkeypatch.setattr(tfds, "builder", builder)
    with pytest.raises(ValueError, match=r"without tensorflow.*tfds build coco --file"):
        open_source("tfds:coco", "train", data_dir=tmp_path)


def test_an_unknown_set_or_configuration_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no data set 'cars195'; did you mean cars196"):
        open_source("tfds:cars195", "train", data_dir=tmp_path)
    with pytest.raises(ValueError, match="cannot open 'mnist_corrupted/nope'"):
        open_source("tfds:mnist_corrupted/nope", "train", data_dir=tmp_path)


def test_a_set_without_images_and_labels_is_refused(tmp_path):
    with (
        tfds.testing.mock_data(num_examples=1),
        pytest.raises(ValueError, match="features image and label of an image classif"),
    ):
        open_source("tfds:imdb_reviews", "train", data_dir=tmp_path)


def test_the_users_own_tfds_directory_is_searched_too(tmp_path, monkeypatch):
    from train.datasets import cluttered_digits

    sizes = {"train": 3, "test": 2}
    monkeypatch.setattr(cluttered_digits, "SPLIT_SIZES", sizes)
    monkeypatch.setenv("CRAM_JAX_DATA", str(tmp_path / "empty"))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    open_source("digits", "train", data_dir=tmp_path)
    source = open_source("tfds:cluttered_digits", "test")
    assert len(source) == 2
    assert source.info.truth == "rotated"
    same = open_source("digits", "test", data_dir=tmp_path)
    np.testing.assert_array_equal(source[1].image, same[1].image)
    np.testing.assert_array_equal(rectangle_of(source), rectangle_of(same))
