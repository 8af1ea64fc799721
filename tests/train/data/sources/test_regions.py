"""Which region each pixel is of: trimaps, white masks, named values, digits."""

import numpy as np
import pytest
from PIL import Image

from tests.train.data.sources.test_folder import make_tree, open_folder, save
from tests.train.data.sources.test_masks import save_mask, trimap
from train.config.data import DataConfig
from train.data.sources import UnreadableImageError
from train.data.sources.base import IGNORED
from train.data.sources.digits.cluttered import make_clean_digit, make_sample
from train.data.sources.regions import named_regions, trimap_regions
from train.data.sources.tfds.layouts import layout_of


def tree(root, masks, folder="masks", mode=None):
    """One training image of a cat for each mask, "0", "1", ..."""
    make_tree(root, images=1)
    for number, values in enumerate(masks):
        save(root / "train" / "cat" / f"{number}.png")
        if values is not None:
            save_mask(root / folder / f"{number}.png", values, mode)
    return root


def example(source, name):
    return source[[path.rpartition("/")[2] for path in source.paths].index(name)]


def test_a_trimaps_border_is_ignored_and_white_is_the_object(tmp_path):
    values = trimap()
    values[2, :] = 3
    source = open_folder(tree(tmp_path / "a", [values], "trimaps"))
    assert source.info.regions == ("background", "object")
    found = example(source, "0.png")
    expected = np.select([values == 1, values == 2], [1, 0], IGNORED)
    assert found.regions is not None
    assert found.regions.dtype == np.uint8
    np.testing.assert_array_equal(found.regions, expected)
    np.testing.assert_array_equal(found.mask, values == 1)

    white = np.uint8(255) * (trimap() == 1)
    found = example(open_folder(tree(tmp_path / "b", [white])), "0.png")
    np.testing.assert_array_equal(found.regions, white > 0)


def test_a_tree_of_another_name_is_named_in_the_config(tmp_path):
    white = np.uint8(255) * (trimap() == 1)
    root = tree(tmp_path, [white], "outlines")
    source = open_folder(root, masks="outlines")
    assert source.info.class_names == ("cat", "dog")
    np.testing.assert_array_equal(example(source, "0.png").regions, white > 0)
    with pytest.raises(ValueError, match=r"no folder 'lines' of .* it has outlines,"):
        open_folder(root, masks="lines")


@pytest.mark.parametrize("mode", ["L", "P"])
def test_named_values_are_regions_whatever_the_colours_of_the_file(tmp_path, mode):
    values = np.zeros((10, 12), np.uint8)
    values[2:5, 3:6], values[5:7], values[0, 0] = 1, 2, 255
    root = tree(tmp_path, [])
    save(root / "train" / "cat" / "0.png")
    image = Image.fromarray(values)
    if mode == "P":
        image.putpalette(list(range(255, -1, -1)) * 3)
    (root / "masks").mkdir()
    image.save(root / "masks" / "0.png")
    names = ("ground", "road", "car")
    source = open_folder(root, regions=names)
    assert source.info.regions == names
    found = example(source, "0.png")
    np.testing.assert_array_equal(found.regions, values)
    np.testing.assert_array_equal(found.mask, (values == 1) | (values == 2))


def test_what_is_wrong_with_a_mask_is_one_sentence_and_the_image_is_still_one(tmp_path):
    wrong = trimap()
    wrong[0, 0] = 7
    source = open_folder(tree(tmp_path / "a", [wrong, trimap(), None], "trimaps"))
    odd, missing = example(source, "0.png"), example(source, "2.png")
    assert odd.regions is None
    assert odd.mask is not None
    assert odd.no_regions == (
        f"{tmp_path}/a/trimaps/0.png has the value 7, but a trimap holds 1 (object),"
        " 2 (background) and 3 (ignored border); correct it."
    )
    assert missing.no_regions.startswith(f"{tmp_path}/a/train/cat/2.png has no mask;")
    assert example(source, "1.png").no_regions == ""

    root = tree(tmp_path / "b", [np.full((10, 12), 9, np.uint8)])
    named = example(open_folder(root, regions=("ground", "road")), "0.png")
    assert named.regions is None
    assert "has the value 9, but data.regions names 0 to 1 (ground, road)" in (
        named.no_regions
    )
    root = tree(tmp_path / "c", [np.zeros((4, 5), np.uint8)])
    with pytest.raises(
        UnreadableImageError, match=r"must have the 10x12 pixels of its"
    ):
        example(open_folder(root, regions=("ground", "road")), "0.png")


def test_values_beyond_a_byte_are_told_as_they_are():
    values = np.array([[1, 2], [300, 3]], np.int32)
    assert "has the value 300," in trimap_regions(values, "x.png")[1]
    assert (
        "has the value 3," in named_regions(values % 299, ("a", "b", "c"), "x.png")[1]
    )


@pytest.mark.parametrize("names", [("one",), ("a", "a")])
def test_regions_have_two_names_or_more(names):
    with pytest.raises(ValueError, match="two different names or more"):
        DataConfig(regions=names)


def test_the_mask_of_a_digit_is_the_ink_of_the_whole_digit():
    for case in (("train", 3), ("test", 1234)):
        mask, ink = make_sample(*case).mask, make_clean_digit(*case)
        np.testing.assert_array_equal(mask, ink >= 0.25)
        assert 20 < mask.sum() < 600


def test_sets_of_tfds_that_nobody_knows_have_named_regions_only():
    features = {"image", "label", "segmentation_mask"}
    assert layout_of("unheard", features, named=False).mask is None
    layout = layout_of("unheard", features, named=True)
    assert layout.mask == "segmentation_mask"
    assert layout.is_object is not None
    assert layout.is_object(np.array([0, 1, 9, 255])).tolist() == [0, 1, 1, 0]
    assert layout_of("oxford_iiit_pet", features, named=False).is_trimap
