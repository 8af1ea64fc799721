"""The cost of an attention layer in the training step of a network.

ResNet-50 and EfficientNet-B0: cross entropy of random images, its gradient, and a
plain step of gradient descent. "digits": the training step of the preset itself, with
its moved images, its optimiser and its metrics; the equivariance loss, which only
rectangles can have, is off.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost_layers import compile_and_describe, example_values
from benchmarks.timing import interleaved, quartiles, relative
from cram_jax import backbones as networks
from cram_jax.attention.registry import ATTENTIONS, attention_factory
from train.config.attention import BudgetConfig
from train.config.presets import preset
from train.data.facts import Facts
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.learning.steps import train_step

# Stages that a layer is put after.
NETWORKS = {
    "resnet50": (1, 2, 3, 4),
    "efficientnet-b0": (1, 2, 3, 4, 5),
    "digits": (2,),
}
# Stages that a layer is put after by itself, where asked for.
SINGLE_STAGES = NETWORKS | {"digits": (1, 2, 3)}
CLASSES = 1000
Step = tuple[Callable, tuple, int]


def imagenet_step(
    backbone: str,
    layer: str,
    stages: tuple[int, ...],
    batch: int,
    size: int,
    precision: str = "float32",
) -> Step:
    """`step(variables, images, labels)`, its arguments, and the parameters' number."""
    factory = attention_factory(layer)
    model = networks.backbone(backbone)(
        CLASSES,
        attention=factory,
        attention_stages=() if factory is None else stages,
        dtype=jnp.bfloat16 if precision == "bf16" else None,
    )
    generator = np.random.default_rng(0)
    images = jnp.asarray(generator.normal(size=(batch, size, size, 3)), jnp.float32)
    labels = jnp.asarray(generator.integers(0, CLASSES, batch))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    variables = example_values(
        {name: shapes[name] for name in ("params", "batch_stats")}
    )

    def loss(params, batch_stats, images, labels):
        logits, updates = model.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            rngs={"dropout": jax.random.key(0)},
            mutable=["batch_stats"],
        )
        chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1)
        return -chosen.mean(), updates["batch_stats"]

    def step(variables, images, labels):
        params, statistics = variables["params"], variables["batch_stats"]
        gradient, statistics = jax.grad(loss, has_aux=True)(
            params, statistics, images, labels
        )
        params = jax.tree.map(lambda p, g: p - 1e-3 * g, params, gradient)
        return {"params": params, "batch_stats": statistics}

    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    return step, (variables, images, labels), count


def digits_batch(batch: int, side: int) -> dict[str, np.ndarray]:
    """Noise with the keys of the pipeline's batches."""
    generator = np.random.default_rng(0)
    return {
        "image": generator.integers(0, 255, (batch, side, side, 1), np.uint8),
        "label": generator.integers(0, 10, batch).astype(np.int32),
        "weight": np.ones(batch, np.float32),
        "rectangle": np.full((batch, 5), 0.3, np.float32),
        "rectangle_weight": np.ones(batch, np.float32),
    }


def digits_step(layer: str, stages: tuple[int, ...], batch: int, side: int) -> Step:
    """The digits preset's `step(state, batch)`, and the parameters' number."""
    config = preset("digits")
    config = dataclasses.replace(
        config,
        batch_size=batch,
        model=dataclasses.replace(
            config.model, attention=layer, attention_stages=stages
        ),
        equivariance=dataclasses.replace(config.equivariance, weight=0.0),
        budget=BudgetConfig(),
    )
    names = tuple(map(str, range(10)))
    inputs = Facts((side, side, 1), names, num_examples=4000, truth="rotated")
    parallel = JitParallel(jax.devices()[:1])
    experiment = make_experiment(config, inputs, parallel)
    state = experiment.initial_state()
    placed = parallel.place_batch(digits_batch(batch, side))
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    return partial(train_step, experiment), (state, placed), count


def make_step(
    network: str, layer: str, stages: tuple[int, ...], batch: int, size: int
) -> Step:
    """The named network's step, its arguments, and the number of parameters."""
    if layer not in ATTENTIONS:
        raise ValueError(f"Unknown attention {layer!r}; one of {list(ATTENTIONS)}.")
    if network == "digits":
        return digits_step(layer, stages, batch, size)
    return imagenet_step(network, layer, stages, batch, size)


def measure_network(
    network: str,
    layers: tuple[str, ...],
    stages: list[tuple[int, ...]],
    batch: int,
    image_size: int,
    rounds: int,
) -> dict[str, Any]:
    """Training steps with each layer in each choice of stages, and with none.

    Returns:
      A record for JSON: quartiles of step times, and of their ratios to the bare
      network's; shares of parameters and FLOPs that the layer adds.
    """
    if network == "digits":
        batch, image_size = 64, 48  # the preset's
    arms = [("none", stages[0]), *((name, s) for name in layers for s in stages)]
    runs, facts = {}, {}
    for arm in arms:
        step, arguments, count = make_step(network, *arm, batch, image_size)
        compiled, facts[arm] = compile_and_describe(step, *arguments)
        facts[arm]["parameters"] = count
        runs[str(arm)] = partial(compiled, *arguments)
    times = interleaved(runs, rounds)
    none, bare = times[str(arms[0])], facts[arms[0]]
    record = {
        "network": network,
        "batch": batch,
        "image_size": image_size,
        "none": bare | {clock: quartiles(none[clock]) for clock in ("wall", "cpu")},
        "runs": [],
    }
    for arm in arms[1:]:
        time_of, fact = times[str(arm)], facts[arm]
        run = {
            "layer": arm[0],
            "stages": list(arm[1]),
            "wall": quartiles(time_of["wall"]),
            "to_none": relative(time_of["wall"], none["wall"]),
            "cpu_to_none": relative(time_of["cpu"], none["cpu"]),
            "more_parameters": fact["parameters"] / bare["parameters"] - 1,
            "more_flops": fact["flops"] / bare["flops"] - 1,
        }
        record["runs"].append(fact | run)
    return record
