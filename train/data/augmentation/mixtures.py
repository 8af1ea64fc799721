"""Mixtures of images: mixup (Zhang et al. 2018) and cutmix (Yun et al. 2019).

An image is mixed with its neighbour, the one before it in the batch of *all* processes
(the first with the last), so that a batch is the same however many make it. What
becomes of labels is the task's to say.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

import numpy as np

from train.config.data import DataConfig

# Arrays by name, the rows of a batch or a part of them.
Rows = Mapping[str, np.ndarray]


class Mixture(NamedTuple):
    """How N images are mixed, each with another one of the same size.

    Attributes:
        shares: float32 [N], how much of a mixture is the image's own, in [0, 1].
        boxes: int [N, 4], (top, bottom, left, right) of what shows the other image,
            in pixels, the ends not inside; None where both are seen everywhere.
    """

    shares: np.ndarray
    boxes: np.ndarray | None = None

    def of(self, rows: np.ndarray) -> Mixture:
        """The same of some of the images."""
        boxes = self.boxes
        return Mixture(self.shares[rows], None if boxes is None else boxes[rows])

    def only(self, mixed: np.ndarray) -> Mixture:
        """The same, but for images where `mixed` is False, which stay as they are."""
        shares = np.where(mixed, self.shares, np.float32(1))
        if self.boxes is None:
            return Mixture(shares)
        return Mixture(shares, np.where(mixed[:, None], self.boxes, 0))

    def patches(self, size: tuple[int, int]) -> np.ndarray:
        """Where the other image is seen, bool [N, height, width]; needs boxes."""
        assert self.boxes is not None
        top, bottom, left, right = (edge[:, None] for edge in self.boxes.T)
        y, x = np.arange(size[0]), np.arange(size[1])
        rows, columns = (top <= y) & (y < bottom), (left <= x) & (x < right)
        return rows[:, :, None] & columns[:, None, :]


class MixingTask(Protocol):
    """What mixing must know of a task; see `train.tasks.task.Task`."""

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """A row without truth."""
        ...

    def mixed(self, truth: Rows, others: Rows, mixture: Mixture) -> Rows:
        """The truth of mixed images."""
        ...


def check_mixtures(config: DataConfig, task: MixingTask, size: tuple[int, int]) -> None:
    """Lets a task refuse mixtures that mean nothing to it, before there are any.

    Args:
        config: says which are wanted.
        task: raises `UserError`, or does not.
        size: (height, width) of the network's input.
    """
    row = {name: value[None] for name, value in task.blank_truth(size).items()}
    whole = np.ones(1, np.float32)
    if config.mixup:
        task.mixed(row, row, Mixture(whole))
    if config.cutmix:
        task.mixed(row, row, Mixture(whole, np.zeros((1, 4), int)))


def draw_mixture(
    rng: np.random.Generator, config: DataConfig, count: int, size: tuple[int, int]
) -> Mixture:
    """How a batch is mixed: by mixup or cutmix, if both are on each in half of them.

    Args:
        rng: the step's.
        config: `mixup` and `cutmix`, one of them above 0.
        count: images of the batch, over all processes.
        size: (height, width) of the images.
    """
    cut = config.cutmix > 0
    if cut and config.mixup > 0:
        cut = bool(rng.random() < 0.5)
    alpha = config.cutmix if cut else config.mixup
    shares = rng.beta(alpha, alpha, count).astype(np.float32)
    return _cut(rng, shares, size) if cut else Mixture(shares)


def _cut(
    rng: np.random.Generator, shares: np.ndarray, size: tuple[int, int]
) -> Mixture:
    """Boxes of the image's shape about random centres; what is outside is cut off."""
    sides = np.array(size)
    centers = rng.uniform(0, 1, (len(shares), 2))
    halves = np.sqrt(1 - shares)[:, None] / 2
    low, high = (
        np.round(np.clip(centers + each, 0, 1) * sides).astype(int)
        for each in (-halves, halves)
    )
    own = 1 - np.prod((high - low) / sides, axis=1)
    boxes = np.stack([low[:, 0], high[:, 0], low[:, 1], high[:, 1]], axis=1)
    return Mixture(own.astype(np.float32), boxes)


def mixed_rows(
    batch: Rows, others: Rows, mixture: Mixture, task: MixingTask
) -> dict[str, np.ndarray]:
    """The rows of a batch, each mixed with the same row of `others`.

    An image that could not be read is mixed with none. Of a mixture no object is
    known, for it may show two, or half of one.
    """
    size = batch["image"].shape[1:3]
    mixture = mixture.only(others["weight"] > 0)
    own, other = (
        {name: rows[name] for name in task.blank_truth(size)}
        for rows in (batch, others)
    )
    images = _blended(batch["image"], others["image"], mixture)
    mixed = {**batch, **task.mixed(own, other, mixture), "image": images}
    whole = mixture.shares == 1
    for name in mixed.keys() & {"rectangle", "rectangle_weight", "object_mask"}:
        known = whole.reshape(-1, *(1,) * (mixed[name].ndim - 1))
        mixed[name] = np.where(known, mixed[name], np.zeros((), mixed[name].dtype))
    return mixed


def _blended(images: np.ndarray, others: np.ndarray, mixture: Mixture) -> np.ndarray:
    """uint8 [N, H, W, C]; what is blended is rounded to a grey level."""
    if mixture.boxes is not None:
        taken = mixture.patches(images.shape[1:3])
        return np.where(taken[..., None], others, images)
    shares = mixture.shares[:, None, None, None]
    return np.round(shares * images + (1 - shares) * others).astype(np.uint8)
