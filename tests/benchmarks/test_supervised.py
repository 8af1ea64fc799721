import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.digits_further import further_batches
from benchmarks.digits_supervised import (
    Options,
    markdown,
    supervised_config,
    truth_distance,
    truth_term,
)
from cram_jax.geometry.overlap import rotated_iou
from cram_jax.geometry.rectangle import Rectangle
from train.data.facts import Facts
from train.learning.devices import JitParallel
from train.learning.evaluator import observe
from train.learning.experiment import make_experiment
from train.learning.steps import train_step


def test_distance_to_the_truth_grows_and_is_in_units_of_its_size():
    true = Rectangle(*jnp.array([0.1, -0.2, 0.4, 0.2, 0.3]))
    moved = dataclasses.replace(true, center_x=true.center_x + 0.1)
    farther = dataclasses.replace(true, center_x=true.center_x + 0.2)
    distances = [float(truth_distance(r, true)) for r in (true, moved, farther)]
    assert distances[0] == pytest.approx(np.sqrt(1e-3), abs=1e-4)
    assert distances == sorted(distances)
    twice = [
        Rectangle(
            2 * r.center_x, 2 * r.center_y, 2 * r.half_width, 2 * r.half_height, r.angle
        )
        for r in (moved, true)
    ]
    assert float(truth_distance(*twice)) == pytest.approx(distances[1], rel=1e-5)


def test_the_truth_teaches_where_the_digit_is():
    config = supervised_config(0, Options())
    config = dataclasses.replace(
        config,
        epochs=1.0,
        batch_size=32,
        model=dataclasses.replace(config.model, widths=(4, 8, 8)),
    )
    inputs = Facts((48, 48, 1), tuple("0123456789"), num_examples=960, truth="rotated")
    parallel = JitParallel(jax.devices()[:1])
    experiment = make_experiment(config, inputs, parallel, terms=[truth_term(1.0)])
    batch = {name: leaf[:32] for name, leaf in further_batches(500)[0].items()}
    true = Rectangle.from_array(jnp.asarray(batch["rectangle"]))

    @jax.jit
    def overlap(variables, step):
        _, evidence = observe(experiment, variables, step, jnp.asarray(batch["image"]))
        (layer,) = evidence.values()
        return rotated_iou(layer["rectangle"], true).mean()

    state = experiment.initial_state()
    before = overlap(state.evaluated_variables(), state.step)
    update = jax.jit(partial(train_step, experiment))
    for _ in range(30):
        state = update(state, batch)
    assert int(state.step) == 30
    assert overlap(state.evaluated_variables(), state.step) > before + 0.1


def test_the_table_has_a_row_for_each_seed_and_leaves_out_what_is_missing():
    run = {"accuracy": 0.5, "iou": 0.25, "equivariance_iou": 0.75}
    record = {"command": "c", "machine": "m", "seeds": [0, 4], "runs": [run, run]}
    text = markdown(record)
    assert "| seed 4 | 0.5000 | 0.250 |" in text
    assert "0.750 ± 0.000" in text
    assert "nan" not in text
