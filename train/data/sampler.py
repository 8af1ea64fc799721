"""Which images make the batch of a step: pure functions of seed and step.

Batch s of a run with seed r is the same whatever number of processes, workers or
threads makes it, and whether the set is held in memory or read from disk. So the
state of the data is one number, the step.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from train.data.augmentation.mixtures import check_mixtures, draw_mixture, mixed_rows
from train.data.collate import Batch, RowMaker, input_shape

# Streams of random numbers that must not meet.
_SHUFFLE, _FLIP, _AUGMENT, _MIX = 0, 1, 2, 3


class Share(NamedTuple):
    """What one of several processes makes of each batch: a slice of its rows.

    Attributes:
        index: which of the slices, counted from 0.
        count: how many there are.
    """

    index: int
    count: int


WHOLE = Share(0, 1)


class TrainBatches:
    """The endless sequence of training batches; item s is the batch of step s.

    Epochs follow one another without a gap, each a fresh permutation of all images.

    Attributes:
        rows: makes the rows of chosen images.
        batch_size: images of a batch, over all processes.
        seed: decides order and augmentation.
        own: the rows of the batch that this process gets, one contiguous slice.
    """

    def __init__(
        self, rows: RowMaker, batch_size: int, seed: int, share: Share
    ) -> None:
        """Refuses crops that would bend rotated rectangles, and strange mixtures."""
        info, aspect = rows.source.info, rows.config.crop_aspect
        rotated = info.truth == "rotated" or info.rotated_objects
        if rotated and aspect != (1, 1):
            raise ValueError(
                f"data.crop_aspect must be (1, 1) for {info.name}, whose true "
                f"rectangles are rotated, got {aspect}."
            )
        check_mixtures(rows.config, rows.task, input_shape(info, rows.config)[:2])
        self.rows, self.batch_size, self.seed = rows, batch_size, seed
        self.own = _own_rows(batch_size, share)

    def __getitem__(self, step: int) -> Batch:
        """This process's rows of the batch of step `step`."""
        if not self.rows.config.mixes_images:
            return self._unmixed(step, self.own)
        # The one before the first is another process's, where there are several.
        before = (self.own[0] - 1) % self.batch_size
        lent = [] if before == self.own[-1] else [before]
        made = self._unmixed(step, np.concatenate([lent, self.own]).astype(int))
        others = {name: np.roll(values, 1, axis=0) for name, values in made.items()}
        batch, others = (
            {name: values[len(lent) :] for name, values in rows.items()}
            for rows in (made, others)
        )
        rng, size = _generator(self.seed, _MIX, step), batch["image"].shape[1:3]
        mixture = draw_mixture(rng, self.rows.config, self.batch_size, size)
        return mixed_rows(batch, others, mixture.of(self.own), self.rows.task)

    def _unmixed(self, step: int, places: np.ndarray) -> Batch:
        """Rows of the batch of all processes, each of one image."""
        positions = step * self.batch_size + places
        indices = self._indices(positions)
        mirrored = np.zeros(len(indices), bool)
        if self.rows.config.flip:
            flips = _generator(self.seed, _FLIP, step).random(self.batch_size) < 0.5
            mirrored = flips[places]
        if not self.rows.augments:
            return self.rows(indices, mirrored)
        generators = [
            _generator(self.seed, _AUGMENT, int(position)) for position in positions
        ]
        return self.rows(indices, mirrored, generators)

    def _indices(self, positions: np.ndarray) -> np.ndarray:
        """The images at these places of the endless sequence."""
        count = len(self.rows.source)
        epochs, places = np.divmod(positions, count)
        indices = np.empty_like(positions)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            order = _permutation(self.seed, int(epoch), count)
            indices[chosen] = order[places[chosen]]
        return indices


class EvalBatches:
    """All images once, in order; the last batch is filled up with weight 0.

    Every process gets equally many batches, so that all take part in each step.

    Attributes:
        rows: makes the rows of chosen images.
        batch_size: images of a batch, over all processes.
        own: the rows of the batch that this process gets, one contiguous slice.
    """

    def __init__(self, rows: RowMaker, batch_size: int, share: Share) -> None:
        """Reads nothing that is not in memory yet."""
        self.rows, self.batch_size = rows, batch_size
        self.own = _own_rows(batch_size, share)

    def __len__(self) -> int:
        """The number of batches."""
        return -(-len(self.rows.source) // self.batch_size)

    def __getitem__(self, step: int) -> Batch:
        """This process's rows of batch `step`."""
        if not 0 <= step < len(self):
            raise IndexError(f"step must be in [0, {len(self)}), got {step}.")
        indices = step * self.batch_size + self.own
        real = indices[indices < len(self.rows.source)]
        batch = self.rows(real, np.zeros(len(real), bool))
        padding = self.rows.padding(len(indices) - len(real))
        return {
            name: np.concatenate([values, padding[name]])
            for name, values in batch.items()
        }


def _own_rows(batch_size: int, share: Share) -> np.ndarray:
    if batch_size < 1 or batch_size % share.count:
        raise ValueError(
            f"The batch size must be a positive multiple of the {share.count} "
            f"processes, got {batch_size}."
        )
    rows = batch_size // share.count
    return np.arange(share.index * rows, (share.index + 1) * rows)


def _generator(seed: int, stream: int, number: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64([seed, stream, number]))


# The last epoch, this one and the next, for a few data sets at a time.
@functools.lru_cache(maxsize=8)
def _permutation(seed: int, epoch: int, count: int) -> np.ndarray:
    return _generator(seed, _SHUFFLE, epoch).permutation(count)
