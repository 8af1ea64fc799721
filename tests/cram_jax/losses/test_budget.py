"""Budgets of area: numpy, finite differences, and the same step on any devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

import cram_jax
from cram_jax import PositionwiseAttention, RectangularAttention
from cram_jax.backbones import backbone
from tests import compilation
from tests.checks import assert_close, assert_tree_finite, finite_difference_gradient

BATCH, DEVICES, STEPS = 16, 8, 10
TARGETS = {"shallow": 0.3, "deep": 0.2}


def draw_areas(seed=0, count=BATCH) -> Any:
    rng = np.random.default_rng(seed)
    return {path: rng.uniform(0.2, 0.9, count) for path in TARGETS}


def test_areas_of_all_kinds_of_layers_equal_numpy():
    images = jax.random.normal(jax.random.key(0), (3, 24, 32, 3))
    for make, stages in (
        (RectangularAttention, (1, 3)),
        (PositionwiseAttention, (2,)),
        (functools.partial(PositionwiseAttention, form="trunk"), (2, 3)),
    ):
        network = backbone("convnet")(4, attention=make, attention_stages=stages)
        variables = network.init(jax.random.key(1), images)
        _, shown = network.apply(variables, images, mutable=["intermediates"])
        masks = cram_jax.attended_masks(shown)
        assert list(masks) == [f"attention{stage}" for stage in stages]
        areas = cram_jax.mask_areas(masks)
        evidence = {path: {"mask": mask} for path, mask in masks.items()}
        assert_close(
            list(cram_jax.mask_areas(evidence).values()), list(areas.values()), atol=0
        )
        for path, mask in masks.items():
            expected = [np.asarray(one, np.float64).mean() for one in mask]
            assert_close(areas[path], expected)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_areas_of_half_floats_do_not_overflow_or_stall(dtype):
    mask = jnp.full((2, 300, 300), 0.75, dtype)
    area = cram_jax.mask_areas({"": mask})[""]
    assert area.dtype == jnp.float32
    assert_close(area, [0.75, 0.75])


def test_price_is_a_sum_over_examples():
    areas = draw_areas()
    prices = {"shallow": 0.5, "deep": 2.0}
    expected = (0.5 * areas["shallow"] + 2.0 * areas["deep"]) / 2
    assert_close(cram_jax.area_price_loss(areas, prices), expected, dtype="float32")
    one = cram_jax.area_price_loss(areas, 0.7)
    assert_close(one, 0.7 * (areas["shallow"] + areas["deep"]) / 2, dtype="float32")
    gradient = jax.grad(lambda p: cram_jax.area_price_loss(areas, p).sum())(0.7)
    assert gradient == 0, "a price is set by its own rule, not by descent"


@pytest.mark.parametrize("weighted", [False, True])
def test_target_equals_numpy_and_finite_differences(weighted, x64):
    areas = draw_areas()
    weights = np.arange(BATCH) % 3 > 0 if weighted else np.ones(BATCH, bool)

    def oracle(areas):
        means = {path: area[weights].mean() for path, area in areas.items()}
        excess = [max(means[path] - TARGETS[path], 0) ** 2 for path in areas]
        return np.mean(excess)

    def ours(areas):
        total, weight = cram_jax.area_target_loss(
            areas, TARGETS, weights=jnp.asarray(weights) if weighted else None
        )
        return total / weight

    assert_close(ours(jax.tree.map(jnp.asarray, areas)), oracle(areas))
    gradient = jax.jit(jax.grad(ours))(areas)
    for path in areas:
        expected = finite_difference_gradient(
            lambda area, path=path: oracle(areas | {path: area}), areas[path]
        )
        assert_close(gradient[path], expected, atol=1e-8)


def test_a_smaller_area_than_the_target_costs_nothing():
    areas = {"": jnp.full(4, 0.1)}
    value, gradient = jax.value_and_grad(
        lambda a: cram_jax.area_target_loss(a, 0.3)[0]
    )(areas)
    assert value == 0
    assert (gradient[""] == 0).all()
    assert cram_jax.target_price(0.1, 0.3) == 0


def test_the_price_of_a_target_is_the_slope_of_its_hinge():
    areas = {"": jnp.linspace(0.2, 0.9, BATCH)}
    sums, weight = cram_jax.area_sums(areas)
    price = cram_jax.target_price(sums[""] / weight, 0.3)
    by_price = jax.grad(lambda a: cram_jax.area_price_loss(a, price).sum() / BATCH)
    by_target = jax.grad(lambda a: cram_jax.area_target_loss(a, 0.3)[0] / BATCH)
    assert_close(by_price(areas)[""], by_target(areas)[""])


def test_an_empty_batch_moves_nothing_and_stays_finite():
    areas, weights = draw_areas(), jnp.zeros(BATCH)

    def loss(areas):
        return cram_jax.area_target_loss(areas, 0.3, weights=weights)[0]

    value, gradient = jax.value_and_grad(loss)(areas)
    assert value == 0
    assert_tree_finite(gradient)
    assert cram_jax.moving_area(0.8, 0.0, 0.0) == jnp.float32(0.8)


# One training step on any devices. The mask of a position is a logistic function of two
# parameters, so its area can be moved; the batch holds two images of padding.


def masks_of(parameters, features):
    return {
        path: jax.nn.sigmoid(jnp.einsum("bhwc,c->bhw", features, parameters[path]))
        for path in TARGETS
    }


def start():
    parameters = {path: jnp.array([1.5, 0.5, -0.2]) for path in TARGETS}
    average = dict.fromkeys(TARGETS, jnp.ones(()))
    price = dict.fromkeys(TARGETS, jnp.zeros(()))
    return parameters, average, price


def batch_of(step):
    rng = np.random.default_rng(step)
    features = rng.normal(0.7, 0.5, (BATCH, 6, 4, 3)).astype(np.float32)
    weights = np.ones(BATCH, np.float32)
    weights[[3, -1]] = 0
    return features, weights


def part_loss(parameters, features, weights, prices, total, form, axis_name):
    """This part's share of the loss, and the sums of its areas."""
    areas = cram_jax.mask_areas(masks_of(parameters, features))
    if form == "target":
        share, _ = cram_jax.area_target_loss(
            areas, TARGETS, weights=weights, axis_name=axis_name
        )
    else:
        share = jnp.sum(weights * cram_jax.area_price_loss(areas, prices))
    # Something of the labels' kind, that wants the masks open.
    share += 0.01 * jnp.sum(weights * -sum(jnp.log(area) for area in areas.values()))
    return share / total, cram_jax.area_sums(areas, weights)[0]


