"""The pure train step.

The same function serves one device, a sharded jit (`axis_name=None`: the batch is the
global one) and pmap (`axis_name`: the batch is this device's part, and sums go over
the axis). Losses are shares of the whole batch's (`loss.py`), so that gradients need
only be summed in all cases.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax

from train.learning.experiment import Experiment
from train.learning.loss import Batch, part_loss, part_of_totals
from train.learning.state import Purpose, TrainState, image_keys, update_average
from train.learning.window import NEVER
from train.tasks.sums import Sums

# Random keys of the images of a batch. Dropout takes that of the first of each part.
_KEYS = {
    "move_key": Purpose.MOVEMENT,
    "dropout_key": Purpose.DROPOUT,
    "mask_key": Purpose.MASK_DROPOUT,
}


def _split(batch: Batch, parts: int) -> Batch:
    """`[B, ...]` to `[parts, B / parts, ...]`; each device keeps its own images."""

    def split(leaf):
        return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def _totals(experiment: Experiment, state: TrainState, parts: Batch) -> dict[str, Any]:
    """`part_of_totals` over all parts and devices."""

    def in_part(part):
        return part_of_totals(
            state.params, state.batch_stats, part, experiment, state.step
        )

    shapes = jax.eval_shape(in_part, jax.tree.map(lambda leaf: leaf[0], parts))
    if not shapes:
        return {}
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, in_part(part)), None),
        _zeros(shapes),
        parts,
    )
    return experiment.sum_over_devices(total)


def _zeros(shapes: Any) -> Any:
    return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)


def _gradients(experiment: Experiment, state: TrainState, batch: Batch):
    """Gradients, new batch statistics and sums, part after part of the batch."""
    total_weight = experiment.sum_over_devices(jnp.sum(batch["weight"]))
    # A batch of nothing but unreadable images moves nothing.
    total_weight = jnp.where(total_weight > 0, total_weight, 1.0)
    differentiate = jax.value_and_grad(part_loss, has_aux=True)

    def one_part(batch_stats, part, totals=None):
        (_, (batch_stats, sums)), gradients = differentiate(
            state.params,
            batch_stats,
            part,
            experiment,
            state.step,
            total_weight,
            totals,
        )
        return batch_stats, (gradients, sums)

    parts = experiment.config.optimizer.accumulate
    if parts == 1:
        batch_stats, (gradients, sums) = one_part(state.batch_stats, batch)
    else:
        split = _split(batch, parts)
        totals = _totals(experiment, state, split)

        def add_part(carry, part):
            batch_stats, results = one_part(carry[0], part, totals)
            return (batch_stats, jax.tree.map(jnp.add, carry[1], results)), None

        first = jax.tree.map(lambda leaf: leaf[0], split)
        shapes = jax.eval_shape(one_part, state.batch_stats, first, totals)[1]
        carry, _ = jax.lax.scan(add_part, (state.batch_stats, _zeros(shapes)), split)
        batch_stats, (gradients, sums) = carry
    return *experiment.sum_over_devices((gradients, sums)), batch_stats


def _global_norm(gradients: Any) -> jax.Array:
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def _add_to_window(window: Sums, sums: Sums, norm: jax.Array, step: jax.Array) -> Sums:
    """The window after one more step; the first non-finite step stays on record."""

    def note(first, value):
        return jnp.where((first == NEVER) & ~jnp.isfinite(value), step + 1, first)

    old = {name: window[name] for name in sums}
    return {
        # In 64-bit mode sums are float64, and the state must keep its dtypes.
        **jax.tree.map(lambda a, b: (a + b).astype(a.dtype), old, sums),
        "gradient_norm": window["gradient_norm"] + norm,
        "steps": window["steps"] + 1.0,
        "bad_loss_step": note(window["bad_loss_step"], sums["loss"]),
        "bad_gradient_step": note(window["bad_gradient_step"], norm),
    }


def train_step(experiment: Experiment, state: TrainState, batch: Batch) -> TrainState:
    """One step of the optimiser on one batch (uint8 images)."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    batch, count = dict(batch), batch["weight"].shape[0]
    for name, purpose in _KEYS.items():
        batch[name] = image_keys(key, purpose, count, experiment.axis_name)
    gradients, sums, batch_stats = _gradients(experiment, state, batch)
    updates, opt_state = experiment.optimizer.update(
        gradients, state.opt_state, state.params
    )
    params = optax.apply_updates(state.params, updates)
    average, decay = state.average, experiment.config.optimizer.ema_decay
    if decay is not None:
        fresh = {"params": params, "batch_stats": batch_stats}
        average = update_average(average, fresh, decay, state.step)
    norm = _global_norm(gradients)
    return state.replace(
        step=state.step + 1,
        params=params,
        batch_stats=batch_stats,
        opt_state=opt_state,
        average=average,
        window=_add_to_window(state.window, sums, norm, state.step),
    )


def reset_window(state: TrainState) -> TrainState:
    """The same state with an empty window.

    Only of a state whose steps were all finite: those notes stay as they are.
    """
    notes = {
        name: state.window[name] for name in ("bad_loss_step", "bad_gradient_step")
    }
    return state.replace(window=jax.tree.map(jnp.zeros_like, state.window) | notes)
