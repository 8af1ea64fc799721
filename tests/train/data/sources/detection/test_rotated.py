"""`rotated:PATH`: what is read, what is refused, what is held out."""

import dataclasses
import json
import pickle
from typing import Any

import numpy as np
import pytest

from tests.train.data.sources.detection.made_up import (
    CATEGORIES,
    HEIGHT,
    WIDTH,
    opened_objects,
    rotated_values,
    write_image,
    write_rotated,
)
from train.config.data import DataConfig
from train.data.pipeline import eval_batches, load_source, train_batches
from train.data.sources import NoSplitError, UnreadableImageError
from train.data.sources.base import WrongLabelError
from train.data.sources.holding_out import HELD_OUT
from train.tasks.classification import Classification
from train.tasks.detection import Detection


def boxes_of(values, image):
    return values["images"][image]["boxes"]


def test_images_come_with_their_objects(tmp_path):
    source = opened_objects(f"rotated:{write_rotated(tmp_path)}", "train")
    info = source.info
    assert info.categories == CATEGORIES
    assert (info.class_names, info.truth, info.channels) == ((), "none", 3)
    assert info.image_size == (HEIGHT, WIDTH)
    assert info.rotated_objects
    assert len(source) == info.num_examples == 7
    given = rotated_values("train", 7)
    for index in range(7):
        example = source[index]
        assert example.image.shape == (HEIGHT, WIDTH, 3)
        assert example.label == -1
        boxes = np.array(boxes_of(given, index)).reshape(-1, 6)
        assert example.objects is not None
        half = [1, 1, 0.5, 0.5, 1]
        np.testing.assert_array_equal(example.objects.rectangles, boxes[:, 1:] * half)
        np.testing.assert_array_equal(example.objects.labels, boxes[:, 0])
        assert not example.objects.ignored.any()
        assert example.objects.labels.dtype == np.int64
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[3].image, source[3].image)
    with pytest.raises(IndexError):
        source[7]


def test_an_upright_box_ends_at_the_edge_of_its_image(tmp_path):
    def change(values):
        values["images"][0]["boxes"] = [
            [0, 2, 3, 10, 4, 0],
            [1, 28, 19, 8, 8, 0],
            [2, 2, 3, 10, 4, 0.1],
        ]

    root = write_rotated(tmp_path, change)
    objects = opened_objects(f"rotated:{root}", "train")[0].objects
    assert objects is not None
    np.testing.assert_allclose(
        objects.rectangles,
        [[3.5, 3, 3.5, 2, 0], [27, 17.5, 3, 2.5, 0], [2, 3, 5, 2, 0.1]],
    )


def set_box(*values):
    def change(file):
        boxes_of(file, 2)[1] = list(values)

    return change


def set_image(**fields):
    return lambda file: file["images"][2].update(fields)


# What is wrong with one image: it can be passed over.
OF_AN_IMAGE = {
    "category": (
        set_box(3, 9, 9, 4, 4, 0),
        r"category 3, and .* 0 to 2 \(car, person,",
    ),
    "half a category": (set_box(0.5, 9, 9, 4, 4, 0), "has the category 0.5"),
    "zero size": (set_box(0, 9, 9, 4, 0, 0), "positive width and height, got 4 and 0;"),
    "negative size": (set_box(0, 9, 9, -4, 2, 1), "positive width and .*, got -4 and"),
    "outside": (set_box(0, 35, 9, 4, 4, 0), r"outside of its image of 30 x 20 pixels"),
    "rotated outside": (set_box(0, 29, 21, 9, 9, 1), "outside of its image of 30 x 20"),
    "five numbers": (set_box(0, 9, 9, 4, 4), r"must be 6 numbers \[category, center_x"),
    "a text": (
        set_box(0, 9, 9, 4, "4", 0),
        r"must be 6 numbers .* got \[0, 9, 9, 4, '",
    ),
    "no number": (set_box(0, 9, 9, 4, float("nan"), 0), "must be 6 numbers"),
    "not a list": (lambda file: boxes_of(file, 2).append(5), r"boxes\[2\] .* got 5"),
}


