"""`coco:PATH`: COCO's JSON, wherever its files lie."""

import json
import re

import numpy as np
import pytest

from tests.train.data.sources.detection.made_up import (
    HEIGHT,
    WIDTH,
    opened_objects,
    write_image,
)
from train.data.sources import NoSplitError, UnreadableImageError
from train.data.sources.holding_out import HELD_OUT


def values_of():
    size = {"width": WIDTH, "height": HEIGHT}
    # Ids are neither in order nor without gaps.
    return {
        "info": {"year": 2017},
        "categories": [
            {"id": 90, "name": "kite", "supercategory": "sports"},
            {"id": 3, "name": "car", "supercategory": "vehicle"},
            {"id": 17, "name": "cat", "supercategory": "animal"},
        ],
        "images": [
            {"id": 700, "file_name": "b.png", **size},
            {"id": 5, "file_name": "a.png", **size},
            {"id": 42, "file_name": "empty.png", **size},
        ],
        "annotations": [
            {"id": 1, "image_id": 5, "category_id": 17, "bbox": [1, 2, 6, 4]},
            {
                "id": 2,
                "image_id": 700,
                "category_id": 90,
                "bbox": [0.5, 0, 29.5, 20],
                "iscrowd": 1,
                "segmentation": {"counts": [1], "size": [20, 30]},
            },
            {
                "id": 3,
                "image_id": 5,
                "category_id": 3,
                "bbox": [25, 15, 10, 2],
                "iscrowd": 0,
            },
        ],
    }


PLACES = {
    "as COCO has them": ("annotations/instances_train2017.json", "train2017"),
    "images in a folder": ("annotations/train.json", "images/train"),
    "all images together": ("train.json", "images"),
    "images beside": ("train.json", "."),
    "as Roboflow has them": ("train/_annotations.coco.json", "train"),
}


def write(root, file="train.json", folder="images", change=None):
    values = values_of()
    for seed, image in enumerate(values["images"]):
        write_image(root / folder / image["file_name"], seed)
    if change is not None:
        change(values)
    (root / file).parent.mkdir(parents=True, exist_ok=True)
    (root / file).write_text(json.dumps(values))
    return f"coco:{root}"


@pytest.mark.parametrize(("file", "folder"), PLACES.values(), ids=PLACES)
def test_boxes_are_read_wherever_the_files_lie(tmp_path, file, folder):
    source = opened_objects(write(tmp_path, file, folder), "train")
    assert source.info.categories == ("car", "cat", "kite")  # by their ids
    assert not source.info.rotated_objects
    assert source.info.image_size == (HEIGHT, WIDTH)
    by_name = {path.rpartition("/")[2]: i for i, path in enumerate(source.paths)}
    first = source[by_name["a.png"]].objects
    assert first is not None
    # The second box is cut at the right edge: x from 25 to 30.
    np.testing.assert_allclose(
        first.rectangles, [[4, 4, 3, 2, 0], [27.5, 16, 2.5, 1, 0]]
    )
    assert first.labels.tolist() == [1, 0]
    assert first.ignored.tolist() == [False, False]
    crowd = source[by_name["b.png"]].objects
    assert crowd is not None
    np.testing.assert_allclose(crowd.rectangles, [[15.25, 10, 14.75, 10, 0]])
    assert crowd.labels.tolist() == [2]
    assert crowd.ignored.tolist() == [True]
    empty = source[by_name["empty.png"]].objects
    assert empty is not None
    assert len(empty) == 0


def test_a_split_is_named_where_two_may_be_meant(tmp_path):
    write(tmp_path, "annotations/instances_train2014.json", "train2014")
    name = write(tmp_path, "annotations/instances_train2017.json", "train2017")
    with pytest.raises(ValueError, match=r"2 files .* as in train2014\."):
        opened_objects(name, "train")
    source = opened_objects(name, "train2017")
    assert all(path.startswith("train2017/") for path in source.paths)
    with pytest.raises(NoSplitError, match=r"expected annotations/instances_test\*"):
        opened_objects(name, "test")
    write(tmp_path, "annotations/instances_val2017.json", "val2017")
    assert opened_objects(name, "test").paths[0].startswith("val2017/")


