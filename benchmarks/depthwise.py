"""How much our depthwise convolution saves in a training step, on this machine.

    python -m benchmarks.depthwise
    python -m benchmarks.depthwise --backbone mobilenetv3-small --image-size 128

Times the gradient of a backbone's loss with `cram_jax.backbones.depthwise` and with
XLA's stock grouped convolution in its place, same weights and images, in turn (so that
other load on the machine hits both), and checks that both give the same gradient. It
writes RESULTS.json and RESULTS.md.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import platform
import shlex
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import tyro

from benchmarks.timing import seconds
from cram_jax.backbones import backbone
from cram_jax.backbones.depthwise import grouped_conv
from train.learning.network import initial_variables


@dataclass(frozen=True)
class Options:
    """What to time."""

    backbone: str = "efficientnet-lite0"
    """Name of the network."""
    image_size: int = 224
    """Side of the square images in pixels."""
    batch_size: int = 8
    """Images of one step."""
    rounds: int = 5
    """Timed steps of each convolution; their median counts."""
    results: Path = Path("results/depthwise")
    """RESULTS.json and RESULTS.md are written."""


def compiled_step(
    options: Options, variables: dict[str, Any], *, ours: bool
) -> Callable[[], Any]:
    """A training step's loss and gradient, compiled; call it without arguments."""
    network = backbone(options.backbone)(10)
    shape = (options.batch_size, options.image_size, options.image_size, 3)
    images = jax.random.normal(jax.random.key(0), shape)
    labels = jnp.arange(options.batch_size) % 10

    def loss(params):
        logits, _ = network.apply(
            {**variables, "params": params},
            images,
            train=True,
            mutable=["batch_stats"],
        )
        log_probabilities = jax.nn.log_softmax(logits)
        return -jnp.mean(log_probabilities[jnp.arange(len(labels)), labels])

    gradient = jax.jit(jax.value_and_grad(loss))
    if ours:
        step = gradient.lower(variables["params"]).compile()
    else:
        with mock.patch("cram_jax.backbones.blocks.depthwise_conv", grouped_conv):
            step = gradient.lower(variables["params"]).compile()
    return functools.partial(step, variables["params"])


def measure(options: Options) -> dict[str, Any]:
    """Median seconds of both, their ratio, and how far the gradients are apart."""
    shape = (options.image_size, options.image_size, 3)
    network = backbone(options.backbone)(10)
    variables = initial_variables(network, jax.random.key(1), shape)
    steps = {
        name: compiled_step(options, variables, ours=name == "ours")
        for name in ("ours", "stock")
    }
    losses, gradients = zip(*(step() for step in steps.values()), strict=True)
    norm = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradients[1]))
    apart = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), *gradients)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(options.rounds):
        for name, step in steps.items():
            times[name].append(seconds(step))
    medians = {name: statistics.median(each) for name, each in times.items()}
    return {
        "seconds": medians,
        "all_seconds": times,
        "ratio": medians["stock"] / medians["ours"],
        "losses": [float(value) for value in losses],
        "gradient_difference": float((sum(jax.tree.leaves(apart)) / norm) ** 0.5),
    }


def main(arguments: list[str]) -> None:
    """Measures and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.depthwise")
    result = measure(options)
    command = shlex.join(["python", "-m", "benchmarks.depthwise", *arguments])
    machine = f"{platform.machine()}, {os.cpu_count()} cores, {jax.default_backend()}"
    settings = dataclasses.asdict(options) | {"results": str(options.results)}
    record = {"command": command, "machine": machine, "options": settings, **result}
    text = "\n".join(
        [
            "# Depthwise convolution",
            "",
            f"`{command}` on {machine}: one training step (loss and gradient) of"
            f" {options.backbone}, {options.batch_size} images of"
            f" {options.image_size} x {options.image_size}, float32; median of"
            f" {options.rounds}.",
            "",
            "| convolution | seconds per step |",
            "| --- | ---: |",
            *(f"| {name} | {value:.2f} |" for name, value in result["seconds"].items()),
            "",
            f"Ours is {result['ratio']:.1f} times as fast; the two gradients differ by"
            f" {result['gradient_difference']:.1e} of their norm.",
        ]
    )
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    options.results.with_suffix(".md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main(sys.argv[1:])
