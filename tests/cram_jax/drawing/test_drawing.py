"""Drawn pixels are where the coordinates say, whatever the kind of image."""

import subprocess
import sys
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest
import shapely

from cram_jax.drawing import (
    draw_rectangles,
    fonts,
    image_grid,
    overlay_mask,
    rectangle_pixel_corners,
)
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask


def rectangle(parameters):
    return Rectangle.from_array(jnp.asarray(parameters, jnp.float32))


BOX = rectangle([0.25, -0.5, 0.5, 0.25, 0.0])
GREEN = (0, 255, 0)


def gray(height=48, width=48, value=128):
    return np.full((height, width), value, np.uint8)


def test_pixel_corners_on_a_map_that_is_not_square():
    corners = rectangle_pixel_corners(rectangle([0, 0, 1, 0.5, 0]), 20, 40)
    np.testing.assert_allclose(corners, [[0, 0], [40, 0], [40, 20], [0, 20]])
    corners = rectangle_pixel_corners(BOX, 40, 20)
    np.testing.assert_allclose(corners, [[5, 5], [25, 5], [25, 15], [5, 15]])


def test_lines_lie_on_the_edges_and_nowhere_else():
    picture = draw_rectangles(gray(), BOX, color=GREEN, width=1)
    assert picture.dtype == np.uint8
    assert picture.shape == (48, 48, 3)
    # Edges at x = 18 and 42, y = 6 and 18, between two pixels.
    assert picture[12, 17:19, 1].min() > 130
    assert picture[12, 17:19, 0].max() < 100
    assert picture[5:7, 30, 1].min() > 130
    np.testing.assert_array_equal(picture[9:16, 21:39], 128)
    np.testing.assert_array_equal(picture[21:], 128)


def test_drawn_outline_surrounds_the_hard_mask_of_a_turned_rectangle():
    turned = rectangle([0.1, 0.1, 0.6, 0.3, 0.5])
    picture = draw_rectangles(gray(96, 96), turned, color=GREEN, width=1)
    mask = np.asarray(render_hard_mask(turned, 96, 96))
    border = np.zeros_like(mask)
    for axis in (0, 1):
        change = np.diff(mask.astype(int), axis=axis) != 0
        border[:-1] |= change if axis == 0 else False
        border[:, :-1] |= change if axis == 1 else False
    touched = (picture != 128).any(-1)
    assert touched[border].mean() > 0.95
    assert touched.sum() < 4 * border.sum()


def test_every_kind_of_image_gives_the_same_picture():
    image = np.arange(48 * 48, dtype=np.uint8).reshape(48, 48)
    expected = draw_rectangles(image, BOX)
    color = np.repeat(image[..., None], 3, axis=-1)
    for same in (image[..., None], color, image / 255, jnp.asarray(image / 255)):
        np.testing.assert_array_equal(draw_rectangles(same, BOX), expected)


def test_the_image_itself_is_left_alone():
    image = np.repeat(gray()[..., None], 3, axis=-1)
    draw_rectangles(image, BOX)
    np.testing.assert_array_equal(image, 128)


def test_upscaled_lines_keep_their_width_and_place():
    picture = draw_rectangles(gray(12, 12), BOX, color=GREEN, width=1, upscale=4)
    np.testing.assert_array_equal(
        picture, draw_rectangles(gray(), BOX, color=GREEN, width=1)
    )


def test_colors_and_labels_go_to_their_rectangles():
    pair = rectangle([[-0.5, 0.4, 0.3, 0.3, 0], [0.5, 0.4, 0.3, 0.3, 0]])
    plain = draw_rectangles(gray(96, 96, 0), pair, color=["red", "blue"])
    assert plain[:, :48, 0].max() == 255
    assert plain[:, :48, 2].max() == 0
    assert plain[:, 48:, 2].max() == 255
    labelled = draw_rectangles(
        gray(96, 96, 0), pair, color=["red", "blue"], labels=["", "7"]
    )
    changed = (plain != labelled).any(axis=(0, 2))
    assert changed[48:].any()
    assert not changed[:40].any()


def test_a_rectangle_out_of_sight_and_an_empty_batch_draw_nothing():
    away = rectangle([5.0, 5.0, 0.1, 0.1, 0.3])
    np.testing.assert_array_equal(draw_rectangles(gray(), away), 128)
    none = rectangle(np.zeros((0, 5)))
    np.testing.assert_array_equal(draw_rectangles(gray(), none), 128)


def test_overlay_tints_where_the_mask_is_high_and_stretches_it():
    mask = np.array([[0.0, 1.0]])
    picture = overlay_mask(gray(20, 40), mask, color=(255, 0, 0), opacity=0.5)
    np.testing.assert_array_equal(picture[:, 0], [[128, 128, 128]] * 20)
    np.testing.assert_array_equal(picture[:, -1], [[192, 64, 64]] * 20)
    outside = overlay_mask(
        gray(20, 40), mask, color=(255, 0, 0), opacity=0.5, outside=True
    )
    np.testing.assert_array_equal(outside[:, ::-1], picture)


