"""Which folders are splits and classes, which files are read, what is held out."""

import logging
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from tests.train.data.sources.test_folder import make_tree, open_folder, paths_of, save
from train.data.sources import NoSplitError, memory
from train.data.sources.decoding import decode_image, image_endings
from train.data.sources.holding_out import HELD_OUT, hold_out


@pytest.fixture(autouse=True)
def sentences_anew():
    """A sentence is logged once per process; here, once per test."""
    memory._log_once.cache_clear()


def save_classes(root, classes, images=5):
    for label, name in enumerate(classes):
        for number in range(images):
            save(root / name / f"{number}.png", (40 * label, 10 * number, 0))
    return root


def used(root):
    """Images of train and test together, none of them in both."""
    train, test = (paths_of(open_folder(root, split)) for split in ("train", "test"))
    assert not set(train) & set(test)
    return sorted(train + test)


# Splits and classes


@pytest.mark.parametrize(
    "classes",
    [
        ("bus", "car", "train"),
        ("invalid", "valid"),
        ("control", "test"),
        ("Testing", "Training"),
        ("test", "train"),
        ("a", "val", "validation"),
        ("masks", "no masks"),
    ],
)
def test_a_folder_of_images_is_a_class_whatever_its_name(tmp_path, classes):
    save_classes(tmp_path, classes)
    assert open_folder(tmp_path).info.class_names == classes
    assert open_folder(tmp_path).info.truth == "none"
    assert np.bincount(open_folder(tmp_path).labels).tolist() == [4] * len(classes)
    assert np.bincount(open_folder(tmp_path, "test").labels).tolist() == [1] * len(
        classes
    )


def test_a_class_called_train_may_have_deeper_folders_too(tmp_path):
    save_classes(tmp_path, ("bus", "train"))
    save(tmp_path / "train" / "more" / "0.png")
    assert open_folder(tmp_path).info.class_names == ("bus", "train")
    assert len(used(tmp_path)) == 11


@pytest.mark.parametrize("name", ["train", "test", "val"])
def test_a_split_may_have_a_class_called_as_a_split(tmp_path, name):
    make_tree(tmp_path, classes=("bus", name))
    assert set(open_folder(tmp_path).info.class_names) == {"bus", name}
    assert len(open_folder(tmp_path, "test")) == 6


def test_a_stray_image_makes_no_class_of_a_split_and_is_named(tmp_path, caplog):
    make_tree(tmp_path)
    save(tmp_path / "train" / "stray.png")
    save(tmp_path / "cover.png")
    assert open_folder(tmp_path).info.class_names == ("cat", "dog")
    (message,) = caplog.messages
    assert "2 of the 14 images" in message
    assert "cover.png" in message


def test_a_test_folder_without_classes_gets_a_hint(tmp_path):
    make_tree(tmp_path, ("train",))
    for number in range(4):
        save(tmp_path / "test" / f"{number}.png")
    assert len(open_folder(tmp_path)) == 6  # nothing is held out behind one's back
    with pytest.raises(NoSplitError, match=r"test holds 4 images without class fold"):
        open_folder(tmp_path, "test")


def test_the_only_split_is_divided_as_a_folder_of_classes_is(tmp_path, caplog):
    split, plain = tmp_path / "split", tmp_path / "plain"
    make_tree(split, ("train",), images=10)
    make_tree(plain / "x", ("train",), images=10)
    (plain / "x" / "train").rename(plain / "train2")
    train, test = open_folder(split), open_folder(split, "test")
    assert set(paths_of(train)).isdisjoint(paths_of(test))
    assert np.bincount(train.labels).tolist() == [8, 8]
    assert np.bincount(test.labels).tolist() == [2, 2]
    (message,) = caplog.messages
    assert "has no test/" in message
    with pytest.raises(NoSplitError, match="no val split: found train/"):
        open_folder(split, "val")


def test_other_splits_are_named_rather_than_dividing_the_training_images(tmp_path):
    make_tree(tmp_path, ("train", "dev"))
    assert len(open_folder(tmp_path)) == 6
    with pytest.raises(NoSplitError, match="no test split: found dev/, train/"):
        open_folder(tmp_path, "test")
    assert len(open_folder(tmp_path, "dev")) == 6


def test_any_split_may_be_the_one_to_train_on(tmp_path):
    make_tree(tmp_path, ("small", "train", "test"), images=10)
    source = open_folder(tmp_path, "small", train_split="small", validation=0.2)
    assert {path.split("/")[0] for path in source.paths} == {"small"}
    assert len(source) == 16
    assert len(open_folder(tmp_path, "train", train_split="small")) == 20


def test_splits_inside_of_classes_are_not_mixed(tmp_path):
    for split in ("train", "test"):
        make_tree(tmp_path / "a", (split,), ("x",))
    for name in ("cat", "dog"):
        for split in ("train", "test"):
            save(tmp_path / "b" / name / split / "0.png")
    with pytest.raises(ValueError, match=r"cat holds the folders test, train.*SPLIT/C"):
        open_folder(tmp_path / "b")


