"""Loss and gradients are those of the whole batch, however it is dealt out.

Some pairs are out of sight, some images are padding, and parts differ in both.
"""

import dataclasses
import functools
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cram_jax.attention.evidence import layer_evidence
from cram_jax.attention.predictors import MomentPredictor
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.geometry.coordinates import map_extents
from cram_jax.geometry.warping import warp_labels
from cram_jax.losses.equivariance import equivariance_loss, equivariance_terms
from tests.checks import assert_close
from tests.tiny_runs import random_batch, tiny_config, tiny_experiment
from train.config.attention import EquivarianceConfig
from train.config.optimizer import OptimizerConfig
from train.config.task import TaskConfig
from train.data.preparation import unit_range
from train.learning.devices import JitParallel, PmapParallel
from train.learning.losses.loss import sums_shape
from train.learning.losses.terms import move_images
from train.learning.state import Purpose, create_state, image_keys
from train.learning.steps import train_step
from train.tasks.detection import Detection
from train.tasks.losses.detection import detection_losses

BATCH = 16
# Far enough that many objects leave the image.
MOVES = EquivarianceConfig(
    weight=0.7, warmup_fraction=0.0, max_shift=1.5, classify_moved=True
)


class Plain(nn.Module):
    """Two layers, and no BatchNorm, which would see one part at a time."""

    task: str = "classification"

    @nn.compact
    def __call__(self, images, *, train=False):
        maps = images
        for stage in (1, 2):
            maps = nn.relu(nn.Conv(6, (3, 3), name=f"conv{stage}")(maps))
            layer = RectangularAttention(
                predictor=MomentPredictor, name=f"attention{stage}"
            )
            maps = layer(maps)
        if self.task == "detection":
            return {"heat": nn.Dense(3)(maps), "boxes": nn.Dense(6)(maps)}
        of_pixels = self.task == "segmentation"
        return nn.Dense(3)(maps if of_pixels else maps.mean((1, 2)))


def batch():
    values = random_batch(0, BATCH)
    values["weight"][-3:] = 0
    # What has no weight may hold anything.
    values["label"][-2:] = (-7, 255)
    # Some images are mixed with others, most are not.
    values["other_label"] = np.roll(values["label"], 2)
    values["label_share"] = np.ones(BATCH, np.float32)
    values["label_share"][3:9] = np.linspace(0, 0.9, 6)
    regions = np.random.default_rng(1).integers(0, 3, (BATCH, 12, 12), np.uint8)
    # Parts differ in how many pixels are known, and one image has none.
    for row in range(BATCH):
        regions[row, : row % 9] = 255
    regions[3], regions[-1] = 255, 77
    values["regions"] = regions
    # Parts differ in how many objects there are, and some images have none.
    draw, there = np.random.default_rng(2), np.arange(4) < np.arange(BATCH)[:, None] % 5
    values["objects"] = draw.uniform(-0.8, 0.8, (BATCH, 4, 5)).astype(np.float32)
    values["objects"][..., 2:4] = draw.uniform(0.1, 0.4, (BATCH, 4, 2))
    labels = draw.integers(0, 3, (BATCH, 4))
    values["object_labels"] = np.where(there, labels, -1).astype(np.int32)
    values["object_ignored"] = draw.random((BATCH, 4)) < 0.2
    return values


def network(task):
    return Plain(task)


@functools.cache
def initial(parallel_kind, parts, task):
    rule = OptimizerConfig(accumulate=parts, label_smoothing=0.1)
    config = tiny_config(
        batch_size=BATCH, optimizer=rule, equivariance=MOVES, task=TaskConfig(task)
    )
    one = JitParallel(jax.devices()[:1])
    parallel = {"one": lambda: one, "jit": JitParallel, "pmap": PmapParallel}
    parallel = parallel[parallel_kind]()
    experiment = dataclasses.replace(
        tiny_experiment(config, parallel),
        model=network(task),
        schedule=lambda _: {},
        optimizer=optax.sgd(1.0),
    )
    variables = network(task).init(jax.random.key(1), jnp.zeros((1, 12, 12, 3)))
    state = create_state(
        {"params": variables["params"], "batch_stats": {}},
        experiment.optimizer,
        jax.random.key(3),
        averaged=False,
        sums=sums_shape(experiment),
    )
    return parallel, experiment, state


def step_once(parallel_kind, parts, task):
    """The fetched training window and gradients of one step."""
    parallel, experiment, state = initial(parallel_kind, parts, task)
    update = parallel.compile_update(partial(train_step, experiment))
    placed = parallel.place(jax.tree.map(np.asarray, state))
    after = update(placed, parallel.place_batch(batch()))
    after = jax.device_get(parallel.fetchable(after))
    # The optimiser subtracts the gradient.
    return after.window, jax.tree.map(np.subtract, state.params, after.params)


def class_loss(logits, values):
    weight = np.tile(values["weight"], 2)
    own, other = (
        jax.nn.one_hot(np.tile(values[name], 2), 3) for name in ("label", "other_label")
    )
    share = np.tile(values["label_share"], 2)[:, None]
    targets = (share * own + (1 - share) * other) * 0.9 + 0.1 / 3
    entropy = -jnp.sum(targets * jax.nn.log_softmax(logits), -1)
    return jnp.sum(weight * entropy) / weight.sum()


