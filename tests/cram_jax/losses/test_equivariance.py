"""The equivariance loss: zero when exact, growing, blind to size and to names."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_mask
from cram_jax.geometry.similarity import (
    Similarity,
    sample_similarity,
    transform_rectangle,
)
from cram_jax.geometry.warping import inside_mask
from cram_jax.losses.equivariance import (
    METRICS,
    equivariance_distance,
    equivariance_loss,
    equivariance_terms,
    mean_of_terms,
)
from cram_jax.losses.equivariance_scores import equivariance_iou, mask_equivariance_iou
from tests.checks import (
    FINITE_DIFFERENCES,
    assert_close,
    assert_tree_finite,
    finite_difference_gradient,
)

COUNT = 8
LOW = np.array([-0.3, -0.3, 0.15, 0.15, -2.0])
HIGH = np.array([0.3, 0.3, 0.5, 0.5, 2.0])
distance = jax.jit(equivariance_distance, static_argnames=("metric", "relative"))
loss = jax.jit(
    equivariance_loss,
    static_argnames=("metric", "relative", "stop_gradient", "min_inside"),
)
masks_of = jax.jit(render_mask, static_argnums=(1, 2))
mask_iou_after_move = jax.jit(mask_equivariance_iou)
moved_by = jax.jit(transform_rectangle)
everywhere = {"metric": METRICS, "relative": (True, False)}


def all_choices(test):
    for name, values in everywhere.items():
        test = pytest.mark.parametrize(name, values)(test)
    return test


@functools.cache
def similarities(seed=0, count=COUNT):
    return sample_similarity(
        jax.random.key(seed),
        (count,),
        max_angle=0.8,
        max_scale=1.25,
        max_shift=0.3,
        flip=True,
    )


def rectangles(seed=0, count=COUNT):
    return np.random.default_rng(seed).uniform(LOW, HIGH, (count, 5))


def as_rectangle(array):
    return Rectangle.from_array(jnp.asarray(array))


def renamed(rectangle, quarter_turns):
    width, height = rectangle.half_width, rectangle.half_height
    if quarter_turns % 2:
        width, height = height, width
    angle = rectangle.angle + quarter_turns * jnp.pi / 2
    return dataclasses.replace(
        rectangle, half_width=width, half_height=height, angle=angle
    )


@all_choices
def test_loss_is_zero_for_exactly_moved_rectangles_whatever_they_are_called(
    metric, relative
):
    first = as_rectangle(rectangles().astype(np.float32))
    moved = moved_by(similarities(), first)
    for turns in range(-2, 3):
        for pair in ((renamed(first, turns), moved), (first, renamed(moved, turns))):
            value = loss(*pair, similarities(), metric=metric, relative=relative)
            assert 0 <= float(value) < 1e-6


@pytest.mark.usefixtures("x64")
@all_choices
def test_names_of_a_rectangle_do_not_matter_to_1e_6(metric, relative):
    first, second = as_rectangle(rectangles(1)), as_rectangle(rectangles(2))
    options = {"metric": metric, "relative": relative}
    expected = distance(first, second, similarities(), **options)
    assert float(expected.min()) > 0.01
    for turns in (1, 2, -1):
        for pair in ((renamed(first, turns), second), (first, renamed(second, turns))):
            value = distance(*pair, similarities(), **options)
            assert_close(value, expected, atol=1e-6, rtol=0)


@all_choices
def test_distance_grows_with_every_kind_of_error(metric, relative):
    first = as_rectangle(rectangles(3).astype(np.float32) * [1, 1, 1, 0.3, 1])
    exact = moved_by(similarities(), first).as_array()
    for error in np.diag([0.1, 0.1, 0.1, 0.05, 0.25]).astype(np.float32):
        values = [
            distance(
                first,
                Rectangle.from_array(exact + size * error),
                similarities(),
                metric=metric,
                relative=relative,
            )
            for size in range(4)
        ]
        growth = np.diff(np.asarray(values, np.float64), axis=0)
        assert growth.min() > 1e-5, error


@all_choices
def test_relative_distances_do_not_see_a_common_factor(metric, relative):
    pair = rectangles(4), rectangles(5)
    still = Similarity.identity((COUNT,))
    factor = np.array([0.4, 0.4, 0.4, 0.4, 1.0])
    full, small = (
        distance(
            *(as_rectangle(np.float32(array * f)) for array in pair),
            still,
            metric=metric,
            relative=relative,
        )
        for f in (1.0, factor)
    )
    if relative:
        assert_close(small, full, atol=1e-5, rtol=1e-4)
    elif metric in ("gaussian", "corners"):
        assert_close(small, 0.16 * full, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_relative_distances_pull_no_common_size_where_absolute_ones_shrink(metric):
    first, second = (np.float32(rectangles(seed, 500)) for seed in (6, 7))
    moves = similarities(count=500)

    def total(log_size, first, second, relative):
        size = jnp.stack([1, 1, jnp.exp(log_size), jnp.exp(log_size), 1])
        pair = as_rectangle(first * size), as_rectangle(second * size)
        values = distance(*pair, moves, metric=metric, relative=relative)
        return jnp.mean(values)

    pull = jax.jit(jax.grad(total), static_argnums=3)
    assert abs(float(pull(0.0, first, second, True))) < 1e-5
    if metric != "mask":
        # Inconsistent sizes about one centre: the descent goes to smaller ones.
        assert float(pull(0.0, first, second, False)) > 1e-3


@pytest.mark.usefixtures("x64")
@all_choices
def test_gradient_agrees_with_finite_differences(metric, relative):
    first, found = rectangles(8, 3), rectangles(9, 3)
    moves = similarities(count=3)
    options = {"metric": metric, "relative": relative}

    @jax.jit
    def total(both):
        pair = as_rectangle(both[0]), as_rectangle(both[1])
        return distance(*pair, moves, **options).sum()

    both = np.stack([first, found])
    gradient = np.asarray(jax.grad(total)(both))
    expected = finite_difference_gradient(total, both)
    # The unit of a relative offset is a constant to the gradient, by design.
    columns = [0, 1, 4] if relative else [0, 1, 2, 3, 4]
    assert np.abs(expected[..., columns]).max() > 0.01
    assert_close(
        gradient[..., columns], expected[..., columns], atol=FINITE_DIFFERENCES
    )


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("metric", METRICS)
def test_relative_gradient_of_concentric_pairs_agrees_in_every_column(metric):
    moves = similarities(count=3)
    first, found = rectangles(10, 3), rectangles(11, 3)
    centers = moved_by(moves, as_rectangle(first)).as_array()
    found[:, :2] = centers[:, :2]

    @jax.jit
    def total(both):
        pair = as_rectangle(both[0]), as_rectangle(both[1])
        return distance(*pair, moves, metric=metric).sum()

    both = np.stack([first, found])
    expected = finite_difference_gradient(total, both)
    assert np.abs(expected[..., 2:4]).max() > 0.05
    assert_close(jax.grad(total)(both), expected, atol=FINITE_DIFFERENCES)


@all_choices
def test_gradients_are_finite_at_singular_rectangles(metric, relative):
    special = [
        [0, 0, 0.3, 0.3, 0],
        [0, 0, 0.3, 0.2, np.pi / 2],
        [0, 0, 0.3, 0.2, np.pi / 4],
        [0.1, 0, 0.0, 0.0, 0],
        [0.1, 0, 0.3, 0.0, 1],
        [0, 0, 1e-20, 1e-20, 0],
        [0, 0, 2.0, 2.0, -np.pi / 2],
        [5.0, 5.0, 0.1, 0.1, 0],
    ]
    special = np.array(special, np.float32)
    first, second = np.repeat(special, 8, axis=0), np.tile(special, (8, 1))

    def total(first, second, moves):
        return equivariance_loss(
            as_rectangle(first),
            as_rectangle(second),
            moves,
            metric=metric,
            relative=relative,
            min_inside=0.0,
        )

    gradient = jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))
    for turn in (0.0, np.pi / 2):
        moves = Similarity(np.full(64, turn, np.float32))
        assert_tree_finite(gradient(first, second, moves))


def test_stop_gradient_holds_the_side_that_is_named():
    first, second = (as_rectangle(np.float32(rectangles(s))) for s in (12, 13))
    gradient, moves = jax.grad(loss, argnums=(0, 1)), similarities()
    free = {}
    for side in ("none", "original", "moved"):
        gradients = gradient(first, second, moves, stop_gradient=side)
        free[side] = [float(jnp.abs(g.as_array()).max()) > 0 for g in gradients]
    assert free == {
        "none": [True, True],
        "original": [False, True],
        "moved": [True, False],
    }


def test_rectangles_mostly_outside_of_the_frame_do_not_count():
    inside = [0.0, 0.0, 0.2, 0.2, 0.3]
    half_out = [0.9, 0.0, 0.2, 0.2, 0.0]
    outside = [1.5, 0.0, 0.2, 0.2, 0.0]
    larger_than_the_frame = [0.1, 0.0, 1.9, 1.9, 0.2]
    wrong = as_rectangle(np.array([[0.0, 0.0, 0.3, 0.1, 0.0]]))
    still = Similarity.identity((1,))

    def value(array, **options):
        first = as_rectangle(np.array([array]))
        return float(loss(first, wrong, still, **options))

    assert value(inside) > 0
    assert value(outside) == 0
    assert value(outside, min_inside=0.0) > 0
    assert value(larger_than_the_frame) > 0
    assert value(half_out, min_inside=0.8) == 0
    assert value(half_out, min_inside=0.7) > 0
    assert value([0, 0.9, 0.2, 0.2, 0], extent_y=0.5) == 0
    both = as_rectangle(np.array([inside, outside]))
    mixed = loss(
        both, as_rectangle(np.repeat(wrong.as_array(), 2, 0)), Similarity.identity((2,))
    )
    assert_close(mixed, np.array(value(inside)))


def test_padding_does_not_count_and_layers_are_averaged():
    first, second = (as_rectangle(np.float32(rectangles(s))) for s in (14, 15))
    moves = similarities()
    exact = moved_by(moves, first)
    options = {"min_inside": 0.0}
    one_layer = loss(first, second, moves, **options)
    layers = loss(
        {"attention1": first, "attention2": first},
        {"attention1": second, "attention2": exact},
        moves,
        **options,
    )
    assert_close(layers, np.asarray(one_layer) / 2, rtol=1e-4)
    weights = np.float32(np.arange(COUNT) < 5)
    cut = [jax.tree.map(lambda leaf: leaf[:5], x) for x in (first, second, moves)]
    padded = loss(first, second, moves, weights=weights, **options)
    assert_close(padded, loss(*cut, **options))
    assert loss(first, second, moves, weights=np.zeros(COUNT)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"metric": "euclid"}, r"'euclid'.*'gaussian'.*'mask'"),
        ({"stop_gradient": "left"}, "'left'"),
    ],
)
def test_unknown_choices_are_named(options, message):
    one = as_rectangle(np.zeros((1, 5)))
    with pytest.raises(ValueError, match=message):
        equivariance_loss(one, one, Similarity.identity((1,)), **options)


def test_layers_that_differ_are_named():
    one = as_rectangle(np.zeros((1, 5)))
    for pair in (({"a": one}, {"b": one}), ({}, {})):
        with pytest.raises(ValueError, match="same layers"):
            equivariance_loss(*pair, Similarity.identity((1,)))


def test_equivariance_iou_of_exact_and_of_unmoved_predictions():
    first = as_rectangle(np.float32(rectangles(16)))
    moves = similarities()
    exact = moved_by(moves, first)
    assert_close(equivariance_iou(first, exact, moves), np.ones(COUNT), atol=1e-5)
    stubborn = equivariance_iou(first, first, moves)
    assert float(stubborn.max()) < 0.9
    assert_close(
        equivariance_iou(first, first, Similarity.identity((COUNT,))), np.ones(COUNT)
    )


@pytest.mark.parametrize("shape", [(64, 64), (32, 64)])
def test_mask_equivariance_iou_of_exact_and_of_unmoved_masks(shape):
    first = as_rectangle(np.float32(rectangles(17) * [1, 0.5, 1, 1, 1]))
    moves = similarities()

    def masks(rectangle):
        return masks_of(rectangle, *shape, sharpness=20.0)

    exact = moved_by(moves, first)
    values = mask_iou_after_move(masks(first), masks(exact), moves)
    assert float(values.min()) > 0.9
    stubborn = mask_iou_after_move(masks(first), masks(first), moves)
    assert float(stubborn.mean()) < 0.7
    # What lies outside of the warped image is not compared.
    outside = inside_mask(moves, *shape) == 0
    spoilt = jnp.where(outside, 1.0, masks(exact))
    assert_close(mask_iou_after_move(masks(first), spoilt, moves), values, atol=1e-6)


def several_per_image(images, per_image, seed):
    array = np.float32(rectangles(seed, images * per_image))
    return as_rectangle(array.reshape(images, per_image, 5))


# 4 and 4: lined up from the right, values of images would meet rectangles unnoticed.
@pytest.mark.parametrize("per_image", [3, 4])
def test_values_of_images_meet_all_rectangles_of_their_image(per_image):
    first, second = (several_per_image(4, per_image, seed) for seed in (18, 19))
    moves, weights = similarities(count=4), np.array([1, 0, 1, 1], np.float32)
    found = loss(first, second, moves, weights=weights, min_inside=0.3)

    def flat(tree):
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, -1), tree)

    def repeated(tree):
        return jax.tree.map(lambda leaf: jnp.repeat(leaf, per_image), tree)

    each = flat(first), flat(second), repeated(moves)
    expected = loss(*each, weights=np.repeat(weights, per_image), min_inside=0.3)
    assert_close(found, expected)
    for score in (equivariance_iou, equivariance_distance):
        values = score(first, second, moves)
        assert values.shape == (4, per_image)
        assert_close(values.ravel(), score(*each), atol=1e-5)
    masks = [masks_of(each, 16, 16, sharpness=9.0) for each in (first, second)]
    values = mask_equivariance_iou(masks[0], masks[1], moves)
    one, other = (mask.reshape(-1, 16, 16) for mask in masks)
    assert_close(values.ravel(), mask_equivariance_iou(one, other, repeated(moves)))
    own = np.float32(np.arange(4 * per_image).reshape(4, per_image) % 3 > 0)
    found = loss(first, second, moves, weights=own, min_inside=0.3)
    assert_close(found, loss(*each, weights=own.ravel(), min_inside=0.3))


def test_values_that_belong_to_no_image_are_refused():
    one, several = (several_per_image(4, count, 20) for count in (1, 4))
    single = jax.tree.map(lambda leaf: leaf[:, 0], one)
    moves = similarities(count=4)
    with pytest.raises(ValueError, match=r"weights \(4, 4\) do not fit .* \(4,\)"):
        equivariance_loss(single, single, moves, weights=np.ones((4, 4)))
    with pytest.raises(ValueError, match=r"weights \(3,\) do not fit"):
        equivariance_loss(several, several, moves, weights=np.ones(3))
    with pytest.raises(ValueError, match=r"similarities \(3,\) do not fit"):
        equivariance_loss(several, several, similarities(count=3))
    with pytest.raises(ValueError, match=r"\(4,\) and moved rectangles \(4, 4\)"):
        equivariance_loss(single, several, moves)


@all_choices
def test_sums_of_parts_make_the_mean_of_the_whole(metric, relative):
    first, second = (as_rectangle(np.float32(rectangles(s))) for s in (21, 22))
    far = dataclasses.replace(first, center_x=first.center_x + 1.4)
    layers, moved = {"a": first, "b": far}, {"a": second, "b": second}
    weights = np.asarray(np.arange(COUNT) != 2, np.float32)
    options = {"metric": metric, "relative": relative, "min_inside": 0.5}
    expected = loss(layers, moved, similarities(), weights=weights, **options)
    total = jnp.zeros((2, 2))
    for rows in ([0], [1, 2, 3], [4, 5, 6, 7]):
        part = jax.tree.map(
            lambda leaf, rows=rows: leaf[np.array(rows)],
            (layers, moved, similarities()),
        )
        terms = equivariance_terms(*part, weights=weights[np.array(rows)], **options)
        total += jnp.stack(terms)
    assert 0 < total[1, 1] < total[1, 0] <= 7
    assert_close(mean_of_terms(total[0], total[1]), expected)


@all_choices
def test_pairs_without_weight_may_hold_anything_and_others_may_not(metric, relative):
    first, second = (np.asarray(rectangles(seed), np.float32) for seed in (23, 24))
    weights, moves = np.asarray(np.arange(COUNT) < 5, np.float32), similarities()

    @jax.jit
    @functools.partial(jax.value_and_grad, argnums=(0, 1))
    def value_and_gradients(first, second, weights):
        return equivariance_loss(
            as_rectangle(first),
            as_rectangle(second),
            moves,
            metric=metric,
            relative=relative,
            weights=weights,
        )

    expected = value_and_gradients(first, second, weights)
    for junk in (np.nan, np.inf, 1e38):
        spoilt = [array.copy() for array in (first, second)]
        for array in spoilt:
            array[5:] = junk
        found = value_and_gradients(*spoilt, weights)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    spoilt[0][0] = np.nan
    assert np.isnan(value_and_gradients(*spoilt, weights)[0])


def test_fractions_of_weight_make_a_mean():
    first, second = (as_rectangle(np.float32(rectangles(s))) for s in (25, 26))
    moves = similarities()
    full = loss(first, second, moves, weights=np.ones(COUNT, np.float32))
    assert_close(loss(first, second, moves, weights=np.full(COUNT, 0.01)), full)