def test_a_folder_round_the_set_is_seen(tmp_path):
    make_tree(tmp_path / "pets")
    with pytest.raises(ValueError, match=rf"Did you mean folder:{tmp_path}/pets\?"):
        open_folder(tmp_path)


# Files


def test_every_ending_that_pillow_reads_is_read(tmp_path):
    for name in ("cat", "dog"):
        for ending, kind in {
            "jpg": "JPEG", "jfif": "JPEG", "jpe": "JPEG", "JPEG": "JPEG", "png": "PNG",
            "apng": "PNG", "avif": "AVIF", "webp": "WEBP", "tif": "TIFF", "gif": "GIF",
            "bmp": "BMP", "dib": "DIB", "jp2": "JPEG2000", "tga": "TGA", "ppm": "PPM",
            "pbm": "PPM", "mpo": "MPO", "qoi": "QOI",
        }.items():  # fmt: skip
            file = tmp_path / name / f"image_{ending}.{ending}"
            save(file, (9, 9, 9), format=kind)
    assert len(used(tmp_path)) == 36
    for split in ("train", "test"):
        source = open_folder(tmp_path, split)
        for index in range(len(source)):
            assert source[index].image.shape == (10, 12, 3), source.paths[index]


def test_documents_and_films_are_no_images(tmp_path):
    assert not image_endings() & {".pdf", ".eps", ".ps", ".mpg", ".h5", ".wmf", ".txt"}


def test_deeper_folders_are_read_and_other_files_counted(tmp_path, caplog):
    make_tree(tmp_path)
    cat = tmp_path / "train" / "cat"
    save(cat / "2019" / "june" / "0.png", (1, 2, 3))
    for name in ("a.heic", "b.HEIC", "notes.txt", "noending"):
        (cat / name).write_bytes(b"?")
    for junk in (".DS_Store", "._x.png", "Thumbs.db", "desktop.ini"):
        (cat / junk).write_bytes(b"?")
    save(cat / "__MACOSX" / "0.png")
    save(cat / ".hidden" / "0.png")
    with caplog.at_level(logging.WARNING):
        source = open_folder(tmp_path)
        open_folder(tmp_path, "test")
    assert len(source) == 7
    index = paths_of(source).index("train/cat/2019/june/0.png")
    np.testing.assert_array_equal(source[index].image[0, 0], (1, 2, 3))
    (message,) = caplog.messages
    assert message.startswith("Skipped: 4 files in the class folders")
    assert "(none, .heic, .txt)" in message


@pytest.mark.parametrize("target", [".", "..", "../..", "../../..", "../dog", "more"])
def test_links_are_followed_and_loops_end(tmp_path, target, caplog):
    root = make_tree(tmp_path / "root")
    (root / "train" / "cat" / "more").mkdir()
    save(root / "train" / "cat" / "more" / "0.png")
    (root / "train" / "cat" / "loop").symlink_to(target)
    source = open_folder(root)
    assert source.info.class_names == ("cat", "dog")
    assert np.bincount(source.labels).tolist() == [4, 3]
    (message,) = caplog.messages
    assert "1 links" in message
    assert "loop" in message or "more" in message


def test_links_to_classes_images_and_splits_elsewhere_are_followed(tmp_path):
    store = make_tree(tmp_path / "store")
    root = tmp_path / "root"
    (root / "test").mkdir(parents=True)
    (root / "train").symlink_to(store / "train")
    (root / "test" / "cat").symlink_to(store / "test" / "cat")
    (root / "test" / "dog").mkdir()
    (root / "test" / "dog" / "0.png").symlink_to(store / "test/dog/test_dog_0.png")
    (root / "self").symlink_to("self")
    assert len(open_folder(root)) == 6
    assert np.bincount(open_folder(root, "test").labels).tolist() == [3, 1]


# Names of classes


@pytest.mark.parametrize("name", ["猫", "кошка", "قطة", "chat été", "a b'c", "🐈"])
def test_classes_of_any_script(tmp_path, name):
    make_tree(tmp_path, classes=("dog", name))
    assert set(open_folder(tmp_path).info.class_names) == {"dog", name}


def test_one_name_in_two_spellings_is_one_class(tmp_path):
    composed, apart = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))
    make_tree(tmp_path, ("train",), ("cat", composed))
    make_tree(tmp_path, ("test",), ("cat", apart))
    train, test = open_folder(tmp_path), open_folder(tmp_path, "test")
    assert train.info.class_names == test.info.class_names == ("cat", composed)
    assert set(test.labels) == {0, 1}
    save(tmp_path / "train" / apart / "0.png")
    with pytest.raises(ValueError, match="twice, with accents spelled in two ways"):
        open_folder(tmp_path)


