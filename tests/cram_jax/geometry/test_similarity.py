"""Similarities against matrices, scipy's resampling and rendered rectangles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from cram_jax.geometry import warping
from cram_jax.geometry.coordinates import map_extents, pixel_centers
from cram_jax.geometry.distances import rectangle_distance
from cram_jax.geometry.rectangle import Rectangle, rectangle_corners
from cram_jax.geometry.rendering import render_mask
from cram_jax.geometry.similarity import (
    Similarity,
    sample_similarity,
    transform_points,
    transform_rectangle,
)
from tests.checks import assert_close, assert_tree_finite

# One compilation per shape, not one per operation.
warp_image = jax.jit(warping.warp_image, static_argnames="fill")
inside_mask = jax.jit(warping.inside_mask, static_argnums=(1, 2))
warp_labels = jax.jit(warping.warp_labels, static_argnames="fill")

RANGES = {"max_angle": 3.0, "max_scale": 2.0, "max_shift": 0.7}
MILD = {"max_angle": 0.8, "max_scale": 1.25, "max_shift": 0.5}


def sample(seed, shape=(), ranges=RANGES, *, flip=True):
    return sample_similarity(jax.random.key(seed), shape, flip=flip, **ranges)


def matrix(similarity):
    """The 3 x 3 matrix in float64, straight from the definition."""
    s = {name: float(value) for name, value in vars(similarity).items()}
    cos, sin = np.cos(s["angle"]), np.sin(s["angle"])
    turn = np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
    shift = np.array([[1, 0, s["shift_x"]], [0, 1, s["shift_y"]], [0, 0, 1]])
    scale = np.diag([s["scale"], s["scale"], 1])
    return shift @ scale @ turn @ np.diag([s["flip"], 1, 1])


def one(similarities, index):
    return jax.tree.map(lambda field: field[index], similarities)


def random_rectangles(seed, shape):
    return Rectangle.from_array(
        jax.random.uniform(
            jax.random.key(seed),
            (*shape, 5),
            minval=jnp.array([-0.7, -0.7, 0.1, 0.1, -4.0]),
            maxval=jnp.array([0.7, 0.7, 0.9, 0.9, 4.0]),
        )
    )


def test_compose_inverse_and_points_agree_with_matrices():
    first, second = sample(0, (20,)), sample(1, (20,))
    composed, inverse = second.compose(first), first.inverse()
    assert set(np.asarray(first.flip)) == {-1.0, 1.0}
    points = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    moved = transform_points(first, points)
    for i in range(20):
        matrix_1, matrix_2 = matrix(one(first, i)), matrix(one(second, i))
        assert_close(matrix(one(composed, i)), matrix_2 @ matrix_1, atol=2e-6)
        assert_close(matrix(one(inverse, i)), np.linalg.inv(matrix_1), atol=2e-6)
        assert_close(moved[i], (matrix_1 @ [*points[i], 1])[:2], atol=2e-6)


def test_group_axioms():
    a, b, c = (sample(seed, (50,)) for seed in range(3))
    identity = Similarity.identity((50,))
    for left, right in [
        (a.compose(b).compose(c), a.compose(b.compose(c))),
        (a.compose(identity), a),
        (identity.compose(a), a),
        (a.inverse().inverse(), a),
        (a.compose(b).inverse(), b.inverse().compose(a.inverse())),
        (a.compose(a.inverse()), identity),
        (a.inverse().compose(a), identity),
    ]:
        np.testing.assert_array_equal(left.flip, right.flip)
        turn = left.angle - right.angle
        assert_close(jnp.cos(turn), jnp.ones(50), atol=1e-5)
        for name in ("scale", "shift_x", "shift_y"):
            assert_close(getattr(left, name), getattr(right, name), atol=1e-5)


def test_a_positive_angle_turns_right_into_down_and_a_flip_mirrors_first():
    turn = Similarity(np.pi / 2)
    assert_close(transform_points(turn, np.array([1.0, 0.0])), np.array([0.0, 1.0]))
    mirror = Similarity(np.pi / 2, 2.0, 0.5, 0.0, -1.0)
    assert_close(transform_points(mirror, np.array([1.0, 0.0])), np.array([0.5, -2.0]))


def test_transformed_rectangle_has_the_transformed_corners():
    similarities, rectangles = sample(2, (40,)), random_rectangles(3, (40,))
    moved = rectangle_corners(transform_rectangle(similarities, rectangles))
    expected = transform_points(
        jax.tree.map(lambda field: field[:, None], similarities),
        rectangle_corners(rectangles),
    )
    # The same set of corners; a mirror turns their order round.
    gaps = jnp.linalg.norm(moved[:, :, None] - expected[:, None], axis=-1)
    assert float(gaps.min(axis=1).max()) < 1e-5
    assert float(gaps.min(axis=2).max()) < 1e-5


def test_transforming_rectangles_is_an_action_of_the_group():
    a, b, rectangles = sample(4, (40,)), sample(5, (40,)), random_rectangles(6, (40,))
    one_by_one = transform_rectangle(a, transform_rectangle(b, rectangles))
    at_once = transform_rectangle(a.compose(b), rectangles)
    there_and_back = transform_rectangle(
        a.inverse(), transform_rectangle(a, rectangles)
    )
    for metric in ("gaussian", "corners"):
        zeros = np.zeros(40)
        for x, y in [(one_by_one, at_once), (there_and_back, rectangles)]:
            assert_close(rectangle_distance(x, y, metric=metric), zeros, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(31, 31), (17, 41), (37, 19), (1, 5)])
def test_warp_agrees_with_scipy(height, width):
    image = np.random.default_rng(0).normal(size=(height, width, 3)).astype(np.float32)
    x, y = pixel_centers(height, width)
    extent_x, extent_y = map_extents(height, width)
    for seed in range(4):
        similarity = sample(seed, (), MILD)
        grid = np.stack(np.broadcast_arrays(x, y[:, None], 1.0), axis=0)
        source = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix(similarity)), grid)
        column = (source[0] / extent_x + 1) * width / 2 - 0.5
        row = (source[1] / extent_y + 1) * height / 2 - 0.5
        expected = np.stack(
            [
                scipy.ndimage.map_coordinates(
                    channel, [row, column], order=1, mode="grid-constant", cval=0.3
                )
                for channel in np.moveaxis(image, -1, 0)
            ],
            axis=-1,
        )
        moved = warp_image(similarity, image, fill=0.3)
        # Pixel coordinates near 40 are rounded to 2e-6; the image is white noise.
        assert_close(moved, expected, atol=5e-5, rtol=0)


@pytest.mark.parametrize("shape", [(128, 128), (64, 128), (128, 64)])
def test_warping_a_rendered_mask_is_rendering_the_moved_rectangle(shape):
    similarities, rectangles = sample(7, (12,), MILD), random_rectangles(8, (12,))
    masks = render_mask(rectangles, *shape, sharpness=30.0)
    warped = warp_image(similarities, masks[..., None])[..., 0]
    moved = transform_rectangle(similarities, rectangles)
    # A scaled edge is as much softer as the scale is larger.
    rendered = render_mask(moved, *shape, sharpness=30.0 / similarities.scale)
    inside = inside_mask(similarities, *shape) > 0.999
    difference = jnp.where(inside, jnp.abs(warped - rendered), 0)
    means = difference.sum(axis=(-2, -1)) / inside.sum(axis=(-2, -1))
    assert float(means.max()) < 1e-3
    same_sharpness = render_mask(moved, *shape, sharpness=30.0)
    assert float(jnp.where(inside, jnp.abs(warped - same_sharpness), 0).mean()) < 0.01
    assert float(jnp.where(inside, rendered, 0).mean()) > 0.05


def test_quarter_turns_shifts_and_flips_of_a_square_image_are_exact_permutations():
    image = np.random.default_rng(0).normal(size=(8, 8, 2)).astype(np.float32)
    for turns in range(-3, 4):
        moved = warp_image(Similarity(turns * np.pi / 2), image)
        assert_close(moved, np.rot90(image, -turns), atol=1e-5)
    assert_close(warp_image(Similarity(0, flip=-1), image), image[:, ::-1], atol=1e-6)
    moved = warp_image(Similarity(0.0, 1.0, 2 * 2 / 8, -3 * 2 / 8), image, fill=7.0)
    expected = np.full_like(image, 7.0)
    expected[:-3, 2:] = image[3:, :-2]
    assert_close(moved, expected, atol=1e-5)
    assert_close(warp_image(Similarity.identity(), image), image, atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(17, 41), (1, 5)])
def test_labels_are_warped_as_an_oracle_does_pixel_by_pixel(height, width):
    labels = np.random.default_rng(1).integers(0, 5, (3, height, width), np.uint8)
    similarities = sample(11, (3,), MILD)
    moved = np.asarray(warp_labels(similarities, labels, fill=255))
    assert moved.dtype == np.uint8
    longer, near_an_edge = max(height, width), 0
    for image in range(3):
        back = np.linalg.inv(matrix(one(similarities, image)).astype(np.float64))
        for row, column in np.ndindex(height, width):
            x, y = (2 * column + 1 - width) / longer, (2 * row + 1 - height) / longer
            from_x, from_y, _ = back @ [x, y, 1]
            # In pixels: the square in which the point lies.
            place = np.array([from_y * longer + height, from_x * longer + width]) / 2
            if np.abs(place - np.round(place)).min() < 1e-4:
                near_an_edge += 1
                continue
            i, j = np.floor(place).astype(int)
            inside = 0 <= i < height and 0 <= j < width
            expected = labels[image, i, j] if inside else 255
            assert moved[image, row, column] == expected, (image, row, column)
    assert near_an_edge < 5
    assert (moved == 255).any()


def test_what_is_no_label_map_is_not_warped_as_one():
    for wrong in (np.zeros((3, 4), np.float32), np.zeros(3, np.uint8)):
        with pytest.raises(ValueError, match=r"integers \[..., H, W\], got"):
            warping.warp_labels(Similarity(0.0), wrong, fill=0)


def test_inside_mask_is_the_warp_of_ones():
    similarities = sample(9, (6,))
    ones = jnp.ones((13, 29, 1))
    inside = inside_mask(similarities, 13, 29)
    assert_close(inside, warp_image(similarities, ones)[..., 0], atol=5e-6)
    filled = warp_image(similarities, ones, fill=1.0)
    assert_close(filled, jnp.ones((6, 13, 29, 1)), atol=5e-6)
    assert 0.05 < float(inside.mean()) < 0.95


def test_batch_axes_broadcast_and_jit_and_vmap_agree():
    images = jax.random.normal(jax.random.key(0), (3, 7, 11, 2))
    similarities = sample(10, (4, 1))
    moved = warp_image(similarities, images)
    assert moved.shape == (4, 3, 7, 11, 2)
    assert_close(moved[2, 1], warp_image(one(similarities, (2, 0)), images[1]))
    mapped = jax.vmap(warp_image, in_axes=(0, None))(similarities, images)
    assert_close(mapped, moved)


def test_a_similarity_is_a_pytree_of_arrays_of_one_shape():
    similarity = Similarity(jnp.zeros(3, jnp.bfloat16), 2)
    leaves = jax.tree.leaves(similarity)
    assert [leaf.shape for leaf in leaves] == [(3,)] * 5
    assert {leaf.dtype for leaf in leaves} == {jnp.dtype("float32")}
    assert vars(jax.tree.map(lambda leaf: None, similarity)) == {
        "angle": None,
        "scale": None,
        "shift_x": None,
        "shift_y": None,
        "flip": None,
    }


def test_half_precision_images_keep_their_dtype():
    image = jax.random.uniform(jax.random.key(0), (9, 9, 1))
    for dtype, atol in ((jnp.bfloat16, 1e-2), (jnp.float16, 1e-3)):
        moved = warp_image(Similarity(0.4), image.astype(dtype))
        assert moved.dtype == dtype
        exact = warp_image(Similarity(0.4), image.astype(dtype).astype(jnp.float32))
        assert_close(moved, exact, atol=atol, rtol=0)


def test_gradients_are_finite_however_far_the_image_goes():
    image = jax.random.normal(jax.random.key(0), (7, 5, 2))

    def total(similarity, image):
        return jnp.sum(warp_image(similarity, image) ** 2)

    gradient = jax.jit(jax.grad(total, argnums=(0, 1)))

    for similarity in (
        Similarity.identity(),
        Similarity(0.3, 1e-12),
        Similarity(0.3, 1e12),
        Similarity(0.3, 1.0, 1e9),
    ):
        assert_tree_finite(gradient(similarity, image))


def test_samples_fill_their_ranges_and_depend_on_the_key_only():
    drawn = sample(0, (2000,), flip=True)
    assert_tree_finite(drawn)
    for name, limit in (("angle", 3.0), ("shift_x", 0.7), ("shift_y", 0.7)):
        values = np.asarray(getattr(drawn, name))
        assert -limit <= values.min() < -0.98 * limit
        assert 0.98 * limit < values.max() <= limit
        assert abs(values.mean()) < 0.1 * limit
    log_scale = np.log2(np.asarray(drawn.scale))
    assert -1 - 1e-6 <= log_scale.min() < -0.98
    assert abs(log_scale.mean()) < 0.05
    assert abs(float(drawn.flip.mean())) < 0.1
    assert (sample(0, (2000,), flip=False).flip == 1).all()
    np.testing.assert_array_equal(drawn.angle, sample(0, (2000,)).angle)
    assert (drawn.angle != sample(1, (2000,)).angle).any()
    still = {"max_angle": 0, "max_scale": 1, "max_shift": 0}
    nothing = sample(0, (5,), still, flip=False)
    for leaf, same in zip(
        jax.tree.leaves(nothing),
        jax.tree.leaves(Similarity.identity((5,))),
        strict=True,
    ):
        np.testing.assert_array_equal(leaf, same)


def draw(max_angle, max_scale, max_shift):
    return sample_similarity(
        jax.random.key(0),
        max_angle=max_angle,
        max_scale=max_scale,
        max_shift=max_shift,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: draw(1, 0.8, 0), "max_scale=0.8"),
        (lambda: draw(-1, 1, 0), "max_angle=-1"),
        (lambda: draw(1, 1, -2), "max_shift=-2"),
        (lambda: warp_image(Similarity(0.1), np.zeros((4, 4))), "channel axis"),
        (lambda: warp_image(Similarity(0.1), np.zeros((4, 4, 1), np.uint8)), "uint8"),
        (lambda: transform_points(Similarity(0.1), np.zeros(3)), r"\(3,\)"),
    ],
)
def test_errors_say_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
