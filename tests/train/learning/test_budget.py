"""The budget in the train step: losses, gradients, and where it makes no sense."""

import dataclasses
import functools
import json
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cram_jax import apply_with_outside, mask_dropout_schedule
from cram_jax.attention.evidence import attended_masks
from cram_jax.losses import ignorance_loss
from cram_jax.losses.budget import ramped_weight
from tests.checks import assert_close
from tests.tiny_runs import (
    random_batch,
    tiny_arguments,
    tiny_config,
    tiny_experiment,
    write_images,
)
from tests.train.learning.test_agreement import BATCH, Plain
from tests.train.learning.test_agreement import batch as mixed_batch
from train.__main__ import main
from train.config.attention import BudgetConfig, EquivarianceConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.presets import preset
from train.data.preparation import unit_range
from train.errors import UserError
from train.learning.devices import JitParallel, PmapParallel
from train.learning.losses.budget import opened_images
from train.learning.losses.loss import sums_shape
from train.learning.losses.terms import tangent_share
from train.learning.state import Purpose, create_state, image_keys
from train.learning.steps import train_step
from train.tasks.classification import Classification
from train.tasks.task import Task

AREA = 0.6
BUDGET = BudgetConfig(
    area=AREA,
    area_weight=3.0,
    price=0.4,
    outside=0.7,
    start_fraction=0.0,
    ramp_fraction=0.0,
    mask_dropout=0.3,
)
LAYERS = ("attention1", "attention2")
MOVES = EquivarianceConfig(weight=0.0, classify_moved=True)


def one_device():
    return JitParallel(jax.devices()[:1])


def batch():
    """That of the other terms, each image with one class."""
    values = mixed_batch()
    del values["other_label"], values["label_share"]
    return values


@functools.cache
def initial(parallel_kind="one", parts=1, moves=False):
    rule = OptimizerConfig(accumulate=parts, label_smoothing=0.1)
    config = tiny_config(batch_size=BATCH, optimizer=rule, budget=BUDGET)
    if moves:
        config = dataclasses.replace(config, equivariance=MOVES)
    kinds = {"one": one_device, "jit": JitParallel, "pmap": PmapParallel}
    parallel = kinds[parallel_kind]()
    experiment = dataclasses.replace(
        tiny_experiment(config, parallel),
        model=Plain(),
        schedule=lambda _: {},
        layers={path: {} for path in LAYERS},
        optimizer=optax.sgd(1.0),
    )
    variables = Plain().init(jax.random.key(1), jnp.zeros((1, 12, 12, 3)))
    # Far from their start, masks are not open and their outside tells something.
    leaves, tree = jax.tree.flatten(variables["params"])
    keys = jax.random.split(jax.random.key(2), len(leaves))
    leaves = [
        leaf + 0.5 * jax.random.normal(key, leaf.shape)
        for key, leaf in zip(keys, leaves, strict=True)
    ]
    state = create_state(
        {"params": jax.tree.unflatten(tree, leaves), "batch_stats": {}},
        experiment.optimizer,
        jax.random.key(3),
        averaged=False,
        sums=sums_shape(experiment),
    )
    return parallel, experiment, state


@functools.cache
def whole():
    """Losses and gradients written down anew, for the whole batch at once."""
    _, experiment, state = initial()
    values = batch()
    images = experiment.normalise(unit_range(jnp.asarray(values["image"])))
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    keys = image_keys(step_key, Purpose.MASK_DROPOUT, BATCH, None)
    opened = opened_images(BUDGET.mask_dropout, keys)
    assert 0 < opened.sum() < BATCH
    real = values["weight"] > 0

    def loss(params):
        variables = {"params": params} | mask_dropout_schedule(LAYERS, opened)
        logits, outside, updates = apply_with_outside(
            Plain(), variables, images, mutable=["intermediates"], mask_only=True
        )
        targets = jax.nn.one_hot(values["label"], 3) * 0.9 + 0.1 / 3
        entropy = -jnp.sum(targets * jax.nn.log_softmax(logits), -1)[real].mean()
        masks = attended_masks(updates)
        areas = jnp.stack([masks[path][real].mean() for path in LAYERS])
        found = {
            "cross_entropy": entropy,
            "area_loss": jnp.mean(jnp.maximum(areas - AREA, 0) ** 2),
            "price_loss": areas.mean(),
            "outside_loss": jnp.mean(
                jnp.stack([ignorance_loss(outside[p])[real].mean() for p in LAYERS])
            ),
        }
        total = entropy + 3.0 * found["area_loss"] + 0.4 * found["price_loss"]
        found["loss"] = total + 0.7 * found["outside_loss"]
        return found["loss"], found

    (_, found), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(
        state.params
    )
    assert min(found.values()) > 1e-3
    return jax.device_get((found, gradients))


