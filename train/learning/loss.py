"""The loss of one part of a batch, as its share of the loss of the whole batch.

Every mean is taken over the *whole* batch: its sums are divided by weights that were
added up over all parts and all devices before anything is differentiated. So losses
and gradients of parts only need to be added. (BatchNorm sees one part at a time.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax

from cram_jax.attention.evidence import layer_evidence
from cram_jax.geometry.similarity import Similarity
from cram_jax.losses.equivariance import mean_of_terms
from cram_jax.numerics import at_least_float32
from train.data.preparation import unit_range
from train.learning import movement
from train.learning.optimizer import hold_frozen
from train.learning.window import layer_sums
from train.tasks.classification import label_rank
from train.tasks.sums import weighted_sum

if TYPE_CHECKING:
    from train.learning.experiment import Experiment

Batch = Mapping[str, Any]


def _keep_convolutions(primitive, *_, **__) -> bool:
    return primitive.name in ("conv_general_dilated", "dot_general")


def _forward(experiment: Experiment, params, batch_stats, images, step, key):
    """Training pass: logits, new batch statistics, evidence of the layers."""

    def apply(params, batch_stats, images):
        params = hold_frozen(experiment.config.optimizer, params)
        variables = {"params": params, "batch_stats": batch_stats}
        return experiment.model.apply(
            variables | experiment.schedule(step),
            images,
            # Also with freeze_norm: which norms it holds is the network's to know.
            train=True,
            rngs={"dropout": key},
            mutable=["batch_stats", "intermediates"],
        )

    if experiment.config.model.remat:
        apply = jax.checkpoint(apply, policy=_keep_convolutions)
    logits, updates = apply(params, batch_stats, images)
    evidence = layer_evidence(updates.get("intermediates") or {})
    return logits, updates.get("batch_stats", {}), evidence


def _look(params, batch_stats, part: Batch, experiment: Experiment, step):
    """What `_forward` gives for images, then moved images; and how they were moved."""
    images, moving = unit_range(part["image"]), experiment.config.equivariance
    similarities = Similarity.identity((images.shape[0],))
    if moving.moves_images:
        moved, similarities = movement.move_images(moving, part["move_key"], images)
        images = jnp.concatenate([images, moved])
    images, key = experiment.normalise(images), part["dropout_key"][0]
    return _forward(experiment, params, batch_stats, images, step, key), similarities


def _motion_terms(part: Batch, experiment: Experiment, evidence, similarities):
    size = part["image"].shape[1:3]
    return movement.movement_terms(
        experiment.config.equivariance, evidence, similarities, size, part["weight"]
    )


def pairs_in_sight(
    params, batch_stats, part: Batch, experiment: Experiment, step
) -> jax.Array:
    """Weight of the pairs that count in the equivariance term, `[layers]`.

    What the network shows decides it, so a batch in parts is looked at twice. The
    compiler leaves out what lies behind the last rectangle.
    """
    looked, similarities = _look(params, batch_stats, part, experiment, step)
    return _motion_terms(part, experiment, looked[2], similarities)[1]


def _entropy(logits, labels, weight, smoothing: float) -> jax.Array:
    """Weighted sum of cross-entropies; what has no weight may hold anything."""
    counted = weight > 0
    logits = jnp.where(counted[:, None], at_least_float32(logits), 0.0)
    classes = logits.shape[-1]
    targets = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
    targets = optax.smooth_labels(targets, smoothing) if smoothing else targets
    losses = optax.softmax_cross_entropy(logits, targets)
    # Without it a label that is no class would cost nothing and be learnt as nothing.
    known = (labels >= 0) & (labels < classes)
    return weighted_sum(weight, jnp.where(known, losses, jnp.nan))


def part_loss(
    params,
    batch_stats,
    part: Batch,
    experiment: Experiment,
    step,
    total_weight,
    total_pairs=None,
):
    """The share of one part of the batch in the loss of the whole batch.

    Args:
      params: of the network.
      batch_stats: of the network.
      part: "image", "label", "weight", "move_key" and "dropout_key" of `[B, ...]`.
      experiment: of the run.
      step: of the optimiser.
      total_weight: of all images of all parts and devices.
      total_pairs: of `pairs_in_sight` over all parts and devices; None where the
        devices' parts are the only ones.

    Returns:
      The share, and the new batch statistics with sums for the training window.
    """
    settings, moving = experiment.config.optimizer, experiment.config.equivariance
    labels, weight = part["label"], part["weight"]
    (logits, batch_stats, evidence), similarities = _look(
        params, batch_stats, part, experiment, step
    )
    count = labels.shape[0]
    own_logits = logits[:count]
    entropy = _entropy(own_logits, labels, weight, settings.label_smoothing)
    if moving.classify_moved:
        also = _entropy(logits[count:], labels, weight, settings.label_smoothing)
        entropy = (entropy + also) / 2
    motion = jnp.zeros((), jnp.float32)
    if moving.weight > 0:
        terms, pairs = _motion_terms(part, experiment, evidence, similarities)
        if total_pairs is None:
            total_pairs = experiment.sum_over_devices(pairs)
        # As a sum over images, since that is what the window keeps.
        motion = mean_of_terms(terms, total_pairs) * total_weight
    loss = entropy + movement.weight_at(moving, step, experiment.total_steps) * motion
    sums = {
        "loss": loss,
        "cross_entropy": entropy,
        "equivariance": motion,
        "correct": weighted_sum(weight, label_rank(own_logits, labels) < 1),
        "weight": jnp.sum(weight),
        "layers": {
            path: layer_sums(jax.tree.map(lambda leaf: leaf[:count], layer), weight)
            for path, layer in evidence.items()
        },
    }
    return loss / total_weight, (batch_stats, jax.lax.stop_gradient(sums))
