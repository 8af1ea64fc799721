"""A judge of where the evidence is: a network trained apart, on masked photographs.

A position deep in a network sees past the edge of a mask, so only hiding pixels proves
where the evidence is; and a network that never saw hidden pixels may be thrown by them
(Hooker et al., ROAR, NeurIPS 2019, arXiv 1806.10758; Jethani et al., REAL-X, AISTATS
2021, arXiv 2103.01890). The judge has the backbone, the frozen layers and the steps of
the networks it judges, no attention, and sees training photographs behind random
regions, which know nothing of the class: so no shape of a region can tell it a class.
"""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from benchmarks.faithfulness_regions import (
    central,
    hidden,
    highest,
    random_regions,
)
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import render_hard_mask
from train.config.run import FitConfig
from train.data.loaders import Feed
from train.data.pipeline import Batch
from train.data.preparation import channel_statistics
from train.errors import DONE
from train.evidence.answers import Shown
from train.learning.devices import JitParallel
from train.learning.evaluator import explain, observe
from train.learning.experiment import make_experiment
from train.run.checkpoints.restore import Trained, restore_trained
from train.run.claim import claimed
from train.run.interrupts import Interrupts
from train.run.loop import Loop
from train.run.progress import Display
from train.tasks.registry import make_task

RECTANGLE, CENTRAL = "rectangle", "central square"
CAM, MASK, BOX = "CAM of the bare network", "position-wise mask", "true box"
_CHUNK = 32


class MaskedFeed(Feed):
    """A feed whose training images are seen behind random regions.

    A batch's regions are a function of the run's seed and of its images, so a run that
    is taken up again sees what it would have seen.
    """

    def __init__(self, config: FitConfig):
        """Opens nothing yet."""
        super().__init__(config, make_task(config))
        self._seed = config.seed
        self._mean = mean_colour(config)

    def train_batches(self, step: int, put: Callable[[Batch], Any]) -> Any:
        """As those of any feed, the images masked."""
        return super().train_batches(step, lambda batch: put(self.masked(batch)))

    def masked(self, batch: Batch) -> Batch:
        """The batch with hidden pixels, of each image in the mean colour or black."""
        images = batch["image"]
        count, height, width = images.shape[:3]
        rng = np.random.default_rng([self._seed, zlib.crc32(images.tobytes())])
        regions = random_regions(rng, count, height, width)
        is_mean = rng.uniform(size=(count, 1)) < 0.5
        fill = np.where(is_mean, self._mean, 0)
        return {**batch, "image": hidden(images, regions, fill)}


def mean_colour(config: FitConfig) -> np.ndarray:
    """The colour that the network's normalisation makes 0, uint8 `[3]`."""
    mean, _ = channel_statistics(config.model, 3)
    return np.rint(255 * np.asarray(mean)).astype(np.uint8)


def train_judge(config: FitConfig) -> None:
    """Trains it, or goes on, in its work directory.

    Raises:
      KeyboardInterrupt: if it was interrupted; what is done is kept.
    """
    parallel = JitParallel(jax.devices()[:1])
    feed = MaskedFeed(config)
    experiment = make_experiment(config, feed.inputs, parallel)
    display = Display(experiment.total_steps, quiet=config.output.quiet)
    with Interrupts() as interrupts, claimed(config, feed.inputs):
        if Loop(experiment, feed, display).run(interrupts) != DONE:
            raise KeyboardInterrupt


def restored(workdir: Path) -> Trained:
    """A trained network on one device."""
    return restore_trained(workdir, "latest", JitParallel(jax.devices()[:1]))


def evaluation_images(trained: Trained, data: str) -> Batch:
    """All test images of a data set, as a trained network takes them, in one batch."""
    config = trained.config
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, name=data)
    )
    feed = Feed(config, trained.experiment.task, trained.experiment.inputs)
    return feed.fixed_batch(len(feed.eval_source))


def chunks(batch: Batch, size: int = _CHUNK) -> Iterator[tuple[Batch, int]]:
    """Parts of one size, the last filled up with copies; how many rows count."""
    total = len(batch["image"])
    for first in range(0, total, size):
        rows = np.minimum(np.arange(first, first + size), total - 1)
        part = {name: values[rows] for name, values in batch.items()}
        yield part, min(size, total - first)


def shown_of(trained: Trained, batch: Batch) -> list[tuple[Shown, int]]:
    """What a network shows of all images, part by part."""
    look = jax.jit(
        partial(explain, trained.experiment, trained.variables, trained.step)
    )
    return [(jax.device_get(look(part)), count) for part, count in chunks(batch)]


def joined(parts: list[tuple[Any, int]]) -> np.ndarray:
    """Rows of all parts in one array, without those that only fill up."""
    return np.concatenate([np.asarray(values)[:count] for values, count in parts])


def rectangles_of(shown: list[tuple[Shown, int]]) -> np.ndarray:
    """The rectangles `[N, 5]` of the only layer."""
    return joined(
        [
            (next(iter(each.layers.values()))["rectangle"].as_array(), count)
            for each, count in shown
        ]
    )


def regions_to_judge(
    layer: Trained, bare: Trained, trunk: Trained | None, batch: Batch
) -> dict[str, np.ndarray]:
    """Regions `[N, H, W]` by name; all but the true box as large as the rectangle."""
    height, width = batch["image"].shape[1:3]
    found = Rectangle.from_array(rectangles_of(shown_of(layer, batch)))
    regions = {RECTANGLE: np.asarray(render_hard_mask(found, height, width))}
    counts = regions[RECTANGLE].sum(axis=(1, 2))
    maps = [
        (each.class_maps["CAM, predicted class"], count)
        for each, count in shown_of(bare, batch)
    ]
    regions[CAM] = highest(joined(maps), counts)
    if trunk is not None:
        masks = [
            (next(iter(each.layers.values()))["mask"], count)
            for each, count in shown_of(trunk, batch)
        ]
        regions[MASK] = highest(joined(masks), counts)
    regions[CENTRAL] = central(counts, height, width)
    true = Rectangle.from_array(batch["rectangle"])
    regions[BOX] = np.asarray(render_hard_mask(true, height, width))
    return regions


def accuracy_of(trained: Trained) -> Callable[[Batch], float]:
    """A function from images to the share whose class a network gets right."""
    look = jax.jit(
        partial(observe, trained.experiment, trained.variables, trained.step)
    )

    def accuracy(batch: Batch) -> float:
        parts = [
            (np.argmax(jax.device_get(look(part["image"])[0]), axis=-1), count)
            for part, count in chunks(batch)
        ]
        return float(np.mean(joined(parts) == batch["label"]))

    return accuracy


def judge_scores(
    judge: Trained, batch: Batch, regions: dict[str, np.ndarray]
) -> dict[str, Any]:
    """The judge's accuracy: whole images, and inside and outside each region."""
    fill, accuracy = mean_colour(judge.config), accuracy_of(judge)

    def seen(region: np.ndarray) -> float:
        images = hidden(batch["image"], region, fill)
        return accuracy({**batch, "image": images})

    return {
        "images": len(batch["image"]),
        "whole": accuracy(batch),
        "area": {name: float(region.mean()) for name, region in regions.items()},
        "inside": {name: seen(region) for name, region in regions.items()},
        "outside": {name: seen(~region) for name, region in regions.items()},
    }