@pytest.mark.parametrize(
    ("parallel_kind", "parts"),
    [("one", 1), ("one", 4), ("jit", 1), ("jit", 2), ("pmap", 1), ("pmap", 2)],
)
def test_losses_and_gradients_are_those_of_the_whole_batch(parallel_kind, parts):
    expected, expected_gradients = whole()
    parallel, experiment, state = initial(parallel_kind, parts)
    update = parallel.compile_update(partial(train_step, experiment))
    placed = parallel.place(jax.tree.map(np.asarray, state))
    after = update(placed, parallel.place_batch(batch()))
    after = jax.device_get(parallel.fetchable(after))
    gradients = jax.tree.map(np.subtract, state.params, after.params)
    for name, value in expected.items():
        assert_close(after.window[name] / after.window["weight"], value, atol=1e-5)
    close = partial(assert_close, atol=1e-5, rtol=1e-5)
    jax.tree.map(close, gradients, expected_gradients)


def test_moved_images_change_neither_areas_nor_what_lies_outside():
    _, experiment, state = initial(moves=True)
    after = jax.jit(partial(train_step, experiment))(state, batch())
    for name in ("area_loss", "price_loss", "outside_loss"):
        value = after.window[name] / after.window["weight"]
        assert_close(value, whole()[0][name], atol=1e-5)


def test_shares_of_a_function_of_means_add_up_with_their_gradients():
    values = jax.random.normal(jax.random.key(0), (3, 4, 2)) + 1
    weights = jnp.array([3.0, 1.0, 0.5])[:, None] * jnp.ones(2)

    def function(means):
        return means**3

    def expected(values):
        return jnp.mean(function(values.sum((0, 1)) / weights.sum(0)))

    def summed(values):
        sums = values.sum(1)
        whole = sums.sum(0), weights.sum(0)
        shares = [
            tangent_share(function, part, whole)
            for part in zip(sums, weights, strict=True)
        ]
        return jnp.stack(shares).sum()

    assert_close(summed(values), expected(values), rtol=1e-5)
    gradients = jax.grad(summed)(values), jax.grad(expected)(values)
    assert_close(*gradients, rtol=1e-5)
    nothing = jnp.zeros(2), jnp.zeros(2)
    assert_close(tangent_share(function, nothing, nothing), 0.0)


@pytest.mark.parametrize(
    ("start", "ramp"), [(0.1, 0.4), (0, 0), (0.6, 0.4), (1, 0), (0.1, 0.9), (0.7, 0.3)]
)
def test_a_budget_is_in_force_once_its_weights_are_full(start, ramp):
    budget = BudgetConfig(price=2.0, start_fraction=start, ramp_fraction=ramp)
    for total in (1, 7, 120):
        in_force = [budget.is_in_force(step, total) for step in range(total + 1)]
        weights = [
            ramped_weight(2.0, jnp.asarray(step), total, start=start, ramp=ramp)
            for step in range(total + 1)
        ]
        full = np.isclose(weights, 2.0, rtol=1e-5)
        assert full.tolist() == in_force
        assert in_force[-1]  # the last checkpoint may always be the best


def test_without_a_budget_nothing_is_waited_for():
    assert BudgetConfig().is_in_force(0, 100)


def test_weights_rise_over_the_ramp():
    budget = BudgetConfig(area=0.3, outside=1.0, price=1.0)
    experiment = tiny_experiment(tiny_config(budget=budget), one_device())
    assert experiment.total_steps == 12
    for term, full in zip(experiment.terms, (10.0, 1.0, 1.0), strict=True):
        weights = [
            float(term.weight(jnp.asarray(step))) for step in (0, 1.2, 3.6, 6, 11)
        ]
        assert_close(weights, [0, 0, full / 2, full, full])


@pytest.mark.parametrize("attention", ["rectangular", "positionwise-trunk"])
def test_a_mask_closes_to_its_target(attention):
    model = ModelConfig(widths=(4, 4, 4), attention_stages=(1,), attention=attention)
    budget = BudgetConfig(
        area=0.4, area_weight=100.0, start_fraction=0.0, ramp_fraction=0.0
    )
    config = tiny_config(model=model, budget=budget, epochs=40.0)
    experiment = tiny_experiment(config, one_device())
    update = jax.jit(partial(train_step, experiment))
    state, areas = experiment.initial_state(), []
    empty = jax.tree.map(jnp.zeros_like, state.window)
    for step in range(120):
        state = update(state.replace(window=empty), random_batch(step, 8))
        (layer,) = state.window["layers"].values()
        areas.append(float(layer["mask_area"] / state.window["weight"]))
    assert areas[0] > 0.6
    assert np.mean(areas[-5:]) < 0.45