@pytest.mark.parametrize(("change", "said"), OF_AN_IMAGE.values(), ids=OF_AN_IMAGE)
def test_a_wrong_object_is_named_and_its_image_can_be_passed_over(
    tmp_path, change, said
):
    name = f"rotated:{write_rotated(tmp_path, change)}"
    with pytest.raises(ValueError, match=said) as raised:
        opened_objects(name, "train")
    sentence = str(raised.value)
    assert "of train/2.png in " in sentence
    assert "--data.on-bad-image skip goes on without its image" in sentence
    assert "\n" not in sentence
    source = opened_objects(name, "train", on_bad_image="skip")
    assert len(source) == 7
    with pytest.raises(UnreadableImageError, match=said):
        source[2]
    assert len(source[1].objects or ()) == 1


# What is wrong with the whole file.
OF_THE_FILE = {
    "degrees": (
        set_box(0, 9, 9, 4, 4, 45),
        "the angle 45, more than a turn: .* pi / 18",
    ),
    "minus degrees": (set_box(0, 9, 9, 4, 4, -90), "the angle -90"),
    "no images": (lambda file: file.pop("images"), "no field 'images'; it has categor"),
    "empty": (lambda file: file["images"].clear(), "train.json lists no image"),
    "no categories": (lambda file: file.pop("categories"), "no field 'categories'"),
    "none": (lambda file: file["categories"].clear(), "names no category"),
    "twice": (
        lambda file: file["categories"].append("car"),
        "names the category 'car' twice",
    ),
    "no size": (
        lambda file: file["images"][2].pop("width"),
        r"images\[2\] of .* 'widt",
    ),
    "no pixel": (set_image(width=0), "a width of 1 pixel or more, got 20 and 0"),
    "size in words": (set_image(width="30"), "have a whole number as 'width', got str"),
    "no boxes": (lambda file: file["images"][2].pop("boxes"), r"no field 'boxes'"),
    "a text for boxes": (set_image(boxes="x"), "must have a list as 'boxes', got str"),
    "a number for an image": (
        lambda file: file["images"].append(3),
        r"images\[7\] of .* must be an object .*got int '3'",
    ),
    "listed twice": (set_image(file_name="./train/1.png"), "lists the .*png twice"),
}


@pytest.mark.parametrize(("change", "said"), OF_THE_FILE.values(), ids=OF_THE_FILE)
def test_a_wrong_file_is_one_sentence_whatever_is_passed_over(tmp_path, change, said):
    name = f"rotated:{write_rotated(tmp_path, change)}"
    for on_bad_image in ("raise", "skip"):
        with pytest.raises(ValueError, match=said) as raised:
            opened_objects(name, "train", on_bad_image=on_bad_image)
        assert str(tmp_path) in str(raised.value)
        assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b'{"categories": ["car"],\n "images": [}',
            "is no JSON from line 2, column 13 on",
        ),
        (b"", "is no JSON from line 1, column 1 on"),
        (b"[1, 2]", r"must hold an object \{...\}, got list '\[1, 2\]'"),
        (b'{"categories": "\xff\xfe\xfa"}', "must be UTF-8 text"),
    ],
)
def test_a_file_that_is_no_json_says_where_it_stops_being_one(tmp_path, content, said):
    root = write_rotated(tmp_path)
    (root / "train.json").write_bytes(content)
    with pytest.raises(ValueError, match=f"train.json {said}"):
        opened_objects(f"rotated:{root}", "train")


def test_a_missing_image_is_named(tmp_path):
    root = write_rotated(tmp_path)
    (root / "train" / "2.png").unlink()
    (root / "train" / "5.png").unlink()
    name = f"rotated:{root}"
    with pytest.raises(
        ValueError, match=r"2 of the 7 images in .* first .*/train/2.pn"
    ):
        opened_objects(name, "train")
    source = opened_objects(name, "train", on_bad_image="skip")
    with pytest.raises(UnreadableImageError, match=r"train/5.png does not exist"):
        source[5]


def test_an_image_of_another_size_than_its_file_says_is_refused(tmp_path):
    root = write_rotated(tmp_path)
    write_image(root / "train" / "3.png", size=(HEIGHT, WIDTH))
    source = opened_objects(f"rotated:{root}", "train")
    with pytest.raises(UnreadableImageError, match=r"has 20 x 30 .* says 30 x 20, so"):
        source[3]