def region_loss(logits, values, similarities):
    """Cross-entropy over known pixels, and Dice over images that have some."""
    moved = warp_labels(similarities, values["regions"], fill=255)
    regions = jnp.concatenate([values["regions"], moved])
    weight = np.tile(values["weight"], 2)[:, None, None]
    known = (regions != 255) & (weight > 0)
    targets = jax.nn.one_hot(regions, 3)
    smooth = targets * 0.9 + 0.1 / 3
    entropy = -jnp.sum(smooth * jax.nn.log_softmax(logits), -1)
    entropy = jnp.sum(jnp.where(known, entropy, 0)) / jnp.sum(known)
    targets, known = jnp.where(known[..., None], targets, 0), known[..., None]
    found = jnp.where(known, jax.nn.softmax(logits), 0)
    true, both = targets.sum((1, 2)), (targets * found).sum((1, 2))
    overlap = (2 * both + 1) / (true + found.sum((1, 2)) + 1)
    there = true > 0
    some = there.any(-1)
    mean = jnp.sum(there * overlap, -1) / jnp.maximum(there.sum(-1), 1)
    return entropy + jnp.sum(jnp.where(some, 1 - mean, 0)) / jnp.sum(some)


def object_loss(outputs, values, similarities):
    """The heat maps' loss and the boxes', each over the objects of all images."""
    moved = Detection().moved(similarities, values)
    names = ("image", "weight", "objects", "object_labels", "object_ignored")
    both = {name: jnp.concatenate([values[name], moved[name]]) for name in names}
    sums = detection_losses(outputs, both, box_loss="gaussian")
    return sum(total / weight for total, weight in sums)


@functools.cache
def whole(task):
    """Loss and gradients written down anew, for the whole batch at once."""
    _, experiment, state = initial("one", 1, task)
    values = batch()
    images = unit_range(values["image"])
    step_key = jax.random.fold_in(jax.random.wrap_key_data(state.key), 0)
    keys = image_keys(step_key, Purpose.MOVEMENT, BATCH, None)
    moved, similarities = move_images(MOVES, keys, images)
    weight = values["weight"]

    def look(params):
        both = experiment.normalise(jnp.concatenate([images, moved]))
        logits, updates = network(task).apply(
            {"params": params}, both, mutable=["intermediates"]
        )
        evidence = layer_evidence(updates["intermediates"])
        found = {path: layer["rectangle"] for path, layer in evidence.items()}
        return logits, *(
            jax.tree.map(lambda leaf, half=half: leaf[half], found)
            for half in (slice(BATCH), slice(BATCH, None))
        )

    extent_x, extent_y = map_extents(12, 12)
    options = {"extent_x": extent_x, "extent_y": extent_y, "weights": weight}

    def loss(params):
        logits, first, second = look(params)
        if task == "segmentation":
            own = region_loss(logits, values, similarities)
        elif task == "detection":
            own = object_loss(logits, values, similarities)
        else:
            own = class_loss(logits, values)
        motion = equivariance_loss(first, second, similarities, **options)
        return own + MOVES.weight * motion, motion

    (value, motion), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    _, first, second = look(state.params)
    in_sight = []
    for rows in np.split(np.arange(BATCH), 4):
        taken = [
            jax.tree.map(lambda leaf, rows=rows: leaf[rows], tree)
            for tree in (first, second, similarities)
        ]
        part = options | {"weights": weight[rows]}
        in_sight.append(np.asarray(equivariance_terms(*taken, **part)[1]))
    return float(value), float(motion), gradients, np.array(in_sight), weight.sum()


def test_parts_differ_in_how_many_pairs_are_in_sight():
    in_sight, total = whole("classification")[3:]
    assert (in_sight.sum(0) > 2).all()
    assert (in_sight.sum(0) < total).all()
    assert (in_sight.min(0) < in_sight.max(0)).all()


@pytest.mark.parametrize(
    ("parallel_kind", "parts", "task"),
    [
        ("one", 1, "classification"),
        ("one", 4, "classification"),
        ("jit", 1, "classification"),
        ("pmap", 1, "classification"),
        ("pmap", 2, "classification"),
        ("one", 4, "segmentation"),
        ("jit", 1, "segmentation"),
        ("pmap", 2, "segmentation"),
        ("jit", 1, "detection"),
        ("pmap", 2, "detection"),
    ],
)
def test_loss_and_gradients_are_those_of_the_whole_batch(parallel_kind, parts, task):
    value, motion, expected, _, total = whole(task)
    window, gradients = step_once(parallel_kind, parts, task)
    assert window["weight"] == total
    assert_close(window["loss"] / total, value)
    assert_close(window["equivariance_loss"] / total, motion)
    jax.tree.map(partial(assert_close, atol=1e-5, rtol=1e-5), gradients, expected)
    norm = np.sqrt(sum(np.sum(leaf**2) for leaf in jax.tree.leaves(expected)))
    assert_close(window["gradient_norm"], norm)
    assert norm > 0.01
