"""The pure train step and evaluation step.

The same function serves one device, a sharded jit (`axis_name=None`: the batch is the
global one) and pmap (`axis_name`: the batch is this device's part, and sums go over
the axis). Losses are divided by the global weight *before* they are differentiated,
so that a plain sum of gradients is right in all cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from cram_jax.similarity import Similarity
from train import movement
from train.localization import evidence_on_image, localization_sums
from train.metrics import (
    NEVER,
    Sums,
    classification_sums,
    layer_evidence,
    layer_sums,
)
from train.optimizer import hold_frozen
from train.state import TrainState, update_average
from train.task import Task

Batch = Mapping[str, Any]
Variables = Mapping[str, Any]


def unit_range(images: jax.Array) -> jax.Array:
    """uint8 images to float32 in [0, 1]."""
    return images.astype(jnp.float32) / 255.0


def _keep_convolutions(primitive, *_, **__) -> bool:
    return primitive.name in ("conv_general_dilated", "dot_general")


def _forward(task: Task, params, batch_stats, images, step, key):
    """Training pass: logits, new batch statistics, evidence of the layers."""
    settings = task.config.optimizer

    def apply(params, batch_stats, images):
        params = hold_frozen(settings, params)
        variables = {"params": params, "batch_stats": batch_stats}
        return task.model.apply(
            variables | task.schedule(step),
            images,
            # With `freeze_norm` too: only the backbone's BatchNorm stands still.
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
        )

    if task.config.model.remat:
        apply = jax.checkpoint(apply, policy=_keep_convolutions)
    logits, updates = apply(params, batch_stats, images)
    evidence = layer_evidence(updates.get("intermediates") or {})
    return logits, updates.get("batch_stats", {}), evidence


def _cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float) -> jax.Array:
    targets = jax.nn.one_hot(labels, logits.shape[-1])
    targets = optax.smooth_labels(targets, smoothing) if smoothing else targets
    return optax.softmax_cross_entropy(logits.astype(jnp.float32), targets)


def _part_loss(params, batch_stats, part: Batch, task: Task, step, total_weight):
    """Loss of one part of the batch, as its share of the global mean."""
    settings, moving = task.config.optimizer, task.config.equivariance
    images, labels, weight = unit_range(part["image"]), part["label"], part["weight"]
    count, similarities = images.shape[0], Similarity.identity((images.shape[0],))
    if moving.moves_images:
        moved, similarities = movement.move_images(moving, part["key"], images)
        images = jnp.concatenate([images, moved])
    logits, batch_stats, evidence = _forward(
        task, params, batch_stats, task.normalise(images), step, part["key"][0]
    )
    own_logits = logits[:count]
    losses = _cross_entropy(own_logits, labels, settings.label_smoothing)
    if moving.classify_moved:
        also = _cross_entropy(logits[count:], labels, settings.label_smoothing)
        losses = (losses + also) / 2
    entropy = jnp.sum(weight * losses)
    motion = jnp.zeros(())
    if moving.weight > 0:
        size = (images.shape[1], images.shape[2])
        motion = movement.movement_loss(moving, evidence, similarities, size, weight)
        motion = motion * jnp.sum(weight)
    loss = entropy + movement.weight_at(moving, step, task.total_steps) * motion
    correct = jnp.argmax(own_logits, axis=-1) == labels
    sums = {
        "loss": loss,
        "cross_entropy": entropy,
        "equivariance": motion,
        "correct": jnp.sum(weight * correct),
        "weight": jnp.sum(weight),
        "layers": {
            path: layer_sums(jax.tree.map(lambda leaf: leaf[:count], layer), weight)
            for path, layer in evidence.items()
        },
    }
    return loss / total_weight, (batch_stats, jax.lax.stop_gradient(sums))


def _split(batch: Batch, parts: int) -> Batch:
    """`[B, ...]` to `[parts, B / parts, ...]`; each device keeps its own images."""

    def split(leaf):
        return leaf.reshape(-1, parts, *leaf.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(split, batch)


def _gradients(task: Task, state: TrainState, batch: Batch):
    """Gradients, new batch statistics and sums, part after part of the batch."""
    total_weight = task.sum_over_devices(jnp.sum(batch["weight"]))
    differentiate = jax.value_and_grad(_part_loss, has_aux=True)

    def one_part(batch_stats, part):
        (_, (batch_stats, sums)), gradients = differentiate(
            state.params, batch_stats, part, task, state.step, total_weight
        )
        return batch_stats, (gradients, sums)

    parts = task.config.optimizer.accumulate
    if parts == 1:
        batch_stats, (gradients, sums) = one_part(state.batch_stats, batch)
    else:

        def add_part(carry, part):
            batch_stats, results = one_part(carry[0], part)
            return (batch_stats, jax.tree.map(jnp.add, carry[1], results)), None

        split = _split(batch, parts)
        first = jax.tree.map(lambda leaf: leaf[0], split)
        shapes = jax.eval_shape(one_part, state.batch_stats, first)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)
        carry, _ = jax.lax.scan(add_part, (state.batch_stats, zeros), split)
        batch_stats, (gradients, sums) = carry
    return *task.sum_over_devices((gradients, sums)), batch_stats


def _global_norm(gradients: Any) -> jax.Array:
    squares = [jnp.sum(jnp.square(leaf)) for leaf in jax.tree.leaves(gradients)]
    return jnp.sqrt(jnp.sum(jnp.stack(squares)))


def _add_to_window(window: Sums, sums: Sums, norm: jax.Array, step: jax.Array) -> Sums:
    """The window after one more step; the first non-finite step stays on record."""

    def note(first, value):
        return jnp.where((first == NEVER) & ~jnp.isfinite(value), step + 1, first)

    old = {name: window[name] for name in sums}
    return {
        **jax.tree.map(jnp.add, old, sums),
        "gradient_norm": window["gradient_norm"] + norm,
        "steps": window["steps"] + 1.0,
        "bad_loss_step": note(window["bad_loss_step"], sums["loss"]),
        "bad_gradient_step": note(window["bad_gradient_step"], norm),
    }


def train_step(task: Task, state: TrainState, batch: Batch) -> TrainState:
    """One step of the optimiser on one batch (uint8 images; see `train.pipeline`)."""
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    keys = movement.example_keys(key, batch["label"].shape[0], task.axis_name)
    batch = {name: batch[name] for name in ("image", "label", "weight")} | {"key": keys}
    gradients, sums, batch_stats = _gradients(task, state, batch)
    updates, opt_state = task.optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    average, decay = state.average, task.config.optimizer.ema_decay
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


def observe(
    task: Task,
    variables: Variables,
    step: jax.Array,
    images: jax.Array,
    *,
    on_image: bool = True,
):
    """Logits and layer evidence of uint8 images `[B, H, W, C]`, in evaluation mode.

    Rectangles are in coordinates of the images and masks at their resolution, or with
    `on_image=False` in those of the layers' maps.
    """
    logits, updates = task.model.apply(
        {**variables, **task.schedule(step)},
        task.normalise(unit_range(images)),
        mutable=["intermediates"],
    )
    evidence = layer_evidence(updates.get("intermediates") or {})
    if on_image:
        evidence = evidence_on_image(task.model, evidence, *images.shape[1:3])
    return logits, evidence


def eval_step(task: Task, variables: Variables, step: jax.Array, batch: Batch) -> Sums:
    """Sums over one batch: classification, and where each layer looked."""
    logits, evidence = observe(task, variables, step, batch["image"])
    sums = {
        "classification": classification_sums(logits, batch["label"], batch["weight"]),
        "layers": {
            path: localization_sums(layer, batch, task.truth)
            for path, layer in evidence.items()
        },
    }
    return task.sum_over_devices(sums)
