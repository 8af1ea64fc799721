"""`dota:PATH`: DOTA's text files, and four corners as a rectangle."""

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.train.data.sources.detection.made_up import opened_objects, write_image
from train.data.sources import NoSplitError, UnreadableImageError
from train.data.sources.detection.corners import smallest_rectangles
from train.data.sources.holding_out import HELD_OUT

ROTATED = "10 4 16 12 12 15 6 7 small-vehicle 0"  # sides of 10 and 5
TEXTS = {
    "P1": f"imagesource:GoogleEarth\ngsd:0.146343590398\n{ROTATED}\n"
    "2.0 3.0 8.0 3.0 8.0 7.0 2.0 7.0 plane 1\n",
    "P2": "",
    "P3": "25 15 35 15 35 25 25 25 plane\n\n",  # an older release has no last word
    "P4": "gsd:null\n1 1 5 1 5 5 1 5 ship 2\n",
}


def write(root, texts=TEXTS, split="train", labels="labelTxt"):
    (root / split / labels).mkdir(parents=True)
    for seed, (name, text) in enumerate(texts.items()):
        write_image(root / split / "images" / f"{name}.png", seed)
        (root / split / labels / f"{name}.txt").write_text(text)
    return f"dota:{root}"


def objects_of(source, name):
    (index,) = (i for i, path in enumerate(source.paths) if f"/{name}." in path)
    objects = source[index].objects
    assert objects is not None
    return objects


def test_corners_become_rectangles_and_what_is_difficult_is_ignored(tmp_path):
    source = opened_objects(write(tmp_path), "train")
    assert source.info.categories == ("plane", "ship", "small-vehicle")
    assert source.info.rotated_objects
    assert source.paths == tuple(f"train/images/{name}.png" for name in TEXTS)
    found = objects_of(source, "P1")
    assert found.labels.tolist() == [2, 0]
    assert found.ignored.tolist() == [False, True]
    # The side of 10 goes down steeply, so the short one is the width.
    angle = np.arctan2(8, 6) - np.pi / 2
    expected = [[11, 9.5, 2.5, 5, angle], [5, 5, 3, 2, 0]]
    np.testing.assert_allclose(found.rectangles, expected, atol=1e-12)
    assert len(objects_of(source, "P2")) == 0
    cut = objects_of(source, "P3")
    np.testing.assert_array_equal(cut.rectangles, [[27.5, 17.5, 2.5, 2.5, 0]])
    assert not cut.ignored.any()
    assert objects_of(source, "P4").ignored.tolist() == [True]


def test_categories_are_those_of_the_training_images(tmp_path):
    name = write(tmp_path)
    write(tmp_path, {"Q1": TEXTS["P4"]}, "val", "annfiles")
    # Its official test images have no text files.
    write_image(tmp_path / "test" / "images" / "R1.png")
    source = opened_objects(name, "test")
    assert source.paths == ("val/images/Q1.png",)
    assert source.info.categories == ("plane", "ship", "small-vehicle")
    assert objects_of(source, "Q1").labels.tolist() == [1]
    held = opened_objects(name, HELD_OUT, validation=0.25)
    assert len(held) == 1
    assert held.info.categories == source.info.categories
    (tmp_path / "val" / "annfiles" / "Q1.txt").write_text("1 1 5 1 5 5 1 5 shipp 0")
    with pytest.raises(
        ValueError, match=r"'shipp', and the set has plane, ship,.*'ship'"
    ):
        opened_objects(name, "test")
    with pytest.raises(NoSplitError, match=r"no split 'extra': expected .*extra/label"):
        opened_objects(name, "extra")


def test_a_set_without_training_images_can_be_evaluated(tmp_path):
    name = write(tmp_path, {"Q1": TEXTS["P4"]}, "val")
    assert opened_objects(name, "test").info.categories == ("ship",)


LINES = {
    "three corners": ("1 1 5 1 5 5 plane 0", "must be x1 y1 .* got '1 1 5 1 5 5 plane"),
    "eleven words": ("1 1 5 1 5 5 1 5 plane 0 0", "must be x1 y1 x2"),
    "a word": ("1 1 5 1 5 x 1 5 plane 0", "must be x1 y1 x2"),
    "no number": ("1 1 5 1 5 nan 1 5 plane 0", "must be x1 y1 x2"),
    "difficulty": ("1 1 5 1 5 5 1 5 plane yes", "must be x1 y1 x2"),
    "a line": ("1 1 5 5 3 3 1 1 plane 0", "must have a positive width and height"),
    "a point": ("3 3 3 3 3 3 3 3 plane 0", "positive width and height, got 0 and 0"),
    "outside": ("41 1 45 1 45 5 41 5 plane 0", "lies outside of its image of 30 x 20"),
}