def test_filling_changes_what_a_masked_network_says():
    said = {}
    for fill in ("zero", "mean"):
        for attention in ("rectangular-regression", "positionwise-pooled", "none"):
            model = ModelConfig(
                widths=(4, 4, 4),
                attention_stages=(1,),
                attention=attention,
                attention_fill=fill,
            )
            experiment = tiny_experiment(tiny_config(model=model), one_device())
            variables = experiment.initial_state().evaluated_variables()
            # The edges of every mask are soft, so something is held back at once.
            images = jax.random.normal(jax.random.key(0), (2, 12, 12, 3))
            said[attention, fill] = experiment.model.apply(variables, images)
    for attention in ("rectangular-regression", "positionwise-pooled"):
        difference = said[attention, "zero"] - said[attention, "mean"]
        assert np.abs(difference).max() > 1e-6
    assert (said["none", "zero"] == said["none", "mean"]).all()


@pytest.mark.parametrize(
    ("attention", "options", "sentence"),
    [
        ("none", {"budget": BudgetConfig(area=0.3)}, "A budget needs a layer"),
        ("squeeze-excite", {"budget": BudgetConfig(outside=1.0)}, "A budget needs"),
        ("none", {"budget": BudgetConfig(mask_dropout=0.3)}, "A budget needs"),
        ("cbam", {"fill": "mean"}, "attention_fill 'mean' needs a rectangular or"),
        ("coordinate", {"fill": "mean"}, "model.attention is 'coordinate'"),
    ],
)
def test_one_sentence_where_it_makes_no_sense(attention, options, sentence):
    model = ModelConfig(
        widths=(4, 4, 4),
        attention_stages=(1,),
        attention=attention,
        attention_fill=options.pop("fill", "zero"),
    )
    with pytest.raises(UserError, match=sentence):
        tiny_experiment(tiny_config(model=model, **options), one_device())


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"area": 0.0}, r"budget.area must be a share of the map, in \(0, 1\]"),
        ({"area": 30.0}, "budget.area must be"),
        ({"price": -1.0}, "budget.price must not be neg"),
        ({"outside": -1.0}, "budget.outside must not"),
        ({"area_weight": -1.0}, "budget.area_weight must not"),
        ({"start_fraction": 1.5}, "budget.start_fraction must be in"),
        ({"start_fraction": 0.7, "ramp_fraction": 0.4}, "must not exceed 1 together"),
        ({"mask_dropout": 1.0}, "budget.mask_dropout must be in"),
    ],
)
def test_a_value_that_means_nothing_is_refused(values, sentence):
    with pytest.raises(ValueError, match=sentence):
        BudgetConfig(**values)


def test_a_task_that_knows_no_ignorance_says_so():
    class Other(Classification):
        name = "counting"
        ignorance = Task.ignorance

    with pytest.raises(UserError, match="task 'counting' cannot say how much"):
        Other().ignorance(jnp.zeros((1, 3)))


def test_off_by_default_nothing_is_added():
    experiment = tiny_experiment(tiny_config(), one_device())
    assert experiment.terms == ()
    assert not BudgetConfig().is_on
    assert not BudgetConfig(area=0.3, area_weight=0.0).is_on


def test_a_run_with_a_budget_is_recorded_from_the_command_line(tmp_path):
    folder, workdir = write_images(tmp_path / "images"), tmp_path / "run"
    options = ["--budget.area=0.3", "--budget.outside=1", "--budget.mask-dropout=0.3"]
    options += ["--model.attention-fill=mean", "--output.quiet"]
    assert main(tiny_arguments(folder, workdir, *options)) == 0
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    (*_, last) = [record for record in records if record["kind"] == "train"]
    assert last["area_loss"] > 0
    assert last["outside_loss"] > 0


@pytest.mark.parametrize("name", ["photographs", "pets3", "butterflies", "pets"])
def test_presets_of_photographs_have_a_budget_and_hold_images_out(name):
    config = preset(name)
    assert config.budget.is_on
    assert config.data.validation == 0.1
    assert config.model.attention_fill == "mean"
