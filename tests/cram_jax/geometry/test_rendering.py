import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import shapely

from cram_jax.attention.gate import apply_mask, gate
from cram_jax.geometry.coordinates import pixel_centers
from cram_jax.geometry.rectangle import Rectangle, rectangle_area
from cram_jax.geometry.rendering import (
    mask_union,
    relative_sharpness,
    render_hard_mask,
    render_mask,
)
from tests.checks import (
    assert_close,
    assert_tree_finite,
    finite_difference_gradient,
    tolerance,
)
from tests.cram_jax.geometry.test_rectangle import (
    SPECIAL_ANGLES,
    other_names,
    polygon,
    rectangles,
)


def oracle_mask(parameters, height, width, sharpness):
    """One mask by plain loops in float64, straight from the formula."""
    x0, y0, w, h, angle = (float(p) for p in parameters)
    longer = max(height, width)
    mask = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            x = ((j + 0.5) / width * 2 - 1) * width / longer - x0
            y = ((i + 0.5) / height * 2 - 1) * height / longer - y0
            u = np.cos(angle) * x + np.sin(angle) * y
            v = -np.sin(angle) * x + np.cos(angle) * y
            value = 1.0
            for distance in (w + u, w - u, h + v, h - v):
                value /= 1 + np.exp(-sharpness * distance)
            mask[i, j] = value
    return mask


@pytest.mark.parametrize("shape", [(7, 7), (5, 11), (13, 3), (1, 1)])
def test_soft_mask_agrees_with_the_formula(shape):
    r = rectangles(0, 24)
    mask = jax.jit(lambda r: render_mask(r, *shape, sharpness=9.0))(r)
    for i, parameters in enumerate(np.asarray(r.as_array())):
        assert_close(mask[i], oracle_mask(parameters, shape[0], shape[1], 9.0))


def test_hard_mask_agrees_with_shapely():
    r = rectangles(1, 40)
    mask = render_hard_mask(r, 23, 31)
    x, y = (np.asarray(axis) for axis in pixel_centers(23, 31))
    for i, parameters in enumerate(np.asarray(r.as_array())):
        region = polygon(parameters)
        inside = shapely.contains_xy(region, x[None, :], y[:, None])
        near_border = shapely.distance(
            region.boundary, shapely.points(*np.meshgrid(x, y))
        )
        assert ((np.asarray(mask[i]) == inside) | (near_border < 1e-5)).all()


def test_tends_to_the_hard_mask_as_the_sharpness_grows():
    r = rectangles(2, 40)
    hard = np.asarray(render_hard_mask(r, 32, 32), np.float64)
    errors = [
        np.abs(render_mask(r, 32, 32, sharpness=s) - hard).mean()
        for s in (3.0, 10.0, 30.0, 100.0, 1e4)
    ]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 1e-4


def test_mass_tends_to_the_area():
    r = Rectangle.from_array(jnp.array([0.1, -0.1, 0.4, 0.3, 0.6]))
    mass = render_mask(r, 128, 128, sharpness=200.0).mean() * 4
    assert_close(mass, rectangle_area(r), rtol=2e-3, atol=0)


def test_mask_does_not_depend_on_the_name_of_the_region():
    r = rectangles(3, 64)
    mask = render_mask(r, 16, 12, sharpness=10.0)
    assert ((mask >= 0) & (mask <= 1)).all()
    for other in other_names(r):
        assert_close(render_mask(other, 16, 12, sharpness=10.0), mask, atol=2e-5)


def test_moving_the_centre_by_whole_pixels_moves_the_mask():
    r = rectangles(4, 24)
    moved = dataclasses.replace(r, center_x=r.center_x + 2 * 3 / 16)
    mask = render_mask(r, 16, 16, sharpness=10.0)
    moved_mask = render_mask(moved, 16, 16, sharpness=10.0)
    assert_close(moved_mask[:, :, 3:], mask[:, :, :-3], atol=2e-5)


