"""Views: images, masks and rectangles move together, and rectangles come back."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cram_jax.geometry.coordinates import pixel_centers
from train.data.views import (
    View,
    eval_view,
    isotropic_to_pixel,
    pixel_to_isotropic,
    random_crop_view,
    rectangle_to_network,
    rectangle_to_source,
    render_mask,
    render_view,
    visible_rectangle,
)

HEIGHT, WIDTH = 61, 83


def coverage(rectangle, height, width, fine=20):
    """float [height, width]: share of each pixel in a pixel rectangle."""
    center_x, center_y, half_width, half_height, angle = rectangle
    x = (np.arange(width * fine)[None] + 0.5) / fine - center_x
    y = (np.arange(height * fine)[:, None] + 0.5) / fine - center_y
    u = np.cos(angle) * x + np.sin(angle) * y
    v = np.cos(angle) * y - np.sin(angle) * x
    inside = (np.abs(u) <= half_width) & (np.abs(v) <= half_height)
    return inside.reshape(height, fine, width, fine).mean(axis=(1, 3))


def corners(rectangle):
    """[4, 2] in the order of the corners of the unit square."""
    center_x, center_y, half_width, half_height, angle = rectangle
    sides = np.array([[half_width, 0], [0, half_height]])
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
    return signs @ sides @ turn + [center_x, center_y]


def centroid(weights, axis):
    along = weights.sum(axis=1 - axis, dtype=float)
    return along @ (np.arange(len(along)) + 0.5) / along.sum()


def iou(a, b):
    return (a & b).sum() / (a | b).sum()


VIEWS = {
    "enlarged crop": View(10.3, 5.5, 60.3, 45.5, 96, 120),
    "shrunken whole": View(0.0, 0.0, 83.0, 61.0, 40, 54),
    "mirrored crop": View(12.0, 4.25, 62.0, 54.25, 70, 70, mirrored=True),
    "mirrored identity": View(0, 0, WIDTH, HEIGHT, HEIGHT, WIDTH, mirrored=True),
}


@pytest.mark.parametrize("angle", [0.0, 0.4, -0.7, np.pi / 2, 2.5])
@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_drawn_rectangle_is_where_the_moved_one_says(view, angle):
    if not np.isclose(abs(view.scale_x), view.scale_y, rtol=1e-4):
        angle = 0.0
    rectangle = np.array([37.1, 28.3, 14.0, 8.0, angle])
    image = np.round(255 * coverage(rectangle, HEIGHT, WIDTH)).astype(np.uint8)
    shown = render_view(image[..., None], view)
    assert shown.shape == (view.height, view.width, 1)
    assert shown.dtype == np.uint8
    moved = isotropic_to_pixel(
        rectangle_to_network(view, rectangle), view.height, view.width
    )
    expected = coverage(moved, view.height, view.width)
    for axis in (0, 1):
        found = centroid(shown[..., 0], axis)
        assert found == pytest.approx(centroid(expected, axis), abs=0.1)
    assert iou(shown[..., 0] > 127, expected > 0.5) > 0.95
    mask = render_mask((image > 127).astype(np.uint8), view)
    assert set(np.unique(mask)) == {0, 1}
    assert iou(mask == 1, expected > 0.5) > 0.93


rectangles = st.builds(
    lambda *values: np.array(values),
    st.floats(-20, 100),
    st.floats(-20, 100),
    st.floats(0, 90),
    st.floats(0, 90),
    st.floats(-4, 4),
)
views = st.builds(
    lambda left, top, w, h, scale, mirrored: View(
        left, top, left + w, top + h, scale * h, scale * w, mirrored
    ),
    st.floats(0, 50),
    st.floats(0, 50),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 8),
    st.booleans(),
)


@settings(max_examples=100, deadline=None)
@given(view=views, rectangle=rectangles)
def test_corners_move_by_the_affine_map_and_the_inverse_brings_them_back(
    view, rectangle
):
    network = rectangle_to_network(view, rectangle)
    moved = isotropic_to_pixel(network, view.height, view.width)
    expected = corners(rectangle) * [view.scale_x, view.scale_y]
    expected += [view.shift_x, view.shift_y]
    if view.mirrored:  # the corners are met in the other order
        expected = expected[[1, 0, 3, 2]]
    np.testing.assert_allclose(corners(moved), expected, atol=1e-8)
    back = rectangle_to_source(view, network)
    np.testing.assert_allclose(back, rectangle, atol=1e-9)


def test_the_left_edge_of_a_view_is_the_left_edge_of_the_input():
    view = View(10.0, 4.0, 30.0, 14.0, 40, 80)
    box = np.array([20.0, 9.0, 10.0, 5.0, 0.0])
    np.testing.assert_allclose(
        rectangle_to_network(view, box), [0, 0, 1, 0.5, 0], atol=1e-12
    )
    mirrored = dataclasses.replace(view, mirrored=True)
    left_part = np.array([12.0, 9.0, 2.0, 5.0, 0.3])
    np.testing.assert_allclose(
        rectangle_to_network(mirrored, left_part), [0.8, 0, 0.2, 0.5, -0.3], atol=1e-12
    )


def test_upright_boxes_stay_exact_under_a_change_of_aspect():
    view = View(0.0, 0.0, 40.0, 20.0, 60, 60)
    box = np.array([10.0, 5.0, 10.0, 5.0, 0.0])
    np.testing.assert_allclose(
        rectangle_to_network(view, box), [-0.5, -0.5, 0.5, 0.5, 0.0]
    )
    tilted = np.array([[10.0, 5.0, 10.0, 5.0, 0.0], [10.0, 5.0, 10.0, 5.0, 0.1]])
    with pytest.raises(ValueError, match=r"both axes scale alike, got 1\.5 and 3"):
        rectangle_to_network(view, tilted)
    with pytest.raises(ValueError, match="both axes scale alike"):
        rectangle_to_source(view, tilted)


@pytest.mark.parametrize(("height", "width"), [(48, 48), (30, 50), (50, 30), (1, 1)])
def test_isotropic_coordinates_are_those_of_the_library(height, width):
    x, y = pixel_centers(height, width)
    centers = np.zeros((height, width, 5))
    centers[..., 0] = np.arange(width) + 0.5
    centers[..., 1] = np.arange(height)[:, None] + 0.5
    isotropic = pixel_to_isotropic(centers, height, width)
    np.testing.assert_allclose(isotropic[0, :, 0], x, atol=1e-6)
    np.testing.assert_allclose(isotropic[:, 0, 1], y, atol=1e-6)
    back = isotropic_to_pixel(isotropic, height, width)
    np.testing.assert_allclose(back, centers, atol=1e-12)


@pytest.mark.parametrize(
    ("size", "out_size", "crop", "box"),
    [
        ((100, 200), (50, 50), 1.0, (50, 0, 150, 100)),
        ((200, 100), (50, 50), 0.5, (25, 75, 75, 125)),
        ((60, 60), (20, 40), 1.0, (0, 15, 60, 45)),
        ((7, 7), (7, 7), 1.0, (0, 0, 7, 7)),
    ],
)
def test_evaluation_sees_the_central_box(size, out_size, crop, box):
    view = eval_view(size, out_size, crop)
    assert (view.left, view.top, view.right, view.bottom) == pytest.approx(box)
    assert (view.height, view.width, view.mirrored) == (*out_size, False)
    assert view.scale_x == pytest.approx(view.scale_y)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_view_of_the_whole_image_changes_no_pixel(channels):
    image = np.random.default_rng(0).integers(0, 256, (9, 9, channels), np.uint8)
    view = eval_view((9, 9), (9, 9))
    assert view.covers(9, 9)
    np.testing.assert_array_equal(render_view(image, view), image)
    mirrored = dataclasses.replace(view, mirrored=True)
    np.testing.assert_array_equal(render_view(image, mirrored), image[:, ::-1])
    np.testing.assert_array_equal(
        render_mask(image[..., 0] % 2, mirrored), image[:, ::-1, 0] % 2
    )


def test_random_crops_keep_to_the_image_the_area_and_the_aspect():
    rng = np.random.default_rng(1)
    areas, aspects = [], []
    for _ in range(300):
        view = random_crop_view(
            rng, (40, 60), (32, 32), area=(0.2, 0.6), aspect=(0.5, 2.0)
        )
        assert view.left >= 0
        assert view.top >= 0
        assert view.right <= 60 + 1e-9
        assert view.bottom <= 40 + 1e-9
        w, h = view.right - view.left, view.bottom - view.top
        areas.append(w * h / 2400)
        aspects.append(w / h)
    # Only a crop that did not fit ten times is the view of evaluation, 2/3 of it.
    assert np.mean(np.array(areas) <= 0.6 + 1e-9) > 0.95
    assert np.min(areas) >= 0.2 - 1e-9
    assert np.min(aspects) >= 0.5 - 1e-9
    assert np.max(aspects) <= 2.0 + 1e-9
    assert np.std(areas) > 0.05
    assert np.min(aspects) < 0.8
    assert np.max(aspects) > 1.25


def test_a_crop_that_cannot_fit_is_the_view_of_evaluation():
    rng = np.random.default_rng(2)
    view = random_crop_view(rng, (10, 100), (8, 8), area=(0.9, 1.0), aspect=(1, 1))
    assert view == eval_view((10, 100), (8, 8))


def test_equal_aspect_crops_scale_both_axes_alike():
    rng = np.random.default_rng(3)
    tilted = np.array([20.0, 15.0, 6.0, 4.0, 0.5])
    for _ in range(50):
        view = random_crop_view(
            rng, (40, 60), (24, 36), area=(0.1, 1.0), aspect=(1.0, 1.0)
        )
        seen = rectangle_to_network(view, tilted)
        assert seen[2] / seen[3] == pytest.approx(1.5)


def test_boxes_are_cut_off_at_the_edge_of_the_view():
    view = View(10.0, 10.0, 30.0, 30.0, 40, 40)
    box = np.array([10.0, 20.0, 8.0, 5.0, 0.0])
    seen = visible_rectangle(view, box, upright=True)
    assert seen is not None
    np.testing.assert_allclose(seen, [-0.6, 0.0, 0.4, 0.5, 0.0])
    # A whole object stays as it is; one out of sight, or but a sliver of it, is none.
    seen = visible_rectangle(view, np.array([20.0, 20, 4, 5, 0]), upright=True)
    assert seen is not None
    np.testing.assert_allclose(seen, [0.0, 0.0, 0.4, 0.5, 0.0])
    for center_x in (1.0, 2.3, 45.0):
        gone = np.array([center_x, 20.0, 8.0, 5.0, 0.0])
        assert visible_rectangle(view, gone, upright=True) is None


def test_rotated_rectangles_are_whole_or_gone():
    view = View(10.0, 10.0, 30.0, 30.0, 40, 40)
    tilted = np.array([11.0, 20.0, 8.0, 5.0, 0.3])
    seen = visible_rectangle(view, tilted, upright=False)
    assert seen is not None
    np.testing.assert_allclose(seen, [-0.9, 0.0, 0.8, 0.5, 0.3])
    assert visible_rectangle(view, tilted - [2, 0, 0, 0, 0], upright=False) is None
