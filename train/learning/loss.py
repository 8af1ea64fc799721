"""The loss of one part of a batch, as its share of the loss of the whole batch.

Every mean is taken over the *whole* batch: its sums are divided by weights that were
added up over all parts and all devices before anything is differentiated. So losses
and gradients of parts only need to be added. (BatchNorm sees one part at a time.)
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from cram_jax.attention.evidence import layer_evidence
from cram_jax.geometry.similarity import Similarity
from cram_jax.losses.equivariance import mean_of_terms
from cram_jax.losses.outside import apply_with_outside
from train.data.collate import empty_rows
from train.data.preparation import unit_range
from train.learning import budget, terms
from train.learning.optimizer import hold_frozen
from train.learning.processes import GENERATOR
from train.learning.terms import Look, Term
from train.learning.window import layer_sums
from train.tasks.sums import Sums, weighted_sum
from train.tasks.task import Batch, Loss, Outputs

if TYPE_CHECKING:
    from train.learning.experiment import Experiment

# A sum and its weight; no weight: a sum over the images, whose weight is the batch's.
Pair = tuple[Any, jax.Array | None]


def _keep_convolutions(primitive, *_, **__) -> bool:
    return primitive.name in ("conv_general_dilated", "dot_general")


def _forward(experiment: Experiment, params, batch_stats, images, schedule, key, step):
    """Training pass: outputs, those from outside each layer by path, and updates."""
    asking = [term for term in experiment.terms if term.needs_outside]
    settings = {
        # Also with freeze_norm: which norms it holds is the network's to know.
        "train": True,
        "rngs": {"dropout": key},
        "mutable": ["batch_stats", "intermediates"],
    }

    def apply(params, batch_stats, images):
        params = hold_frozen(experiment.config.optimizer, params)
        variables = {"params": params, "batch_stats": batch_stats}
        variables |= schedule
        if asking:
            weights = jnp.stack([term.weight(step) for term in asking])
            settings["on"] = jnp.any(weights != 0)
            settings["mask_only"] = True
            return apply_with_outside(experiment.model, variables, images, **settings)
        outputs, updates = experiment.model.apply(variables, images, **settings)
        return outputs, {}, updates

    if experiment.config.model.remat:
        apply = jax.checkpoint(apply, policy=_keep_convolutions)
    return apply(params, batch_stats, images)


def _look(params, batch_stats, part: Batch, experiment: Experiment, step):
    """The network's look at images, and moved images; new batch statistics."""
    images, moving = unit_range(part["image"]), experiment.config.equivariance
    count = images.shape[0]
    similarities = Similarity.identity((count,))
    if moving.moves_images:
        moved, similarities = terms.move_images(moving, part["move_key"], images)
        images = jnp.concatenate([images, moved])
    images, key = experiment.normalise(images), part["dropout_key"][0]
    schedule = _schedule(experiment, part, step, views=images.shape[0] // count)
    outputs, outside, updates = _forward(
        experiment, params, batch_stats, images, schedule, key, step
    )
    shown = outputs, layer_evidence(updates.get("intermediates") or {})
    first = jax.tree.map(lambda leaf: leaf[:count], shown)
    second = jax.tree.map(lambda leaf: leaf[count:], shown)
    outside = jax.tree.map(lambda leaf: leaf[:count], outside)
    look = Look(
        outputs=first[0],
        evidence=first[1],
        moved_outputs=second[0] if moving.moves_images else None,
        moved_evidence=second[1] if moving.moves_images else None,
        similarities=similarities,
        outside=_counted(outside, part["weight"]),
        batch=part,
        step=step,
    )
    return look, updates.get("batch_stats", {})


def _schedule(experiment: Experiment, part: Batch, step, *, views: int):
    """The network's "schedule" collection; an image's views are opened together."""
    schedule, share = experiment.schedule(step), experiment.config.budget.mask_dropout
    if share == 0:
        return schedule
    opened = jnp.tile(budget.opened_images(share, part["mask_key"]), views)
    return budget.with_opened(schedule, experiment.layers, opened)


def _counted(outputs: Outputs, weight: jax.Array) -> Outputs:
    """The outputs, 0 where an image has no weight: what is there may be anything."""

    def count(leaf):
        counted = (weight > 0).reshape(-1, *(1,) * (leaf.ndim - 1))
        return jnp.where(counted, leaf, jnp.zeros((), leaf.dtype))

    return jax.tree.map(count, outputs)


def _task_pairs(experiment: Experiment, look: Look) -> dict[str, Pair]:
    """The task's losses; where moved images are judged too, the mean of both."""
    task, weight = experiment.task, look.batch["weight"]

    def pairs(outputs: Outputs, batch: Batch) -> dict[str, Pair]:
        found: Mapping[str, Loss] = task.losses(_counted(outputs, weight), batch)
        return {name: _pair(loss, weight) for name, loss in found.items()}

    own = pairs(look.outputs, look.batch)
    if not experiment.config.equivariance.classify_moved:
        return own
    also = pairs(look.moved_outputs, task.moved(look.similarities, look.batch))
    return {name: _both(own[name], also[name]) for name in own}


def _term_pair(term: Term, look: Look) -> Pair:
    return _pair(term.measure(look), look.batch["weight"])


def _pair(loss: Loss, weight: jax.Array) -> Pair:
    return loss if isinstance(loss, tuple) else (weighted_sum(weight, loss), None)


def _both(own: Pair, also: Pair) -> Pair:
    if own[1] is None or also[1] is None:
        return (own[0] + also[0]) / 2, None
    return own[0] + also[0], own[1] + also[1]


def part_of_totals(
    params, batch_stats, part: Batch, experiment: Experiment, step
) -> dict[str, tuple[Any, jax.Array]]:
    """Sums and weights of all losses that are no mean over the images, by name.

    The sums of those whose mean is all that is asked for are None.
    What the network shows may decide them, so a batch in parts is looked at twice. The
    compiler leaves out what lies behind the last thing that they need.
    """
    look, _ = _look(params, batch_stats, part, experiment, step)
    pairs = _task_pairs(experiment, look)
    pairs |= {term.name: _term_pair(term, look) for term in experiment.terms}
    needed = {term.name for term in experiment.terms if term.of_mean is not None}
    return {
        name: (value if name in needed else None, weight)
        for name, (value, weight) in pairs.items()
        if weight is not None
    }


def part_loss(
    params,
    batch_stats,
    part: Batch,
    experiment: Experiment,
    step,
    total_weight: jax.Array,
    totals: Mapping[str, tuple[Any, jax.Array]] | None = None,
):
    """The share of one part of the batch in the loss of the whole batch.

    Args:
      params: the network's parameters.
      batch_stats: the network's batch statistics.
      part: "image", "weight", the task's truth, and the keys "move_key",
        "dropout_key" and "mask_key", all of `[B, ...]`.
      experiment: what stays fixed.
      step: optimiser steps done.
      total_weight: the weight of all images of all parts and devices.
      totals: `part_of_totals` over all parts and devices; None where the devices'
        parts are the only ones.

    Returns:
      The share, and the new batch statistics with sums for the training window.
    """
    look, batch_stats = _look(params, batch_stats, part, experiment, step)

    def over_images(name: str, pair: Pair, of_mean=None) -> jax.Array:
        """A loss as a sum over images, since that is what the window keeps."""
        value, weight = pair
        if weight is None:
            return value
        whole = totals[name] if totals else experiment.sum_over_devices(pair)
        if of_mean is not None:
            return total_weight * terms.tangent_share(of_mean, (value, weight), whole)
        return mean_of_terms(value, whole[1]) * total_weight

    values = {
        name: over_images(name, pair)
        for name, pair in _task_pairs(experiment, look).items()
    }
    loss = functools.reduce(operator.add, values.values())
    for term in experiment.terms:
        pair = _term_pair(term, look)
        values[term.name] = over_images(term.name, pair, term.of_mean)
        loss = loss + term.weight(step) * values[term.name]
    sums = _window_sums(experiment, look, {"loss": loss, **values})
    return loss / total_weight, (batch_stats, jax.lax.stop_gradient(sums))


def _window_sums(experiment: Experiment, look: Look, losses: dict) -> dict[str, Any]:
    """What the training window adds up: losses, cheap scores, what layers showed."""
    weight = look.batch["weight"]
    return {
        **losses,
        **experiment.task.training_sums(look.outputs, look.batch),
        "weight": jnp.sum(weight),
        "layers": {
            path: layer_sums(layer, weight) for path, layer in look.evidence.items()
        },
    }


def sums_shape(experiment: Experiment) -> Sums:
    """What one step adds to the training window, as shapes: nothing is computed."""
    variables, facts = experiment.variables_shape(), experiment.inputs
    batch = empty_rows(facts.image_shape, facts.truth, experiment.task, 1)
    keys = jax.random.split(jax.random.key(0, impl=GENERATOR), 1)
    batch |= dict.fromkeys(("move_key", "dropout_key", "mask_key"), keys)

    def sums(params, batch_stats, part):
        step, weight = jnp.zeros((), jnp.int32), jnp.ones(())
        return part_loss(params, batch_stats, part, experiment, step, weight)[1][1]

    if experiment.axis_name is not None:
        # The axis must have a length: 1 serves, for sums over it keep their shapes.
        axis = {"axis_name": experiment.axis_name, "axis_size": 1}
        sums = jax.vmap(sums, in_axes=None, out_axes=None, **axis)
    params, batch_stats = variables["params"], variables["batch_stats"]
    return jax.eval_shape(sums, params, batch_stats, batch)