def test_sharpness_may_differ_by_example_and_be_traced():
    r = rectangles(5, 24)
    sharpness = jnp.linspace(1.0, 20.0, 24)
    together = jax.jit(lambda r, s: render_mask(r, 6, 7, sharpness=s))(r, sharpness)
    for i in (0, 23):
        one = jax.tree.map(lambda leaf, i=i: leaf[i], r)
        assert_close(together[i], render_mask(one, 6, 7, sharpness=float(sharpness[i])))


def test_relative_sharpness_scales_the_mask_with_the_rectangle():
    # Half the rectangle on a map of half as many pixels is the same picture.
    array = jnp.array([[0.2, -0.1, 0.5, 0.3, 0.6]])
    half = array * jnp.array([0.5, 0.5, 0.5, 0.5, 1.0])
    r, small = Rectangle.from_array(array), Rectangle.from_array(half)
    mask = render_mask(r, 8, 8, sharpness=relative_sharpness(r, 5.0))
    zoomed = render_mask(small, 16, 16, sharpness=relative_sharpness(small, 5.0))
    assert_close(zoomed[:, 4:12, 4:12], mask)


def test_relative_sharpness_leaves_a_point_no_mask_and_finite_gradients():
    def mass(sizes):
        array = jnp.array([0.0, 0.0, 0.0, 0.0, 0.3]).at[2:4].set(sizes)
        r = Rectangle.from_array(array)
        return render_mask(r, 16, 16, sharpness=relative_sharpness(r, 5.0)).mean()

    sizes = jnp.zeros(2)
    assert float(mass(sizes)) < 1e-3
    assert_tree_finite(jax.grad(mass)(sizes))


def test_gate_is_the_product_and_keeps_the_dtype():
    r = rectangles(6, 24)
    features = jax.random.normal(jax.random.key(0), (24, 5, 7, 3))
    mask = render_mask(r, 5, 7, sharpness=8.0)
    expected = np.asarray(features) * (0.2 + 0.8 * np.asarray(mask))[..., None]
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        gated = gate(features.astype(dtype), r, sharpness=8.0, floor=0.2)
        assert gated.dtype == dtype
        assert_close(gated, expected, atol=4 * tolerance(dtype), rtol=tolerance(dtype))


def plain_gate(features, rectangle, sharpness, floor):
    mask = render_mask(rectangle, *features.shape[-3:-1], sharpness=sharpness)
    return features * (floor + (1 - floor) * mask)[..., None]


def test_gradient_of_the_gate_agrees_with_plain_autodiff():
    sizes = [(0.0, 0.0), (0.5, 0.0), (0.5, 0.5), (0.6, 0.3), (1.5, 1.5)]
    array = jnp.array([[0.1, 0, w, h, a] for w, h in sizes for a in SPECIAL_ANGLES])
    features = jax.random.normal(jax.random.key(0), (len(array), 6, 5, 4))
    weights = jax.random.normal(jax.random.key(1), features.shape)

    def ours(features, array, sharpness):
        r = Rectangle.from_array(array)
        return jnp.sum(weights * gate(features, r, sharpness=sharpness, floor=0.1))

    def plain(features, array, sharpness):
        r = Rectangle.from_array(array)
        return jnp.sum(weights * plain_gate(features, r, sharpness, 0.1))

    arguments = (features, array, 7.0)
    gradients = jax.jit(jax.grad(ours, (0, 1, 2)))(*arguments)
    expected = jax.grad(plain, (0, 1, 2))(*arguments)
    jax.tree.map(lambda g, e: assert_close(g, e, atol=2e-5), gradients, expected)


def test_gradient_of_the_gate_agrees_with_finite_differences(x64):
    features = jax.random.normal(jax.random.key(0), (6, 5, 3), jnp.float64)
    weights = jax.random.normal(jax.random.key(1), features.shape, jnp.float64)

    def loss(array):
        r = Rectangle.from_array(array)
        return jnp.sum(weights * gate(features, r, sharpness=6.0))

    for parameters in ([0.1, 0.2, 0.6, 0.3, 0.4], [0.0, 0.0, 0.5, 0.5, np.pi / 2]):
        expected = finite_difference_gradient(loss, np.array(parameters))
        assert_close(jax.grad(loss)(jnp.array(parameters)), expected, atol=5e-4)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_low_precision_gradients_are_finite_and_summed_in_float32(dtype):
    r = rectangles(7, 24)
    # 4,096 channels of 0.25: a float16 running sum would stop growing at 2,048 units.
    features = jnp.full((24, 4, 4, 4096), 0.25, dtype)

    def mask_gradient(mask):
        return jnp.sum(apply_mask(features, mask).astype(jnp.float32))

    mask = render_mask(r, 4, 4, sharpness=5.0)
    gradient = jax.grad(mask_gradient)(mask)
    assert gradient.dtype == jnp.float32
    assert_close(gradient, np.full((24, 4, 4), 1024.0))