def test_images_are_held_out(tmp_path):
    name = write(tmp_path)
    stay = opened_objects(name, "train", validation=0.3)
    held = opened_objects(name, HELD_OUT, validation=0.3)
    assert len(stay) == 2
    assert sorted([*stay.paths, *held.paths]) == [
        "images/a.png",
        "images/b.png",
        "images/empty.png",
    ]


def annotation(**fields):
    return lambda values: values["annotations"][2].update(fields)


OF_AN_IMAGE = {
    "category": (
        annotation(category_id=4),
        "category_id 4, and the ids .* are 3, 17, 90",
    ),
    "zero": (annotation(bbox=[1, 2, 0, 4]), "positive width and height, got 0 and 4"),
    "negative": (
        annotation(bbox=[1, 2, 3, -4]),
        "positive width and height, got 3 and",
    ),
    "outside": (
        annotation(bbox=[31, 2, 3, 4]),
        r"lies outside of its image of 30 x 20",
    ),
    "beyond the left": (annotation(bbox=[-9, 2, 3, 4]), "lies outside of its image"),
    "corners": (annotation(bbox=[1, 2]), r"must be 4 numbers \[x, y, width, height\]"),
}


@pytest.mark.parametrize(("change", "said"), OF_AN_IMAGE.values(), ids=OF_AN_IMAGE)
def test_a_wrong_annotation_is_named_and_its_image_can_be_passed_over(
    tmp_path, change, said
):
    name = write(tmp_path, change=change)
    with pytest.raises(ValueError, match=said) as raised:
        opened_objects(name, "train")
    assert "annotations[2] (images/a.png) of " in str(raised.value)
    source = opened_objects(name, "train", on_bad_image="skip")
    with pytest.raises(UnreadableImageError, match=said):
        source[source.paths.index("images/a.png")]
    assert len(source[source.paths.index("images/b.png")].objects or ()) == 1


OF_THE_FILE = {
    "no annotations": (lambda v: v.pop("annotations"), "no field 'annotations'"),
    "no box": (
        lambda v: v["annotations"][0].pop("bbox"),
        r"annotations\[0\] .* 'bbox'",
    ),
    "of no image": (
        annotation(image_id=6),
        r"annotations\[2\] .* of the image 6, which",
    ),
    "an id twice": (lambda v: v["images"][1].update(id=700), "id 700 of an earlier"),
    "a category twice": (
        lambda v: v["categories"][1].update(id=90),
        "id 90 of an earlier",
    ),
    "a name twice": (
        lambda v: v["categories"][1].update(name="cat"),
        "the category 'cat' twice",
    ),
    "a file twice": (
        lambda v: v["images"][1].update(file_name="b.png"),
        "lists the image images/b.png twice",
    ),
    "no name": (lambda v: v["images"][0].pop("file_name"), "no field 'file_name'"),
    "no images": (
        lambda v: (v["images"].clear(), v["annotations"].clear()),
        "no image;",
    ),
    "no category": (
        lambda v: (v["categories"].clear(), v["annotations"].clear()),
        "names no category",
    ),
}


@pytest.mark.parametrize(("change", "said"), OF_THE_FILE.values(), ids=OF_THE_FILE)
def test_a_wrong_file_is_one_sentence(tmp_path, change, said):
    name = write(tmp_path, change=change)
    with pytest.raises(ValueError, match=said) as raised:
        opened_objects(name, "train", on_bad_image="skip")
    assert "\n" not in str(raised.value)


def test_missing_images_are_looked_for_where_they_should_be(tmp_path):
    name = write(tmp_path, folder="elsewhere")
    with pytest.raises(ValueError, match=re.escape(f"3 of the 3 images in {tmp_path}")):
        opened_objects(name, "train")