def step(state, batch, *, form, axis_name=None, parts=1):
    parameters, average, price = state
    features, weights = batch
    across = functools.partial(jax.lax.psum, axis_name=axis_name)
    across = across if axis_name else lambda tree: tree
    total = across(jnp.sum(weights))
    prices = price
    if form == "price":
        prices = {p: cram_jax.target_price(average[p], TARGETS[p]) for p in TARGETS}
    gradients, sums = [], []
    for part in range(parts):
        own = slice(part * len(weights) // parts, (part + 1) * len(weights) // parts)
        gradient, area_sums = jax.grad(part_loss, has_aux=True)(
            parameters, features[own], weights[own], prices, total, form, axis_name
        )
        gradients.append(gradient)
        sums.append(area_sums)
    gradient, sums = across(
        jax.tree.map(lambda *leaves: sum(leaves), (gradients[0], sums[0]))
        if parts == 1
        else jax.tree.map(lambda *x: sum(x), *zip(gradients, sums, strict=True))
    )
    average = {p: cram_jax.moving_area(average[p], sums[p], total) for p in TARGETS}
    price = {
        p: cram_jax.ascended_price(price[p], sums[p] / total, TARGETS[p], rate=0.5)
        for p in TARGETS
    }
    parameters = jax.tree.map(lambda p, g: p - 3.0 * g, parameters, gradient)
    return parameters, average, price


def train(update, place=lambda batch: batch, state=None):
    state = start() if state is None else state
    for index in range(STEPS):
        state = update(state, place(batch_of(index)))
    return jax.device_get(state)


@functools.cache
def on_one_device(form):
    return train(jax.jit(functools.partial(step, form=form)))


def sharded(form):
    mesh = Mesh(jax.devices()[:DEVICES], ("batch",), axis_types=(AxisType.Auto,))
    place = functools.partial(jax.device_put, device=NamedSharding(mesh, P("batch")))
    return train(jax.jit(functools.partial(step, form=form)), place)


def pmapped(form, parts=1):
    update = functools.partial(step, form=form, axis_name="batch", parts=parts)
    update = jax.pmap(update, "batch", in_axes=(None, 0), out_axes=None)

    def place(batch):
        return jax.tree.map(lambda a: a.reshape(DEVICES, -1, *a.shape[1:]), batch)

    return train(update, place)


def shard_mapped(form):
    mesh = Mesh(jax.devices()[:DEVICES], ("batch",), axis_types=(AxisType.Auto,))
    update = functools.partial(step, form=form, axis_name="batch")
    update = jax.shard_map(
        update, mesh=mesh, in_specs=(P(), P("batch")), out_specs=P(), check_vma=False
    )
    return train(jax.jit(update))


def accumulated(form):
    return train(jax.jit(functools.partial(step, form=form, parts=4)))


@pytest.mark.parametrize(
    ("form", "ways"),
    [
        ("target", (sharded, pmapped, shard_mapped)),
        ("price", (sharded, pmapped, shard_mapped, accumulated)),
        ("ascent", (sharded, pmapped, shard_mapped, accumulated)),
    ],
)
def test_one_device_and_eight_and_parts_agree(form, ways):
    expected = on_one_device(form)
    moved = [abs(expected[0][p] - start()[0][p]).max() for p in TARGETS]
    assert min(moved) > 0.1, "steps that small prove nothing"
    for way in ways:
        jax.tree.map(functools.partial(assert_close, atol=1e-5), way(form), expected)
    if form == "price":
        result = pmapped(form, parts=2)
        jax.tree.map(functools.partial(assert_close, atol=1e-5), result, expected)


@pytest.mark.parametrize("rule", ["price", "ascent"])
def test_both_rules_bring_the_area_to_the_target(rule):
    # Against 0.08 log(area), a wish to stay open, whose slope at the target is 0.2.
    def move(carry, _):
        area, average, price = carry
        slope = price
        if rule == "price":
            slope = 10 * cram_jax.target_price(average, 0.4)
        area = jnp.clip(area - 0.02 * (slope - 0.08 / area), 0.01, 1)
        average = cram_jax.moving_area(average, area * 8, 8.0)
        price = cram_jax.ascended_price(price, area, 0.4, rate=0.02, highest=1.0)
        return (area, average, price), None

    begin = jnp.ones(()), jnp.ones(()), jnp.zeros(())
    (area, _, price), _ = jax.lax.scan(move, begin, length=3000)
    # The ascent meets the target. A penalty stops where its slope equals the wish's.
    expected = 0.4 if rule == "ascent" else (0.4 + np.sqrt(0.16 + 0.016)) / 2
    assert_close(area, expected, atol=1e-3)
    if rule == "ascent":
        assert_close(price, 0.2, atol=1e-3)


def test_ascent_stays_between_0_and_its_limit():
    assert cram_jax.ascended_price(0.0, 0.1, 0.5, rate=1.0) == 0
    assert cram_jax.ascended_price(0.9, 1.0, 0.1, rate=9.0, highest=1.0) == 1


def test_moving_area_is_the_recursion_and_has_no_gradient():
    average, expected = 1.0, 1.0
    for area in (0.5, 0.25, 0.75):
        average = cram_jax.moving_area(average, area * 6, 6.0, decay=0.8)
        expected = 0.8 * expected + 0.2 * area
    assert_close(average, expected)
    assert jax.grad(lambda s: cram_jax.moving_area(1.0, s, 2.0))(1.0) == 0


def test_ramp_equals_interpolation_and_is_one_program():
    steps = np.arange(101)
    ramp = functools.partial(cram_jax.ramped_weight, start=0.2, ramp=0.4)

    @jax.jit
    def ramped(weight, step):
        return ramp(weight, step, 100)

    with compilation.counted() as compiled:
        values = [ramped(3.0, step) for step in steps]
    assert_close(values, np.interp(steps, [20, 60], [0, 3]), dtype="float32")
    assert compiled["jit(ramped)"] == 1
    jump = cram_jax.ramped_weight(2.0, steps, 100, start=0.5, ramp=0.0)
    assert_close(jump, np.where(steps >= 50, 2.0, 0.0))
    at_once = cram_jax.ramped_weight(2.0, steps, 100, start=0.0, ramp=0.0)
    assert (at_once == 2).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: cram_jax.mask_areas({"a": jnp.ones(3)}),
            r"layer 'a' has shape \(3,\)",
        ),
        (lambda: cram_jax.area_price_loss({}, 0.1), "needs a layer that shows a mask"),
        (lambda: cram_jax.area_target_loss({}, 0.1), "needs a layer that shows a mask"),
        (
            lambda: cram_jax.area_price_loss({"a": jnp.ones(2)}, {"b": 1.0}),
            r"one price for each layer, \['a'\]; got \['b'\]",
        ),
        (
            lambda: cram_jax.area_target_loss({"a": jnp.ones(2)}, {}),
            r"one target for each layer, \['a'\]; got \[\]",
        ),
        (
            lambda: cram_jax.ramped_weight(1.0, 0, 10, start=1.2, ramp=0.0),
            "got start=1.2",
        ),
        (
            lambda: cram_jax.ramped_weight(1.0, 0, 0, start=0.0, ramp=0.0),
            "total_steps=0",
        ),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