def test_extreme_sharpness_and_sizes_stay_finite():
    array = jnp.array([[0, 0, w, w, a] for w in (0.0, 1e-8, 1e4) for a in (0.0, 1.6)])

    def total(array, sharpness):
        r = Rectangle.from_array(array)
        return render_mask(r, 5, 5, sharpness=sharpness).sum()

    for sharpness in (1e-6, 1e6):
        assert_tree_finite(jax.value_and_grad(total, (0, 1))(array, sharpness))


def test_gate_works_under_vmap_and_remat():
    r = rectangles(8, 24)
    features = jax.random.normal(jax.random.key(0), (24, 5, 7, 3))

    def one(features, rectangle):
        return gate(features, rectangle, sharpness=8.0)

    expected = one(features, r)
    assert_close(jax.vmap(one)(features, r), expected)
    gradient = jax.grad(lambda f: jnp.sum(jax.vmap(one)(f, r) ** 2))(features)
    remat = jax.grad(lambda f: jnp.sum(jax.checkpoint(one)(f, r) ** 2))(features)
    assert_close(remat, gradient)


@pytest.mark.parametrize(
    ("features", "settings", "message"),
    [
        (jnp.zeros((4, 4)), {}, r"\[\.\.\., H, W, C\].*\(4, 4\)"),
        (jnp.zeros((4, 0, 3)), {}, r"\(4, 0, 3\)"),
        (jnp.zeros((4, 4, 3), jnp.uint8), {}, "uint8"),
        (jnp.zeros((4, 4, 3)), {"sharpness": 0.0}, r"positive, got 0\.0"),
        (jnp.zeros((4, 4, 3)), {"sharpness": -3}, "positive, got -3"),
        (jnp.zeros((4, 4, 3)), {"floor": 1.0}, r"floor.*got 1\.0"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(features, settings, message):
    r = Rectangle.from_array(jnp.ones(5))
    with pytest.raises(ValueError, match=message):
        gate(features, r, **{"sharpness": 10.0, **settings})


def test_the_union_keeps_small_values_and_divides_by_nothing():
    masks = np.random.default_rng(0).uniform(size=(3, 3, 4, 5)).astype(np.float32)
    masks[:, :, 0] **= 30  # next to nothing
    masks[:, 1, 1], masks[:, :2, 2], masks[:, :, 3, :2] = 1, 1, 1
    expected = 1 - np.prod(1 - masks.astype(np.float64), axis=1)
    union = mask_union(jnp.asarray(masks))
    assert_close(union, expected, atol=1e-12, rtol=1e-6)
    assert (np.asarray(union) <= 1).all()
    for row, own in enumerate(masks):
        assert_close(mask_union(jnp.asarray(own)), expected[row], rtol=1e-6)
    # The share of each mask is what the others leave open.
    gradient = jax.grad(lambda masks: mask_union(masks).sum())(jnp.asarray(masks))
    for k in range(3):
        others = np.delete(1 - masks.astype(np.float64), k, axis=1).prod(axis=1)
        assert_close(gradient[:, k], others)
    one = jnp.asarray(masks[:, :1])
    np.testing.assert_array_equal(mask_union(one), one[:, 0])


@pytest.mark.parametrize("shape", [(4, 5), (2, 0, 4, 5)])
def test_a_union_of_no_masks_is_refused(shape):
    with pytest.raises(ValueError, match=f"at least one; got shape .*{shape[-1]}"):
        mask_union(jnp.ones(shape))
