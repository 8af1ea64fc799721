"""Folders of images: every layout and every bad file, right or refused clearly."""

import io
import logging
import struct
import unicodedata
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.batches import eval_batches, train_batches
from tests.train.data.sources.opened import opened
from train.config.data import DataConfig
from train.data.pipeline import load_source
from train.data.sources import UnreadableImageError
from train.data.sources.decoding import decode_image
from train.data.sources.folders.folder import FolderSource

RED, GREEN, BLUE = (250, 10, 20), (10, 240, 30), (20, 30, 230)


def save(path, color=RED, size=(12, 10), **options):
    """A picture of one colour (width, height), its folders made on the way."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)


def make_tree(root, splits=("train", "test"), classes=("cat", "dog"), images=3):
    for split in splits:
        for label, name in enumerate(classes):
            for number in range(images):
                color = (40 * label, 10 * number, len(split))
                save(root / split / name / f"{split}_{name}_{number}.png", color)
    return root


def open_folder(root, split="train", **options):
    source = opened(f"folder:{root}", split, **options)
    assert isinstance(source, FolderSource)
    return source


def paths_of(source):
    return list(source.paths)


def rectangle_of(source, index):
    rectangle = source[index].rectangle
    assert rectangle is not None
    return rectangle


# Layouts


def test_splits_classes_and_pixels_of_a_tree_with_splits(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / ".hidden").mkdir()
    (tmp_path / "train" / "cat" / "._train_cat_0.png").write_bytes(b"junk")
    source = open_folder(tmp_path)
    assert source.info.class_names == ("cat", "dog")
    assert (source.info.num_classes, source.info.num_examples) == (2, 6)
    assert (source.info.truth, source.info.channels) == ("none", 3)
    assert source.info.image_size == (10, 12)
    example = source[4]
    assert example.label == 1
    assert example.rectangle is None
    assert example.mask is None
    assert example.image.shape == (10, 12, 3)
    np.testing.assert_array_equal(example.image[3, 3], [40, 10, 5])
    assert len(open_folder(tmp_path, "test")) == 6


@pytest.mark.parametrize("name", ["val", "valid", "validation", "testing", "Val"])
def test_the_test_split_goes_by_many_names(tmp_path, name):
    make_tree(tmp_path, ("train", name))
    assert len(open_folder(tmp_path, "test")) == 6


def test_a_split_may_be_asked_for_by_name(tmp_path):
    make_tree(tmp_path, ("train", "val", "test"))
    assert paths_of(open_folder(tmp_path, "val"))[0].startswith("val/")
    assert paths_of(open_folder(tmp_path, "test"))[0].startswith("test/")
    with pytest.raises(ValueError, match="no extra split: found test/, train/, val/"):
        open_folder(tmp_path, "extra")


def test_a_plain_tree_is_split_deterministically_and_by_class(tmp_path):
    for name, images in (("cat", 20), ("dog", 4), ("newt", 2)):
        for number in range(images):
            save(tmp_path / name / f"{number}.png")
    train, test = open_folder(tmp_path), open_folder(tmp_path, "test")
    assert set(paths_of(train)) & set(paths_of(test)) == set()
    assert np.bincount(train.labels).tolist() == [16, 3, 1]
    assert np.bincount(test.labels).tolist() == [4, 1, 1]
    before = set(paths_of(test))
    save(tmp_path / "cat" / "20.png")
    after = set(paths_of(open_folder(tmp_path, "test")))
    assert len(before - after) <= 1
    with pytest.raises(ValueError, match="plain CLASS/IMAGE tree"):
        open_folder(tmp_path, "val")


def test_fewer_examples_are_a_fixed_mixture_of_classes(tmp_path):
    make_tree(tmp_path, images=30)
    part = open_folder(tmp_path, max_examples=20)
    assert len(part) == 20
    assert 4 <= np.sum(part.labels) <= 16
    assert paths_of(part) == paths_of(open_folder(tmp_path, max_examples=20))
    assert set(paths_of(open_folder(tmp_path, max_examples=10))) <= set(paths_of(part))


def test_unicode_and_spaces_in_names(tmp_path):
    composed = unicodedata.normalize("NFC", "chat été")
    decomposed = unicodedata.normalize("NFD", "chat été")
    root = tmp_path / "my photos ü"
    save(root / "train" / composed / "image nº 1.png", GREEN)
    save(root / "train" / "犬" / "写真 1.png", BLUE)
    save(root / "test" / "犬" / "2.png")
    # The CSV may spell the accents in the other of Unicode's two ways.
    (root / "boxes.csv").write_text(
        f'path,xmin,ymin,xmax,ymax\n"train/{decomposed}/image nº 1.png",1,2,5,8\n',
        encoding="utf-8-sig",
    )
    source = open_folder(root)
    assert source.info.class_names == (composed, "犬")
    np.testing.assert_array_equal(source[0].image[0, 0], GREEN)
    np.testing.assert_allclose(rectangle_of(source, 0), [3, 5, 2, 3, 0])


def test_classes_csv_gives_names(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "classes.csv").write_text("wnid,name\ncat,house cat\n")
    assert open_folder(tmp_path).info.class_names == ("house cat", "dog")


# Folders that are refused


def test_a_folder_that_is_none(tmp_path):
    with pytest.raises(ValueError, match="nowhere does not exist"):
        open_folder(tmp_path / "nowhere")
    (tmp_path / "pets.zip").write_bytes(b"")
    with pytest.raises(ValueError, match=r"pets\.zip is a file; unpack it first"):
        open_folder(tmp_path / "pets.zip")
    with pytest.raises(ValueError, match=r"at least two class folders.*found none"):
        open_folder(tmp_path)


def test_an_empty_class_is_named(tmp_path):
    make_tree(tmp_path)
    (tmp_path / "train" / "eel").mkdir()
    (tmp_path / "train" / "eel" / "readme.txt").write_text("soon")
    with pytest.raises(ValueError, match=r"train/eel has no images; add some or rem"):
        open_folder(tmp_path)
    save(tmp_path / "train" / "eel" / "images" / "0.png")
    assert open_folder(tmp_path, "test").info.num_classes == 3


def test_one_class_is_not_enough(tmp_path):
    make_tree(tmp_path / "split", classes=("cat",))
    with pytest.raises(ValueError, match=r"at least two class folders.*found cat"):
        open_folder(tmp_path / "split")
    save(tmp_path / "plain" / "cat" / "0.png")
    save(tmp_path / "plain" / "cat" / "1.png")
    with pytest.raises(ValueError, match=r"at least two class folders.*found cat"):
        open_folder(tmp_path / "plain")


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ("train", "dev", r"no dev split: found train/, expected dev/"),
        ("test", "train", r"no train split: found test/, expected train/ or training/"),
        ("test", "test", r"no train split"),
    ],
)
def test_a_missing_split_is_named(tmp_path, there, asked, message):
    make_tree(tmp_path, (there,))
    with pytest.raises(ValueError, match=message):
        open_folder(tmp_path, asked)


def test_test_classes_must_be_known_and_may_be_fewer(tmp_path):
    make_tree(tmp_path, ("train",), ("cat", "dog"))
    make_tree(tmp_path, ("test",), ("dog",))
    test = open_folder(tmp_path, "test")
    assert set(test.labels) == {1}
    make_tree(tmp_path, ("test",), ("emu",))
    with pytest.raises(ValueError, match=r"test/emu is a class that .*train does not"):
        open_folder(tmp_path, "test")


def test_an_empty_test_split_is_refused(tmp_path):
    make_tree(tmp_path, ("train",))
    (tmp_path / "test" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="test has no images in class folders"):
        open_folder(tmp_path, "test")


def test_a_plain_class_of_one_image_cannot_be_split(tmp_path):
    save(tmp_path / "cat" / "0.png")
    save(tmp_path / "dog" / "0.png")
    with pytest.raises(ValueError, match="cat has one image, and needs two"):
        open_folder(tmp_path)


# Files of all kinds


def test_grey_palette_alpha_and_cmyk_become_rgb(tmp_path):
    Image.new("L", (4, 3), 77).save(tmp_path / "grey.png")
    Image.new("1", (4, 3), 1).save(tmp_path / "bits.png")
    Image.new("LA", (4, 3), (80, 0)).save(tmp_path / "clear.png")
    Image.new("RGBA", (4, 3), (*RED, 255)).save(tmp_path / "opaque.png")
    Image.new("RGB", (4, 3), BLUE).convert("P").save(tmp_path / "palette.png")
    Image.new("RGB", (4, 3), GREEN).convert("CMYK").save(tmp_path / "cmyk.jpg")
    expected = {
        "grey.png": (77, 77, 77),
        "bits.png": (255, 255, 255),
        "clear.png": (255, 255, 255),  # over white
        "opaque.png": RED,
        "palette.png": BLUE,
        "cmyk.jpg": GREEN,
    }
    for name, color in expected.items():
        image = decode_image(tmp_path / name)
        assert (image.shape, image.dtype) == ((3, 4, 3), np.uint8), name
        tolerance = 40 if name == "palette.png" else 4
        assert np.abs(image.astype(int) - color).max() <= tolerance, name
    assert decode_image(tmp_path / "opaque.png", channels=1).shape == (3, 4, 1)


def test_transparent_palettes_lie_over_white(tmp_path):
    image = Image.new("P", (4, 3), 0)
    image.putpalette([0, 0, 0, *RED])
    image.putpixel((1, 1), 1)
    image.save(tmp_path / "hole.png", transparency=0)
    decoded = decode_image(tmp_path / "hole.png")
    np.testing.assert_array_equal(decoded[0, 0], (255, 255, 255))
    np.testing.assert_array_equal(decoded[1, 1], RED)


@pytest.mark.parametrize("extension", ["png", "tif"])
def test_sixteen_bits_are_scaled_to_eight(tmp_path, extension):
    values = np.array([[0, 257 * 100, 65535]], np.uint16)
    Image.fromarray(values).save(tmp_path / f"deep.{extension}")
    decoded = decode_image(tmp_path / f"deep.{extension}")
    np.testing.assert_array_equal(decoded[0, :, 0], [0, 100, 255])
    assert decoded.shape == (1, 3, 3)


def test_pixels_of_unknown_range_are_refused(tmp_path):
    Image.fromarray(np.array([[0.5]], np.float32)).save(tmp_path / "real.tif")
    with pytest.raises(UnreadableImageError, match=r"real\.tif has floating-point"):
        decode_image(tmp_path / "real.tif")
    Image.fromarray(np.array([[1 << 20]], np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(UnreadableImageError, match=r"wide\.tif has 32-bit values"):
        decode_image(tmp_path / "wide.tif")


@pytest.mark.parametrize("extension", ["gif", "webp", "png"])
def test_the_first_frame_of_an_animation_counts(tmp_path, extension):
    frames = [Image.new("RGB", (6, 4), color) for color in (GREEN, RED, BLUE)]
    path = tmp_path / f"film.{extension}"
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=50)
    decoded = decode_image(path)
    assert decoded.shape == (4, 6, 3)
    assert np.abs(decoded.astype(int) - GREEN).max() <= 12


def test_photographs_are_turned_upright(tmp_path):
    image = Image.new("RGB", (6, 4), RED)
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned by a quarter
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert decode_image(tmp_path / "turned.jpg").shape == (6, 4, 3)


def huge_png(side):
    """A valid header of a side x side image, with nothing behind it."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IEND", b"")


