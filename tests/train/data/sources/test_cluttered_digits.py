"""The embedded data set: its images, its truth, its files."""

import subprocess
import sys

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.train.data.sources.opened import opened
from train.data.sources import default_data_dir
from train.data.sources.digits import cluttered
from train.data.sources.digits.cluttered import (
    SIDE,
    make_clean_digit,
    make_sample,
)
from train.data.sources.digits.ink import split_digits
from train.errors import UserError

CASES = [("train", index) for index in range(60)] + [
    ("test", index) for index in range(60)
]
PIXEL = 2 / SIDE


@pytest.fixture
def small(monkeypatch):
    """The set with 12 and 5 images, so that preparing takes no time."""
    monkeypatch.setattr(cluttered, "SPLIT_SIZES", {"train": 12, "test": 5})


def own_frame(rectangle):
    """Pixel centres [48, 48] in the rectangle's frame, written out independently."""
    center_x, center_y, _, _, angle = rectangle.astype(np.float64)
    ticks = (np.arange(SIDE) + 0.5) * PIXEL - 1
    x, y = np.meshgrid(ticks, ticks)
    turned = np.exp(-1j * angle) * (x - center_x + 1j * (y - center_y))
    return turned.real, turned.imag


def test_train_and_test_digits_are_apart_and_stratified():
    train, test = split_digits("train"), split_digits("test")
    assert sorted([*train, *test]) == list(range(1797))
    _, target = load_digits(return_X_y=True)
    share = np.bincount(target[test]) / np.bincount(target)
    assert np.all(np.abs(share - 0.25) < 0.01)


@pytest.mark.parametrize(("split", "index"), CASES[::10])
def test_an_image_depends_on_nothing_but_split_and_index(split, index):
    first = make_sample(split, index)
    make_sample(split, index + 1)
    again = make_sample(split, index)
    assert first.image.dtype == np.uint8
    assert first.image.shape == (SIDE, SIDE)
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.rectangle, again.rectangle)
    other = make_sample("test" if split == "train" else "train", index)
    assert (first.image != other.image).any()


def test_ink_lies_inside_the_rectangle_and_touches_its_sides():
    for split, index in CASES:
        ink = make_clean_digit(split, index) >= 0.25
        rectangle = make_sample(split, index).rectangle
        u, v = own_frame(rectangle)
        for along, half in ((u, rectangle[2]), (v, rectangle[3])):
            # Bilinear sampling of the upsampled ink is exact to a sixteenth of a
            # source pixel, which is at most 0.25 pixels here.
            assert np.abs(along[ink]).max() <= half + 0.3 * PIXEL, (split, index)
            assert along[ink].max() >= half - 1.2 * PIXEL, (split, index)
            assert along[ink].min() <= -half + 1.2 * PIXEL, (split, index)


def test_the_whole_rectangle_is_on_the_canvas_at_angles_within_45_degrees():
    rectangles = np.stack([make_sample(*case).rectangle for case in CASES])
    x, y, w, h, angle = rectangles.T
    reach_x = w * np.cos(angle) + h * np.abs(np.sin(angle))
    reach_y = w * np.abs(np.sin(angle)) + h * np.cos(angle)
    assert (np.abs(x) + reach_x <= 1 + 1e-5).all()
    assert (np.abs(y) + reach_y <= 1 + 1e-5).all()
    assert (np.abs(angle) <= np.pi / 4).all()
    assert angle.min() < -0.5
    assert angle.max() > 0.5
    heights = 2 * h / PIXEL
    assert heights.min() >= 14 - 1e-3
    assert heights.max() <= 26 + 1e-3


def test_a_positive_angle_is_clockwise_on_screen():
    # Of a tall digit turned clockwise, the ink above the centre leans to the right.
    leaning = []
    for split, index in CASES:
        rectangle = make_sample(split, index).rectangle
        if abs(rectangle[4]) < 0.4 or rectangle[3] < 1.5 * rectangle[2]:
            continue
        ink = make_clean_digit(split, index)
        ticks = (np.arange(SIDE) + 0.5) * PIXEL - 1
        x, y = ticks[None] - rectangle[0], ticks[:, None] - rectangle[1]
        leaning.append(np.sign(-(ink * x * y).sum()) == np.sign(rectangle[4]))
    assert len(leaning) >= 10
    assert np.mean(leaning) > 0.8


def test_clutter_surrounds_the_digit_and_spares_it():
    outside, kept = [], []
    for split, index in CASES:
        image = make_sample(split, index).image / 255.0
        clean = make_clean_digit(split, index)
        rectangle = make_sample(split, index).rectangle
        u, v = own_frame(rectangle)
        inside = (np.abs(u) < rectangle[2]) & (np.abs(v) < rectangle[3])
        outside.append(image[~inside].sum() / image[inside].sum())
        kept.append(np.corrcoef(image[inside], clean[inside])[0, 1])
    assert np.median(outside) > 1.0
    assert np.median(kept) > 0.9
    assert np.min(kept) > 0.4


