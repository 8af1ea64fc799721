"""A mask and a box belong to one image, or are refused by the two they might fit."""

import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.train.data.sources.test_folder import (
    make_tree,
    open_folder,
    paths_of,
    rectangle_of,
    save,
)
from tests.train.data.sources.test_layouts import sentences_anew  # noqa: F401
from train.data.sources import UnreadableImageError


def trimap(left=2):
    values = np.full((10, 12), 2, np.uint8)
    values[3:7, left : left + 3] = 1
    return values


def save_mask(path, values, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    (image if mode is None else image.convert(mode)).save(path)


def plain(root, classes=("a", "b"), names=("0", "1", "2", "3", "4")):
    for name in classes:
        for number in names:
            save(root / name / f"{number}.png")
    return root


def masks_of(root):
    """The left column of the object by image, of all splits."""
    found = {}
    for split in ("train", "test"):
        source = open_folder(root, split)
        for index, path in enumerate(source.paths):
            mask = source[index].mask
            if mask is not None:
                found[path] = int(np.flatnonzero(mask.any(axis=0))[0])
    return found


@pytest.mark.parametrize("tree", ["trimaps", "masks"])
@pytest.mark.parametrize(
    ("in_splits", "mask", "images"),
    [
        (False, "0", ("a/0.png", "b/0.png")),
        (True, "0", ("test/a/0.png", "test/b/0.png")),
        (True, "a/0", ("test/a/0.png", "train/a/0.png")),
        (True, "train/0", ("train/a/0.png", "train/b/0.png")),
    ],
)
def test_a_mask_that_fits_two_images_is_refused(
    tmp_path, tree, in_splits, mask, images
):
    for top in ("train", "test") if in_splits else ("",):
        plain(tmp_path / top)
    values = trimap() if tree == "trimaps" else np.uint8(255) * (trimap() == 1)
    save_mask(tmp_path / tree / f"{mask}.png", values)
    message = f"{mask}.png may be the mask of {images[0]} or of {images[1]}; call it"
    with pytest.raises(ValueError, match=message) as caught:
        open_folder(tmp_path)
    assert "\n" not in str(caught.value)


def test_one_path_without_its_ending_is_no_single_image(tmp_path):
    plain(tmp_path)
    save(tmp_path / "a" / "0.jpg")
    save_mask(tmp_path / "trimaps" / "a" / "0.png", trimap())
    with pytest.raises(ValueError, match=r"mask of a/0\.jpg or of a/0\.png"):
        open_folder(tmp_path)


def test_images_of_one_name_in_two_splits_share_no_mask(tmp_path):
    make_tree(tmp_path)
    for split in ("train", "test"):
        save(tmp_path / split / "cat" / "same.png")
    save_mask(tmp_path / "trimaps" / "same.png", trimap())
    with pytest.raises(ValueError, match=r"test/cat/same\.png or of train/cat/same"):
        open_folder(tmp_path, "test")


def test_the_most_telling_path_counts(tmp_path):
    plain(tmp_path / "train")
    plain(tmp_path / "test")
    save(tmp_path / "train" / "a" / "more" / "9.png")
    save(tmp_path / "train" / "b" / "alone.png")
    for left, name in enumerate(
        ("train/a/0", "test/a/0", "train/a/more/9", "alone"), start=1
    ):
        save_mask(tmp_path / "trimaps" / f"{name}.png", trimap(left))
    assert masks_of(tmp_path) == {
        "train/a/0.png": 1,
        "test/a/0.png": 2,
        "train/a/more/9.png": 3,
        "train/b/alone.png": 4,
    }
    save_mask(tmp_path / "trimaps" / "b" / "alone.png", trimap(5))
    assert masks_of(tmp_path)["train/b/alone.png"] == 5


def test_class_and_name_are_enough_where_there_are_no_splits(tmp_path):
    plain(tmp_path)
    for left, name in enumerate(("a/0", "b/0"), start=1):
        save_mask(tmp_path / "trimaps" / f"{name}.png", trimap(left))
    assert masks_of(tmp_path) == {"a/0.png": 1, "b/0.png": 2}


def test_accents_of_a_mask_may_be_spelled_in_the_other_way(tmp_path):
    composed, apart = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    plain(tmp_path, names=("0", "1", "2"))
    save(tmp_path / "a" / f"{composed}.png")
    save_mask(tmp_path / "masks" / f"{apart}.png", np.uint8(255) * (trimap() == 1))
    assert masks_of(tmp_path) == {f"a/{composed}.png": 2}


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "I;16"])
def test_white_is_the_object_in_masks_of_any_mode(tmp_path, mode):
    make_tree(tmp_path)
    white = trimap() == 1
    if mode == "I;16":
        save_mask(tmp_path / "masks" / "train_cat_0.png", np.uint16(65535) * white)
    else:
        save_mask(tmp_path / "masks" / "train_cat_0.png", np.uint8(255) * white, mode)
    source = open_folder(tmp_path)
    assert source.info.truth == open_folder(tmp_path, "test").info.truth == "mask"
    np.testing.assert_array_equal(source[0].mask, white)
    np.testing.assert_allclose(rectangle_of(source, 0), [3.5, 5, 1.5, 2, 0])