def test_grid_places_images_of_several_sizes():
    images = [gray(5, 7, 10), gray(3, 2, 20), gray(5, 7, 30)]
    grid = image_grid(images, columns=2, padding=1)
    assert grid.shape == (13, 17, 3)
    np.testing.assert_array_equal(grid[1:6, 1:8], 10)
    np.testing.assert_array_equal(grid[1:4, 9:11], 20)
    np.testing.assert_array_equal(grid[7:12, 1:8], 30)
    np.testing.assert_array_equal(grid[7:, 9:], 255)
    assert image_grid(np.zeros((4, 6, 8, 1)), columns=4).shape == (14, 52, 3)


def test_grid_captions_stand_below_their_image():
    plain = [gray(30, 30)] * 2
    grid = image_grid(plain, columns=2, captions=["", "two"], padding=2)
    assert (grid[32:, :33] == 255).all()
    assert (grid[32:, 34:] < 255).any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw_rectangles(np.zeros((2, 5, 5, 3)), BOX), "one by one"),
        (lambda: draw_rectangles(np.zeros((5, 5, 4)), BOX), r"\(5, 5, 4\)"),
        (lambda: draw_rectangles(np.full((5, 5), 7.0), BOX), r"values from 7 to 7"),
        (lambda: draw_rectangles(np.full((5, 5), np.nan), BOX), "lie in"),
        (lambda: draw_rectangles(np.zeros((5, 5), int), BOX), "int64"),
        (lambda: draw_rectangles(gray(), BOX, upscale=0), "at least 1, got 0"),
        (lambda: draw_rectangles(gray(), BOX, labels=["a", "b"]), "2 labels for 1"),
        (lambda: overlay_mask(gray(), np.zeros((2, 3, 3))), r"\(2, 3, 3\)"),
        (lambda: overlay_mask(gray(), np.full((3, 3), 2.0)), "mask must lie"),
        (lambda: image_grid([], columns=1), "0 images"),
        (lambda: image_grid([gray()], columns=0), "columns=0"),
        (lambda: image_grid([gray()], columns=1, captions=[]), "0 captions for 1"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_drawing_is_imported_without_pillow_and_says_how_to_get_it():
    program = """
import sys
import tracemalloc
sys.modules["PIL"] = None
import numpy as np
from cram_jax.drawing import overlay_mask
try:
    overlay_mask(np.zeros((3, 3)), np.zeros((3, 3)))
except ImportError as error:
    print(error)
"""
    output = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    assert 'pip install "cram-jax[viz]"' in output


def peak_bytes(call):
    """What Python and numpy held at most while `call` ran."""
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "draw",
    [
        lambda image: draw_rectangles(image, BOX, width=30),
        lambda image: draw_rectangles(image[..., 0], rectangle([[0, 0, 0.5, 0.2, 1]])),
        lambda image: draw_rectangles(
            image, rectangle(np.tile([0, 0, 0.5, 0.3, 0.3], (20, 1)))
        ),
        lambda image: overlay_mask(image, np.ones((7, 7))),
        lambda image: image_grid([image], columns=1),
    ],
)
def test_a_large_picture_takes_little_more_memory_than_itself(draw):
    image = np.zeros((4000, 6000, 3), np.uint8)
    draw(image[:8, :8])  # What is loaded once does not count.
    assert peak_bytes(lambda: draw(image)) < 3 * image.nbytes


def test_floating_pictures_take_a_few_times_their_eight_bits():
    image = np.zeros((1000, 1500, 3), np.float32)
    assert peak_bytes(lambda: draw_rectangles(image, BOX)) < 1.5 * image.nbytes


@pytest.mark.parametrize(
    ("height", "width", "angle", "line"),
    [
        (1, 1, 0, 2),
        (63, 65, 0.3, 1),
        (64, 64, 1.2, 9),
        (200, 130, -2, 3.5),
        (3, 999, 0, 2),
    ],
)
def test_no_pixel_near_the_outline_is_forgotten_at_the_seams(
    height, width, angle, line
):
    turned = rectangle([0.1, -0.05, 0.55, 0.3, angle])
    picture = draw_rectangles(gray(height, width), turned, color=GREEN, width=line)
    corners = rectangle_pixel_corners(turned, height, width)
    outline = shapely.LinearRing(corners)
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    distance = shapely.distance(outline, shapely.points(x, y))
    touched = (picture != 128).any(-1)
    np.testing.assert_array_equal(touched[distance < line / 2 + 0.9], True)
    np.testing.assert_array_equal(touched[distance > line / 2 + 1.01], False)


SCRIPTS = ("кошка", "γάτα", "חתול", "Größe", "naïve")


@pytest.mark.parametrize("text", SCRIPTS)
def test_letters_of_other_scripts_are_no_boxes(text):
    # Matplotlib, which drawing comes with, brings a font that has these.
    assert fonts.has_font(text)
    font = fonts.load_font(text, 16)
    box = bytes(font.getmask("\U0010ffff"))
    assert all(bytes(font.getmask(letter)) != box for letter in text)


def test_letters_that_no_font_has_are_said_to_be_boxes():
    text = "\U000e7fff猫"
    assert not fonts.has_font(text)
    with pytest.warns(UserWarning, match="No font of this system"):
        draw_rectangles(gray(), BOX, labels=[text])


def test_a_font_installed_on_the_system_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_in_default_font", lambda text: False)
    first = fonts._system_fonts()[0]
    broken = tmp_path / "broken.ttf"
    broken.write_bytes(b"no font")
    monkeypatch.setattr(fonts, "_system_fonts", lambda: (broken, first))
    assert fonts.font_file.__wrapped__("kot") == first
