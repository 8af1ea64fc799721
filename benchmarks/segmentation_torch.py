"""A torch U-Net beside our segmentation network: size, and score by the same code.

    .venv-torch/bin/python -m benchmarks.segmentation_torch --data data

The U-Net (Ronneberger et al. 2015) is that of `segmentation_models.pytorch`, as its
users make it: EfficientNet-Lite0 with ImageNet weights, its own decoder, cross-entropy
and its Dice loss. It sees the very batches that our run of that seed sees, in as many
steps, with the learning rates and the frozen layers of our recipe. `make test-torch`
makes the environment.

It puts what it finds under "torch" in RESULTS.json of `benchmarks.segmentation`, which
must be there, seed by seed, and writes RESULTS.md again; started again, it does the
seeds that are missing.
"""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import segmentation, segmentation_report
from benchmarks.cost_torch import import_torch
from cram_jax.backbones.weight_files import packaged_weights, read_state_dict
from train.commands.options import parse_fit
from train.config.run import FitConfig
from train.data.loaders import Feed
from train.data.sources.base import IGNORED
from train.learning.devices import JitParallel
from train.learning.experiment import Experiment, make_experiment
from train.learning.optimizer import learning_rate_schedule
from train.tasks.registry import make_task

ENCODER, WEIGHTS = "tu-tf_efficientnet_lite0", "efficientnet-lite0"
# The encoder's layers that our recipe holds still, and those at a tenth of the rate.
FROZEN = re.compile(r"encoder\.model\.(conv_stem|bn1|blocks\.[0-4]\.)|conv_dw")
SLOW, SLOW_RATE = re.compile(r"encoder\."), 0.1


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: Path = Path("data")
    """Folder in which the archives butterflies10.zip and pets3.zip were unpacked."""
    sets: tuple[str, ...] = ("butterflies10", "pets3")
    """Names of the folders in it."""
    seeds: int = 3
    """Seeds 0, 1, ..., those of the runs beside it."""
    epochs: float | None = None
    """Passes over the training images; none: the preset's."""
    results: Path = Path("results/segmentation")
    """RESULTS.json is read, and written with RESULTS.md."""


def make_unet(torch: Any, regions: int) -> Any:
    """The U-Net with ImageNet weights in its encoder."""
    library = importlib.import_module("segmentation_models_pytorch")
    network = library.Unet(ENCODER, encoder_weights=None, classes=regions)
    state = network.encoder.state_dict()
    published = read_state_dict(packaged_weights(WEIGHTS))
    # The same arrays in the same order, under other names; behind them the head.
    for (name, old), new in zip(state.items(), published.values(), strict=False):
        if old.shape != new.shape:
            raise SystemExit(f"{name} of the U-Net's encoder is no {new.shape}.")
        state[name] = torch.from_numpy(np.array(new))
    network.encoder.load_state_dict(state)
    for module in network.encoder.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3  # That of the published network; timm's class has 1e-5.
    return network.to(memory_format=torch.channels_last)


def groups_of(torch: Any, network: Any, experiment: Experiment) -> Any:
    """AdamW with our recipe's rates; layers that it holds still are frozen."""
    config = experiment.config.optimizer
    groups = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad = FROZEN.search(name) is None
        if parameter.requires_grad:
            scale = SLOW_RATE if SLOW.match(name) else 1.0
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            group = {"params": [parameter], "scale": scale, "weight_decay": decay}
            groups.append(group)
    return torch.optim.AdamW(groups, lr=config.learning_rate)


def as_input(torch: Any, experiment: Experiment, images: np.ndarray) -> Any:
    """uint8 `[B, H, W, C]` normalised, as torch has it."""
    mean, std = np.array([experiment.mean, experiment.std], np.float32)
    values = np.asarray(images, np.float32) / 255
    return torch.from_numpy((values - mean) / std).permute(0, 3, 1, 2)


def train(torch: Any, network: Any, experiment: Experiment, feed: Feed) -> None:
    """All steps of our run, on its batches."""
    losses = importlib.import_module("segmentation_models_pytorch.losses")
    dice = losses.DiceLoss("multiclass", ignore_index=IGNORED)
    cross_entropy = torch.nn.CrossEntropyLoss(ignore_index=IGNORED)
    optimizer = groups_of(torch, network, experiment)
    schedule = learning_rate_schedule(
        experiment.config.optimizer, experiment.total_steps
    )
    network.train()
    network.encoder.eval()  # ImageNet's statistics, as in our recipe.
    batches = feed.train_batches(0, lambda batch: batch)
    for step in range(experiment.total_steps):
        batch = next(batches)
        for group in optimizer.param_groups:
            group["lr"] = float(schedule(step)) * group["scale"]
        truth = torch.from_numpy(np.asarray(batch["regions"], np.int64))
        logits = network(as_input(torch, experiment, batch["image"]))
        loss = cross_entropy(logits, truth) + dice(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 10 == 0:
            print(f"step {step} of {experiment.total_steps}: {loss.item():.3f}")
    batches.close()


def evaluate(
    torch: Any, network: Any, experiment: Experiment, feed: Feed
) -> dict[str, float]:
    """The task's scores on the test images."""
    network.eval()
    sums_of = jax.jit(experiment.task.sums)

    def sums() -> Iterator[Any]:
        for batch in feed.eval_batches():
            with torch.no_grad():
                logits = network(as_input(torch, experiment, batch["image"]))
            outputs = jnp.asarray(logits.permute(0, 2, 3, 1).numpy())
            yield jax.device_get(sums_of(outputs, dict(batch)))

    first, *others = sums()
    for other in others:
        first = jax.tree.map(np.add, first, other)
    return experiment.task.record(first, None, experiment.inputs)


def run(torch: Any, config: FitConfig) -> dict[str, float]:
    """Trains and scores the U-Net of one seed."""
    torch.manual_seed(config.seed)
    feed = Feed(config, make_task(config))
    parallel = JitParallel(jax.devices()[:1])
    experiment = make_experiment(config, feed.inputs, parallel)
    network = make_unet(torch, len(feed.inputs.regions))
    train(torch, network, experiment, feed)
    scores = evaluate(torch, network, experiment, feed)
    count = sum(parameter.numel() for parameter in network.parameters())
    return scores | {segmentation_report.PARAMETERS: float(count)}


def main(arguments: list[str]) -> None:
    """Does the seeds that are missing and writes the results."""
    program = "python -m benchmarks.segmentation_torch"
    options = tyro.cli(Options, args=arguments, prog=program)
    file = options.results.with_suffix(".json")
    if not file.exists():
        raise SystemExit(
            f"There is no {file}; run python -m benchmarks.segmentation first."
        )
    torch = import_torch()
    beside = segmentation.Options(data=options.data, epochs=options.epochs)
    for seed in range(options.seeds):
        for name in options.sets:
            record = json.loads(file.read_text())
            done = record.setdefault("torch", {}).setdefault(name, {})
            if str(seed) in done:
                continue
            config = parse_fit(segmentation.fit_arguments(beside, name, "none", seed))
            done[str(seed)] = {"test": run(torch, config)}
            segmentation_report.write(record, options.results)


if __name__ == "__main__":
    main(sys.argv[1:])