def test_what_is_transparent_is_not_the_object(tmp_path):
    make_tree(tmp_path)
    values = np.full((10, 12, 4), 255, np.uint8)
    values[..., 3] = 255 * (trimap() == 1)
    save_mask(tmp_path / "masks" / "train_cat_0.png", values)
    np.testing.assert_array_equal(open_folder(tmp_path)[0].mask, trimap() == 1)


@pytest.mark.parametrize("in_splits", [True, False])
def test_masks_beside_classes_are_no_class(tmp_path, in_splits):
    for top in ("train", "test") if in_splits else ("",):
        plain(tmp_path / top, names=[f"{top}{number}" for number in range(5)])
    name = "train0" if in_splits else "a/0"
    save_mask(tmp_path / "masks" / f"{name}.png", np.uint8(255) * (trimap() == 1))
    if in_splits:
        with pytest.raises(ValueError, match="may be the mask"):
            open_folder(tmp_path)
        (tmp_path / "masks" / "train0.png").rename(tmp_path / "masks" / "test0.png")
        (tmp_path / "test" / "b" / "test0.png").unlink()
    source = open_folder(tmp_path)
    assert source.info.class_names == ("a", "b")
    assert len(masks_of(tmp_path)) == 1


@pytest.mark.parametrize("tree", ["trimaps", "masks"])
@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda file: save_mask(file, trimap()[:5]), "must have the 10x12 pixels"),
        (lambda file: file.write_bytes(b"no"), "is not an image"),
        (lambda file: file.write_bytes(b""), "is empty"),
        (
            lambda file: save_mask(file, np.zeros((10, 12), np.uint8)),
            "marks no object: it must have pixels of value .*, and has 0;",
        ),
    ],
)
def test_a_mask_that_is_none_gets_one_sentence(tmp_path, tree, spoil, message):
    make_tree(tmp_path)
    good = trimap() if tree == "trimaps" else np.uint8(255) * (trimap() == 1)
    save_mask(tmp_path / tree / "train_cat_1.png", good)
    spoil(tmp_path / tree / "train_cat_0.png")
    source = open_folder(tmp_path)
    assert source[1].mask is not None
    with pytest.raises(UnreadableImageError, match=rf"cat_0\.png {message}") as caught:
        source[0]
    assert "\n" not in str(caught.value)


def test_values_of_one_are_not_white(tmp_path):
    make_tree(tmp_path)
    save_mask(tmp_path / "masks" / "train_cat_0.png", np.uint8(trimap() == 1))
    with pytest.raises(UnreadableImageError, match=r"of value 255 .*has 0, 1;"):
        open_folder(tmp_path)[0]


def test_an_image_with_two_masks_is_refused(tmp_path):
    make_tree(tmp_path)
    save_mask(tmp_path / "trimaps" / "train_cat_0.png", trimap())
    save_mask(tmp_path / "masks" / "train_cat_0.png", np.uint8(255) * trimap())
    with pytest.raises(ValueError, match=r"cat_0\.png has two masks, trimaps/.*masks/"):
        open_folder(tmp_path)


def test_masks_of_no_image_are_counted_and_refused_if_all_are(tmp_path, caplog):
    make_tree(tmp_path)
    save_mask(tmp_path / "trimaps" / "train_cat_0.png", trimap())
    save_mask(tmp_path / "trimaps" / "gone.png", trimap())
    open_folder(tmp_path)
    (message,) = caplog.messages
    assert "1 of the 2 masks" in message
    assert "trimaps/gone.png" in message
    (tmp_path / "trimaps" / "train_cat_0.png").unlink()
    with pytest.raises(ValueError, match="1 of the 1 masks"):
        open_folder(tmp_path)


def test_an_empty_tree_of_masks_is_no_truth(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "trimaps").mkdir()
    assert open_folder(tmp_path).info.truth == "none"


def test_a_box_of_two_images_that_read_alike_is_refused(tmp_path):
    plain(tmp_path)
    for form in ("NFC", "NFD"):
        save(tmp_path / "a" / f"{unicodedata.normalize(form, 'é')}.png")
    (tmp_path / "boxes.csv").write_text("path,xmin,ymin,xmax,ymax\na/1.png,1,1,3,3\n")
    assert open_folder(tmp_path).info.truth == "box"
    (tmp_path / "boxes.csv").write_text("path,xmin,ymin,xmax,ymax\na/é.png,1,1,3,3\n")
    with pytest.raises(ValueError, match="one box for two images whose paths read al"):
        open_folder(tmp_path)


def test_a_path_of_a_box_may_begin_at_the_folder(tmp_path):
    plain(tmp_path)
    (tmp_path / "boxes.csv").write_text("path,xmin,ymin,xmax,ymax\n./a/1.png,1,1,3,3\n")
    boxed = []
    for split in ("train", "test"):
        source = open_folder(tmp_path, split)
        paths = paths_of(source)
        boxed += [p for i, p in enumerate(paths) if source[i].rectangle is not None]
    assert boxed == ["a/1.png"]