def truncated_jpeg():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, format="JPEG")
    return file.getvalue()[: len(file.getvalue()) // 2]


BROKEN = {
    "empty.jpg": (b"", r"is empty \(zero bytes\)"),
    "text.jpg": (b"this is not an image at all", "is not an image"),
    "cut.jpg": (truncated_jpeg(), "is damaged: .*truncated"),
    "vast.png": (huge_png(20_000), "has more than 178,956,970 pixels"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_gets_one_clear_sentence(tmp_path, name):
    content, message = BROKEN[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UnreadableImageError, match=f"{name} {message}") as caught:
        decode_image(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UnreadableImageError, match=r"gone\.jpg does not exist"):
        decode_image(tmp_path / "gone.jpg")


def test_a_file_object_has_the_name_it_is_given():
    with pytest.raises(UnreadableImageError, match="upload 7 is not an image"):
        decode_image(io.BytesIO(b"nothing"), name="upload 7")


# Bad images in a run


@pytest.mark.parametrize("memory_limit_mb", [0, 100])
@pytest.mark.parametrize("name", BROKEN)
def test_by_default_a_bad_image_stops_the_run_by_name(tmp_path, name, memory_limit_mb):
    make_tree(tmp_path)
    (tmp_path / "train" / "dog" / name).write_bytes(BROKEN[name][0])
    config = DataConfig(
        f"folder:{tmp_path}", image_size=8, memory_limit_mb=memory_limit_mb
    )
    with pytest.raises(UnreadableImageError, match=name):
        next(train_batches(load_source(config, "train"), config, 7, seed=0))


@pytest.mark.parametrize("memory_limit_mb", [0, 100])
def test_bad_images_can_be_skipped_named_and_counted(tmp_path, memory_limit_mb, caplog):
    make_tree(tmp_path)
    for name, (content, _) in BROKEN.items():
        (tmp_path / "train" / "dog" / name).write_bytes(content)
    config = DataConfig(
        f"folder:{tmp_path}",
        image_size=8,
        memory_limit_mb=memory_limit_mb,
        on_bad_image="skip",
    )
    with caplog.at_level(logging.WARNING):
        source = load_source(config, "train")
        assert len(source) == 10
        iterator = train_batches(source, config, 5, seed=0)
        batches = [next(iterator) for _ in range(4)]  # two epochs
        evaluated = list(eval_batches(source, config, 4))
    iterator.close()
    for name in BROKEN:
        assert sum(name in message for message in caplog.messages) == 1, name
    weights = np.concatenate([batch["weight"] for batch in batches])
    assert (weights == 0).sum() == 2 * len(BROKEN)
    # What stands in for a bad image is an image, for the batch statistics' sake.
    assert all(batch["image"].any(axis=(1, 2, 3)).all() for batch in batches)
    assert sum(batch["weight"].sum() for batch in evaluated) == 6


@pytest.mark.parametrize("memory_limit_mb", [0, 100])
def test_a_set_without_a_readable_image_is_refused(tmp_path, memory_limit_mb):
    for name in ("train/cat/0.jpg", "train/dog/1.jpg"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_bytes(b"broken")
    config = DataConfig(
        f"folder:{tmp_path}", on_bad_image="skip", memory_limit_mb=memory_limit_mb
    )
    with pytest.raises(ValueError, match="has no readable image"):
        next(train_batches(load_source(config, "train"), config, 2, seed=0))


# boxes.csv and trimaps


def write_boxes(root, *rows, header="path,xmin,ymin,xmax,ymax"):
    (root / "boxes.csv").write_text("\n".join([header, *rows]) + "\n")


def test_boxes_are_edges_in_pixels(tmp_path):
    make_tree(tmp_path)
    write_boxes(tmp_path, "train/cat/train_cat_1.png,2,3,8,9")
    source = open_folder(tmp_path)
    assert source.info.truth == "box"
    assert source[0].rectangle is None
    np.testing.assert_allclose(rectangle_of(source, 1), [5, 6, 3, 3, 0])
    inclusive = open_folder(tmp_path, box_max_inside=True)
    np.testing.assert_allclose(rectangle_of(inclusive, 1), [5.5, 6.5, 3.5, 3.5, 0])


def test_another_file_of_boxes_may_be_named(tmp_path):
    make_tree(tmp_path)
    write_boxes(tmp_path, "train/cat/train_cat_1.png,2,3,8,9")
    (tmp_path / "boxes.csv").rename(tmp_path / "heads.csv")
    assert open_folder(tmp_path).info.truth == "none"
    assert open_folder(tmp_path, boxes_file="heads.csv")[1].rectangle is not None


def test_a_box_partly_outside_is_cut_off(tmp_path):
    make_tree(tmp_path)
    write_boxes(tmp_path, "train/cat/train_cat_0.png,-4,2,20,30")
    np.testing.assert_allclose(rectangle_of(open_folder(tmp_path), 0), [6, 6, 6, 4, 0])


def test_a_box_outside_its_image_is_named(tmp_path):
    make_tree(tmp_path)
    write_boxes(tmp_path, "train/cat/train_cat_0.png,20,2,30,8")
    with pytest.raises(
        UnreadableImageError,
        match=r"train_cat_0\.png has 12x10 pixels, and its box \(20, 2, 30, 8\) in",
    ):
        open_folder(tmp_path)[0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["train/cat/nope.png,1,1,2,2"], "1 of the 1 paths .*first 'train/cat/nope"),
        (["train/cat/train_cat_0.png,5,1,2,2"], "line 2 must have xmin < xmax"),
        (["train/cat/train_cat_0.png,1,1,nan,2"], "line 2 must have xmin < xmax"),
        (["train/cat/train_cat_0.png,1,1,two,2"], "line 2 must hold four numbers"),
        (["train/cat/train_cat_0.png,1,1"], "line 2 must hold four numbers"),
        (
            ["train/cat/train_cat_0.png,1,1,2,2", "train/cat/train_cat_0.png,1,1,3,3"],
            "line 3 gives 'train/cat/train_cat_0.png' a second box",
        ),
    ],
)
def test_a_wrong_line_of_boxes_is_named(tmp_path, rows, message):
    make_tree(tmp_path)
    write_boxes(tmp_path, *rows)
    with pytest.raises(ValueError, match=message):
        open_folder(tmp_path)


def test_boxes_of_unknown_images_are_passed_over_if_asked_for(tmp_path, caplog):
    make_tree(tmp_path)
    write_boxes(
        tmp_path, "train/cat/gone.png,1,1,2,2", "train/cat/train_cat_0.png,2,2,8,8"
    )
    with pytest.raises(ValueError, match=r"1 of the 2 paths .*on-bad-image skip"):
        open_folder(tmp_path)
    with caplog.at_level(logging.WARNING):
        source = open_folder(tmp_path, on_bad_image="skip")
        open_folder(tmp_path, "test", on_bad_image="skip")
    assert source.boxes.keys() == {"train/cat/train_cat_0.png"}
    np.testing.assert_allclose(rectangle_of(source, 0), [5, 5, 3, 3, 0])
    (message,) = caplog.messages
    assert "'train/cat/gone.png'" in message


def test_boxes_of_another_folder_are_never_passed_over(tmp_path):
    make_tree(tmp_path)
    write_boxes(tmp_path, "elsewhere/a.png,1,1,2,2", "elsewhere/b.png,1,1,2,2")
    with pytest.raises(ValueError, match="2 of the 2 paths"):
        open_folder(tmp_path, on_bad_image="skip")


def test_boxes_need_a_header_and_text(tmp_path):
    make_tree(tmp_path)
    write_boxes(tmp_path, header="file,x,y,w,h")
    with pytest.raises(ValueError, match="header path,xmin,ymin,xmax,ymax, got file,x"):
        open_folder(tmp_path)
    (tmp_path / "boxes.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        open_folder(tmp_path)


def test_trimaps_are_masks_and_their_boxes(tmp_path):
    make_tree(tmp_path)
    trimap = np.full((10, 12), 2, np.uint8)
    trimap[3:7, 4:9] = 3
    trimap[4:6, 5:8] = 1
    (tmp_path / "trimaps").mkdir()
    Image.fromarray(trimap).save(tmp_path / "trimaps" / "train_cat_0.png")
    Image.fromarray(trimap[:5]).save(tmp_path / "trimaps" / "train_cat_2.png")
    source = open_folder(tmp_path)
    assert source.info.truth == "mask"
    np.testing.assert_array_equal(source[0].mask, trimap == 1)
    np.testing.assert_allclose(rectangle_of(source, 0), [6.5, 5, 1.5, 1, 0])
    assert source[1].mask is None
    with pytest.raises(UnreadableImageError, match=r"cat_2\.png must have the 10x12"):
        source[2]


def test_truth_moves_with_the_image_into_the_batch(tmp_path):
    make_tree(tmp_path, images=1)
    trimap = np.full((10, 12), 2, np.uint8)
    trimap[2:8, 1:7] = 1
    (tmp_path / "trimaps").mkdir()
    Image.fromarray(trimap).save(tmp_path / "trimaps" / "test_cat_0.png")
    config = DataConfig(f"folder:{tmp_path}", image_size=20)
    (batch,) = eval_batches(load_source(config, "eval"), config, 2)
    # The central 10x10 pixels, twice enlarged: columns 1 to 11 of the image.
    np.testing.assert_allclose(batch["rectangle"][0], [-0.4, 0, 0.6, 0.6, 0], atol=1e-6)
    np.testing.assert_array_equal(batch["rectangle_weight"], [1, 0])
    expected = np.zeros((20, 20))
    expected[4:16, 0:12] = 1
    np.testing.assert_array_equal(batch["object_mask"][0], expected)
    assert not batch["object_mask"][1].any()


# Names


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "digit",
            "one of digits, .*tfds:NAME.*got 'digit'. Did you mean 'digits'",
        ),
        ("foldr:/x", "Did you mean 'folder:/x'"),
        ("tfds:", "got 'tfds:'"),
        ("folder:", "got 'folder:'"),
        ("", "got ''"),
    ],
)
def test_unknown_names_are_refused_with_a_suggestion(name, message):
    with pytest.raises(ValueError, match=message):
        opened(name, "train")


def test_a_bare_path_is_recognised(tmp_path):
    with pytest.raises(ValueError, match=f"Did you mean 'folder:{tmp_path}'"):
        opened(str(tmp_path), "train")
