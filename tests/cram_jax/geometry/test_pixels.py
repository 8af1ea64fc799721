"""Rectangles in pixels of the photograph: against shapely's affine maps, and back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely
import shapely.affinity

import cram_jax
from cram_jax import Rectangle
from cram_jax.geometry import pixels
from tests.checks import assert_close, assert_tree_finite, finite_difference_gradient

# Network's input (height, width), crop, photograph (height, width): whole, a cut,
# stretched, padded beyond the photograph, one pixel.
WAYS = [
    ((96, 96), (0, 0, 300, 300), (300, 300)),
    ((64, 96), (30, 20, 270, 180), (200, 300)),
    ((96, 96), (10.5, 0.25, 250, 100), (120, 260)),
    ((75, 33), (-40, -20, 92, 280), (260, 50)),
    ((1, 1), (3, 4, 5, 6), (7, 8)),
]


def draw(seed, count=12):
    rng = np.random.default_rng(seed)
    parameters = np.stack(
        [
            *rng.uniform(-1.2, 1.2, (2, count)),
            *rng.uniform(0.02, 1.8, (2, count)),
            rng.uniform(-4, 4, count),
        ],
        -1,
    )
    parameters[0, 4] = 0.0
    parameters[1, 4] = np.pi / 2
    return parameters.astype(np.float32)


def oracle(parameters, size, crop):
    """The rectangle as a shapely polygon in pixels of the photograph."""
    x, y, half_width, half_height, angle = map(float, parameters)
    height, width = size
    polygon = shapely.box(-half_width, -half_height, half_width, half_height)
    polygon = shapely.affinity.rotate(polygon, angle, (0, 0), use_radians=True)
    polygon = shapely.affinity.translate(polygon, x, y)
    # Isotropic: one unit is half the longer side, on both axes; the middle is 0.
    unit = max(height, width) / 2
    polygon = shapely.affinity.affine_transform(
        polygon, [unit, 0, 0, unit, width / 2, height / 2]
    )
    left, top, right, bottom = crop
    across, down = (right - left) / width, (bottom - top) / height
    return shapely.affinity.affine_transform(polygon, [across, 0, 0, down, left, top])


@pytest.mark.parametrize(("size", "crop", "picture"), WAYS)
def test_polygon_box_and_area_equal_shapely(size, crop, picture):
    parameters = draw(0)
    rectangles = Rectangle.from_array(parameters)
    frame = shapely.box(0, 0, picture[1], picture[0])
    polygons = cram_jax.rectangle_polygon(rectangles, *size, crop=crop)
    boxes = cram_jax.rectangle_pixel_box(rectangles, *size, crop=crop)
    cut = cram_jax.rectangle_pixel_box(rectangles, *size, crop=crop, picture=picture)
    options = {"crop": crop, "picture": picture}
    areas = cram_jax.rectangle_pixel_area(rectangles, *size, **options)
    in_crop = cram_jax.rectangle_pixel_area(rectangles, *size, crop=crop)
    shares = cram_jax.share_of_picture(rectangles, *size, **options)
    wider = cram_jax.is_wider_than_picture(rectangles, *size, **options)
    covers = cram_jax.covers_picture(rectangles, *size, **options)
    scale = max(picture)
    for i, row in enumerate(parameters):
        expected = oracle(row, size, crop)
        ours = shapely.Polygon(np.asarray(polygons[i], np.float64))
        assert ours.symmetric_difference(expected).area <= 1e-4 * scale**2
        assert_close(boxes[i], expected.bounds, atol=1e-4 * scale)
        left, top, right, bottom = expected.bounds
        clipped = np.clip(expected.bounds, 0, [picture[1], picture[0]] * 2)
        assert_close(cut[i], clipped, atol=1e-4 * scale)
        shared = expected.intersection(frame).area
        assert_close(areas[i], shared, atol=1e-4 * frame.area, rtol=1e-4)
        assert_close(shares[i], shared / frame.area, atol=1e-4)
        seen = expected.intersection(shapely.box(*crop)).area
        assert_close(in_crop[i], seen, atol=1e-4 * shapely.box(*crop).area, rtol=1e-4)
        assert bool(covers[i]) == expected.contains(frame)
        larger = right - left > picture[1] or bottom - top > picture[0]
        assert bool(wider[i]) == larger


def test_pixels_are_counted_from_the_edges():
    # A photograph of 4 x 2 pixels: its second pixel in the first row, centre 1.5, 0.5.
    x, y = cram_jax.pixel_centers(2, 4)
    point = jnp.array([x[1], y[0]])
    assert_close(pixels.pixels_of_points(point, 2, 4), [1.5, 0.5])
    whole = cram_jax.rectangle_from_pixel_box((0, 0, 4, 2), 2, 4)
    assert_close(whole.as_array(), [0, 0, 1, 0.5, 0])
    pixel = cram_jax.rectangle_from_pixel_box((1, 0, 2, 1), 2, 4)
    mask = cram_jax.render_hard_mask(pixel, 2, 4)
    assert mask.tolist() == [[False, True, False, False], [False] * 4]


@pytest.mark.parametrize(("size", "crop", "picture"), WAYS)
def test_there_and_back(size, crop, picture):
    rng = np.random.default_rng(1)
    first = rng.uniform(-0.2, 0.8, (9, 2)) * picture[::-1]
    boxes = np.concatenate([first, first + rng.uniform(0.1, 9, (9, 2))], -1)
    boxes[0, 2:] = boxes[0, :2]  # No size at all.
    rectangles = cram_jax.rectangle_from_pixel_box(boxes, *size, crop=crop)
    back = cram_jax.rectangle_pixel_box(rectangles, *size, crop=crop)
    assert_close(back, boxes, atol=1e-4 * max(picture))
    points = pixels.points_of_pixels(jnp.asarray(boxes[:, :2]), *size, crop=crop)
    again = pixels.pixels_of_points(points, *size, crop=crop)
    assert_close(again, boxes[:, :2], atol=1e-4 * max(picture))


def test_the_map_of_a_layer_does_as_well_as_the_input():
    rectangles = Rectangle.from_array(draw(2))
    crop = (5, 6, 200, 150)
    of_input = cram_jax.rectangle_polygon(rectangles, 96, 144, crop=crop)
    of_map = cram_jax.rectangle_polygon(rectangles, 6, 9, crop=crop)
    assert_close(of_map, of_input, atol=1e-3)


def test_jit_vmap_a_crop_for_each_image_and_float64(x64):
    parameters = draw(3, 4).astype(np.float64)
    crops = np.array([way[1] for way in WAYS[:4]], np.float64)

    def boxes(parameters, crops):
        rectangles = Rectangle.from_array(parameters)
        return cram_jax.rectangle_pixel_box(rectangles, 64, 96, crop=crops)

    together = jax.jit(boxes)(parameters, crops)
    assert together.dtype == jnp.float64
    assert_close(jax.vmap(boxes)(parameters, crops), together)
    for i in range(4):
        expected = oracle(parameters[i], (64, 96), crops[i]).bounds
        assert_close(together[i], expected, atol=1e-9)


def test_the_share_has_the_gradient_of_finite_differences(x64):
    parameters = np.array([0.3, -0.2, 0.8, 0.5, 0.4])

    def share(parameters):
        rectangle = Rectangle.from_array(parameters)
        return cram_jax.share_of_picture(
            rectangle, 64, 96, crop=(9, 3, 130, 80), picture=(90, 150)
        )

    gradient = jax.grad(share)(jnp.asarray(parameters))
    assert_close(gradient, finite_difference_gradient(share, parameters), atol=1e-6)


@pytest.mark.parametrize("half_size", [0.0, 1e-6, 2.0])
def test_degenerate_rectangles_give_finite_values_and_gradients(half_size):
    def numbers(parameters):
        rectangle = Rectangle.from_array(parameters)
        box = cram_jax.rectangle_pixel_box(rectangle, 5, 9, picture=(5, 9))
        area = cram_jax.rectangle_pixel_area(rectangle, 5, 9)
        return area + box.sum() + cram_jax.share_of_picture(rectangle, 5, 9)

    parameters = jnp.array([0.0, 0.0, half_size, half_size, jnp.pi / 2])
    assert_tree_finite(jax.value_and_grad(numbers)(parameters))


def test_half_floats_give_float32():
    rectangle = Rectangle.from_array(jnp.zeros(5, jnp.bfloat16) + 0.25)
    box = cram_jax.rectangle_pixel_box(rectangle, 64, 64)
    assert box.dtype == jnp.float32


@pytest.mark.parametrize(
    ("crop", "message"),
    [
        ((0, 0, 3), r"last axis; got shape \(3,\)"),
        ((5, 0, 5, 9), r"left < right .* got \[5, 0, 5, 9\]"),
        (np.array([[0, 0, 1, 1], [0, 3, 1, 2]]), "top <"),
        ((0, 0, float("nan"), 1), "left < right"),
    ],
)
def test_a_crop_that_is_none_is_refused(crop, message):
    rectangle = Rectangle.from_array(jnp.zeros(5))
    for function in (
        cram_jax.rectangle_polygon,
        cram_jax.rectangle_pixel_box,
        cram_jax.rectangle_pixel_area,
        cram_jax.share_of_picture,
        cram_jax.is_wider_than_picture,
        cram_jax.covers_picture,
    ):
        with pytest.raises(ValueError, match=message):
            function(rectangle, 8, 8, crop=crop)
    with pytest.raises(ValueError, match=message):
        cram_jax.rectangle_from_pixel_box((0, 0, 1, 1), 8, 8, crop=crop)