def test_splits_are_files_and_test_may_be_called_val(tmp_path):
    root = write_rotated(tmp_path / "a", test_name="val")
    assert len(opened_objects(f"rotated:{root}", "test")) == 4
    assert len(opened_objects(f"rotated:{root}", "val")) == 4
    (root / "val.json").unlink()
    with pytest.raises(NoSplitError, match=r"no split 'test': expected test.json\. T"):
        opened_objects(f"rotated:{root}", "test")
    with pytest.raises(ValueError, match=r"folder .*/b of rotated:.* does not exist"):
        opened_objects(f"rotated:{tmp_path / 'b'}", "train")
    with pytest.raises(ValueError, match="is a file; name the folder it lies in"):
        opened_objects(f"rotated:{root / 'train.json'}", "train")


def names(source):
    return {path.rpartition("/")[2] for path in source.paths}


def test_images_are_held_out_by_their_names(tmp_path):
    write_rotated(tmp_path, train=20)
    name = f"rotated:{tmp_path}"
    options: dict[str, Any] = {"validation": 0.25}
    stay = opened_objects(name, "train", **options)
    held = opened_objects(name, HELD_OUT, **options)
    assert (len(stay), len(held)) == (15, 5)
    assert not names(stay) & names(held)
    assert len(names(stay) | names(held)) == 20
    assert held.info.split == "validation"
    assert stay.info.categories == held.info.categories
    # The order of the file does not matter, nor do the objects.
    file = tmp_path / "train.json"
    values = json.loads(file.read_text())
    values["images"].reverse()
    values["images"][0]["boxes"] = []
    file.write_text(json.dumps(values))
    assert names(opened_objects(name, HELD_OUT, **options)) == names(held)
    assert len(opened_objects(name, "test", **options)) == 4
    few = opened_objects(name, "train", max_examples=6, **options)
    assert names(few) < names(stay)
    assert len(few) == few.info.num_examples == 6


def test_rows_hold_the_objects_in_memory_and_not(tmp_path):
    root = write_rotated(tmp_path)
    config = DataConfig(f"rotated:{root}", image_size=10, flip=True)
    task = Detection()
    source = load_source(config, "train")
    assert [each.objects is not None for each in source] == [True] * 7  # pyright: ignore
    unloaded = load_source(dataclasses.replace(config, memory_limit_mb=0), "train")
    assert type(unloaded) is not type(source)
    batches = [
        next(train_batches(each, config, 7, task=task, seed=1))
        for each in (source, unloaded)
    ]
    for name, value in batches[0].items():
        np.testing.assert_allclose(value, batches[1][name], atol=1e-6, err_msg=name)
    there = (batches[0]["object_labels"] >= 0).sum(axis=1)
    assert sorted(there) == [0, 0, 0, 1, 1, 2, 2]
    (batch,) = eval_batches(source, config, 7, task=task)
    seen = batch["objects"][2, 0]
    # The central square of 20 pixels, seen in 10: half of it is the unit.
    _, x, y, w, h, angle = boxes_of(rotated_values("train", 7), 2)[0]
    expected = [(x - 15) / 10, (y - 10) / 10, w / 20, h / 20, angle]
    np.testing.assert_allclose(seen, expected, atol=1e-6)


def test_crops_keep_the_aspect_of_rotated_objects(tmp_path):
    root = write_rotated(tmp_path)
    config = DataConfig(f"rotated:{root}", crop_aspect=(0.8, 1.2))
    with pytest.raises(ValueError, match=r"crop_aspect must be \(1, 1\) for rotated:"):
        train_batches(load_source(config, "train"), config, 2, task=Detection(), seed=0)


def test_classification_is_refused_with_the_task_to_take(tmp_path):
    source = opened_objects(f"rotated:{write_rotated(tmp_path)}", "train")
    with pytest.raises(
        WrongLabelError, match=r"has objects, each .* detection to find"
    ):
        Classification().check(source[0], source.info, "image 0")