@pytest.mark.parametrize(("line", "said"), LINES.values(), ids=LINES)
def test_a_wrong_line_is_named_and_its_image_can_be_passed_over(tmp_path, line, said):
    name = write(tmp_path, TEXTS | {"P1": f"gsd:1\n{ROTATED}\n{line}\n"})
    with pytest.raises(ValueError, match=said) as raised:
        opened_objects(name, "train")
    assert "Line 3 of " in str(raised.value)
    assert "P1.txt" in str(raised.value)
    source = opened_objects(name, "train", on_bad_image="skip")
    with pytest.raises(UnreadableImageError, match=said):
        objects_of(source, "P1")
    assert len(objects_of(source, "P3")) == 1


def test_images_and_text_files_belong_together(tmp_path):
    name = write(tmp_path)
    image, text = (
        tmp_path / "train" / "images" / "P3.png",
        tmp_path / "train" / "labelTxt" / "P3.txt",
    )
    moved = image.rename(tmp_path / "P3.png")
    with pytest.raises(ValueError, match=r"1 of the 4 images .* first .*images/P3.png"):
        opened_objects(name, "train")
    assert len(opened_objects(name, "train", on_bad_image="skip")) == 4
    moved.rename(image)
    image.with_suffix(".jpg").write_bytes(image.read_bytes())
    with pytest.raises(ValueError, match=r"two images of one name, P3.jpg and P3.png"):
        opened_objects(name, "train")
    image.with_suffix(".jpg").unlink()
    text.unlink()
    with pytest.raises(ValueError, match=r"has no .*P3.txt \(1 of 4 .* an empty file"):
        opened_objects(name, "train")
    text.write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(ValueError, match=r"P3.txt must be UTF-8 text"):
        opened_objects(name, "train")
    text.write_text("")
    image.write_bytes(b"junk")
    with pytest.raises(ValueError, match=r"P3.png is no image that can be read"):
        opened_objects(name, "train")
    for each in (tmp_path / "train" / "labelTxt").iterdir():
        each.write_text("")
    with pytest.raises(ValueError, match="names no category"):
        opened_objects(name, "train")


def outlined(rectangle):
    x, y, w, h, angle = rectangle
    own = np.array([-w - 1j * h, w - 1j * h, w + 1j * h, -w + 1j * h])
    turned = own * np.exp(1j * angle) + x + 1j * y
    return shapely.Polygon(np.stack([turned.real, turned.imag], axis=1))


coordinates = st.lists(st.integers(-40, 40), min_size=8, max_size=8)


@settings(max_examples=200, deadline=None)
@given(coordinates)
def test_no_rectangle_round_four_points_is_smaller(values):
    points = np.reshape(values, (1, 4, 2))
    (rectangle,) = smallest_rectangles(points)
    hull = shapely.MultiPoint(points[0]).convex_hull
    expected = hull.minimum_rotated_rectangle.area
    area = 4 * rectangle[2] * rectangle[3]
    assert area == pytest.approx(expected, abs=1e-6)
    assert -np.pi / 4 <= rectangle[4] < np.pi / 4
    assert outlined(rectangle).buffer(1e-6).contains(hull)


@pytest.mark.parametrize("angle", np.deg2rad([0, 30, 44.9, 45, 90, 135, 180, 200, 270]))
def test_the_corners_of_a_rectangle_are_that_rectangle(angle):
    rectangle = np.array([12.0, 7.0, 5.0, 2.0, angle])
    corners = shapely.get_coordinates(outlined(rectangle))[:4]
    for order in ([0, 1, 2, 3], [2, 1, 0, 3], [0, 2, 1, 3]):
        (found,) = smallest_rectangles(corners[None, order])
        one, other = outlined(found), outlined(rectangle)
        assert one.intersection(other).area == pytest.approx(40, abs=1e-9)


def test_upright_boxes_have_the_angle_0_exactly():
    box = np.array([[2, 3], [8.1, 3], [8.1, 7], [2, 7]])
    orders = np.stack([np.roll(box, shift, axis=0) for shift in range(4)])
    found = smallest_rectangles(np.concatenate([orders, orders[:, ::-1]]))
    assert (found[:, 4] == 0).all()
    np.testing.assert_allclose(found, np.tile([5.05, 5, 3.05, 2, 0], (8, 1)))