@pytest.mark.parametrize(
    ("split", "index", "label", "total", "rectangle"),
    [
        ("train", 0, 1, 132922, [0.35811, -0.02764, 0.3415, 0.52038, -0.67413]),
        ("train", 15999, 9, 86273, [-0.51561, 0.35362, 0.34468, 0.48829, -0.27962]),
        ("test", 0, 9, 106658, [0.54944, -0.00092, 0.21411, 0.33362, 0.73754]),
        ("test", 1234, 0, 100446, [0.27699, 0.18088, 0.26997, 0.37465, -0.04205]),
    ],
)
def test_version_1_is_frozen(split, index, label, total, rectangle):
    assert cluttered.VERSION == "1.1.0"
    sample = make_sample(split, index)
    assert sample.label == label
    # A pixel on the edge of rounding may differ between machines.
    assert abs(int(sample.image.sum()) - total) <= 3
    np.testing.assert_allclose(sample.rectangle, rectangle, atol=2e-5)


def test_unknown_splits_are_refused():
    with pytest.raises(ValueError, match=r"split must be one of .*got 'val'"):
        make_sample("val", 0)
    with pytest.raises(ValueError, match="digits has no split 'val'; it has train"):
        opened("digits", "val")


@pytest.mark.usefixtures("small")
def test_prepared_files_hold_the_images_in_order(tmp_path):
    source = opened("digits", "train", data_dir=tmp_path)
    assert source.info.truth == "rotated"
    assert source.info.class_names == tuple("0123456789")
    assert (source.info.channels, source.info.image_size) == (1, (48, 48))
    assert len(source) == source.info.num_examples == 12
    for index in range(12):
        sample, example = make_sample("train", index), source[index]
        np.testing.assert_array_equal(example.image[..., 0], sample.image)
        assert example.label == sample.label
        assert example.rectangle is not None
        pixel = sample.rectangle.astype(np.float64) / PIXEL
        np.testing.assert_allclose(example.rectangle[:2], pixel[:2] + 24)
        np.testing.assert_allclose(example.rectangle[2:4], pixel[2:4])
        assert example.rectangle[4] == sample.rectangle[4]
    with pytest.raises(IndexError):
        source[12]
    # Prepared once: a second opening reads the same files.
    (folder,) = (tmp_path / "cluttered_digits").iterdir()
    before = folder.stat().st_mtime_ns
    assert len(opened("digits", "test", data_dir=tmp_path)) == 5
    assert folder.stat().st_mtime_ns == before


@pytest.mark.usefixtures("small")
def test_a_smaller_set_is_a_prefix(tmp_path):
    whole = opened("digits", "train", data_dir=tmp_path)
    part = opened("digits", "train", data_dir=tmp_path, max_examples=4)
    assert len(part) == part.info.num_examples == 4
    for index in range(4):
        np.testing.assert_array_equal(part[index].image, whole[index].image)
    with pytest.raises(IndexError):
        part[4]


@pytest.mark.parametrize("name", ["digits", "tfds:cars196"])
def test_a_missing_package_is_named_with_its_cure(tmp_path, monkeypatch, name):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=rf"{name} needs .*datasets: pip install 'cram"):
        opened(name, "test", data_dir=tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("small")
def test_an_interrupted_preparation_leaves_no_half_set(tmp_path, monkeypatch):
    def interrupted(split, index):
        if index == 7:
            raise KeyboardInterrupt
        return make_sample(split, index)

    with monkeypatch.context() as patch:
        patch.setattr(cluttered, "make_sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            opened("digits", "train", data_dir=tmp_path)
    assert not (tmp_path / "cluttered_digits" / cluttered.VERSION).exists()
    assert len(opened("digits", "train", data_dir=tmp_path)) == 12


@pytest.mark.usefixtures("small")
def test_a_faster_process_may_have_prepared_the_set(tmp_path, monkeypatch):
    from train.data.sources.digits.builder import Builder

    prepare = Builder.download_and_prepare

    def slower(builder, **arguments):
        faster = Builder(data_dir=tmp_path, file_format="array_record")
        prepare(faster, **arguments)  # pyright: ignore[reportCallIssue]
        raise OSError("Directory not empty")

    monkeypatch.setattr(Builder, "download_and_prepare", slower)
    assert len(opened("digits", "train", data_dir=tmp_path)) == 12


def test_default_data_dir_is_the_users_choice(monkeypatch, tmp_path):
    monkeypatch.setenv("CRAM_JAX_DATA", str(tmp_path))
    assert default_data_dir() == tmp_path
    monkeypatch.delenv("CRAM_JAX_DATA")
    assert default_data_dir().name == "cram_jax"


def test_preparing_and_reading_need_no_tensorflow(tmp_path):
    program = f"""
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] != "tensorflow":
            return self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)

sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
from tests.train.data.sources.opened import opened
from train.data.sources.digits import cluttered, many
cluttered.SPLIT_SIZES = many.SPLIT_SIZES = {{"train": 3, "test": 2}}
for name in ("digits", "many_digits"):
    source = opened(name, "train", data_dir={str(tmp_path)!r})
    print(len(source), source[2].objects is None)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=100
    )
    assert done.stdout.split() == ["3", "True", "3", "False"], done.stderr