def test_a_class_that_differs_in_case_is_another_with_a_hint(tmp_path):
    make_tree(tmp_path, ("train",), ("A", "a", "Cat"))
    make_tree(tmp_path, ("test",), ("A", "a", "cat"))
    assert open_folder(tmp_path).info.class_names == ("A", "Cat", "a")
    with pytest.raises(ValueError, match=r"test/cat is a class that.*mean 'Cat'"):
        open_folder(tmp_path, "test")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("cat,crane\ndog,crane\n", "cat and dog with one name, 'crane'"),
        ("cat,dog\n", "cat and dog with one name, 'dog'"),
        ("cat,tom\ncat,kitty\n", "gives 'cat' two names, 'tom' and 'kitty'"),
    ],
)
def test_classes_csv_gives_each_class_a_name_of_its_own(tmp_path, lines, message):
    make_tree(tmp_path)
    (tmp_path / "classes.csv").write_text(lines)
    with pytest.raises(ValueError, match=message):
        open_folder(tmp_path)


def test_a_classes_csv_that_is_none_is_named(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "classes.csv").write_bytes(b"cat,\xff\xfe")
    with pytest.raises(ValueError, match=r"classes\.csv must be a CSV of UTF-8"):
        open_folder(tmp_path)
    (tmp_path / "classes.csv").write_text("cat,\n")
    assert open_folder(tmp_path).info.class_names == ("cat", "dog")


def test_a_folder_whose_name_is_no_text_is_named(tmp_path):
    make_tree(tmp_path)
    os.rename(tmp_path / "train" / "dog", os.fsencode(tmp_path / "train") + b"/d\xff")
    with pytest.raises(ValueError, match="not UTF-8; rename it"):
        open_folder(tmp_path)


def test_a_file_whose_name_is_no_text_is_read(tmp_path):
    save_classes(tmp_path, ("cat", "dog"))
    os.rename(tmp_path / "cat" / "0.png", os.fsencode(tmp_path / "cat") + b"/\xff.png")
    assert len(used(tmp_path)) == 10


# Held-out training images


def test_each_class_gives_its_share_and_keeps_an_image():
    labels = [0] * 20 + [1] * 4 + [2] * 2 + [3]
    names = [f"image {number}" for number in range(len(labels))]
    stay, held = hold_out(names, labels, 0.2)
    assert sorted([*stay, *held]) == list(range(27))
    assert np.bincount(np.array(labels)[held], minlength=4).tolist() == [4, 1, 1, 0]
    with pytest.raises(ValueError, match="no class has two"):
        hold_out(["a", "b"], [0, 1], 0.5)


def test_the_choice_follows_the_names_not_their_order():
    names = [f"image {number}" for number in range(50)]
    _, held = hold_out(names, [0] * 50, 0.3)
    _, again = hold_out(names[::-1], [0] * 50, 0.3)
    assert {names[i] for i in held} == {names[::-1][i] for i in again}


@pytest.mark.parametrize("splits", [("train", "test"), ("train",), None])
@pytest.mark.parametrize("share", [0.1, 0.25, 0.9])
def test_held_out_images_are_neither_trained_nor_tested_on(tmp_path, splits, share):
    if splits:
        make_tree(tmp_path, splits, images=10)
    else:
        save_classes(tmp_path, ("cat", "dog"), images=10)
    whole = set(paths_of(open_folder(tmp_path)))
    train = open_folder(tmp_path, validation=share)
    held = open_folder(tmp_path, HELD_OUT, validation=share)
    test = paths_of(open_folder(tmp_path, "test", validation=share))
    assert set(paths_of(train)) | set(paths_of(held)) == whole
    assert set(paths_of(train)).isdisjoint(paths_of(held))
    assert set(test).isdisjoint(whole)
    assert test == paths_of(open_folder(tmp_path, "test"))
    assert held.info.split == "validation"
    assert min(np.bincount(train.labels)) >= 1
    assert len(held) == pytest.approx(share * len(whole), abs=2)
    few = open_folder(tmp_path, validation=share, max_examples=2)
    assert set(paths_of(few)) < set(paths_of(train)) or len(train) == 2
    assert held.info.class_names == train.info.class_names


def test_a_split_called_validation_is_not_what_is_held_out(tmp_path):
    make_tree(tmp_path, ("train", "validation"), images=10)
    own = open_folder(tmp_path, "validation", validation=0.2)
    assert {path.split("/")[0] for path in own.paths} == {"validation"}
    assert len(own) == 20
    training = open_folder(tmp_path, "train", validation=0.2)
    assert len(training) == 16


def test_the_training_folders_own_name_holds_out_too(tmp_path):
    make_tree(tmp_path, ("training", "test"), images=10)
    for name in ("train", "training"):
        assert len(open_folder(tmp_path, name, validation=0.2)) == 16


def test_decoding_is_the_same_by_any_name(tmp_path):
    save(tmp_path / "a.jpg", (90, 20, 30))
    (tmp_path / "a.jfif").write_bytes((tmp_path / "a.jpg").read_bytes())
    np.testing.assert_array_equal(
        decode_image(tmp_path / "a.jpg"), decode_image(tmp_path / "a.jfif")
    )
    with Image.open(tmp_path / "a.jfif") as image:
        assert image.format == "JPEG"
