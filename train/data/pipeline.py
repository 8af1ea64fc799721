"""The input pipeline: a source, and iterators of batches over it."""

from __future__ import annotations

import weakref
from collections.abc import Generator, Iterator
from typing import Protocol

import numpy as np

from train.config.data import DataConfig
from train.data.collate import Batch, RowMaker, RowTruth, input_shape
from train.data.sampler import WHOLE, EvalBatches, Share, TrainBatches
from train.data.sources import NoSplitError, Source, open_source
from train.data.sources.holding_out import HELD_OUT
from train.data.sources.memory import (
    MemorySource,
    estimated_bytes,
    load_into_memory,
    say_once,
)
from train.data.workers import in_workers, signals_blocked
from train.errors import package

__all__ = [
    "Batch",
    "BatchIterator",
    "EvalIterable",
    "Share",
    "eval_batches",
    "evaluates_held_out",
    "input_shape",
    "load_source",
    "train_batches",
]

# More batches than any run has steps; the sequence itself has no end.
_ENDLESS = 2**40


class _Batches(Protocol):
    rows: RowMaker

    def __getitem__(self, step: int) -> Batch: ...


def load_source(config: DataConfig, split: str) -> Source:
    """Opens the set of `config`, decoded into memory if it fits.

    Args:
        config: names the set and its limits.
        split: "train"; "eval" for `config.eval_split`; "validation" for the training
            images that `config.validation` holds out.

    Raises:
        ValueError: the set or split is unknown or breaks a rule, or nothing is held
            out; an image that cannot be read is named (`UnreadableImageError`).
    """
    if split == "train":
        source = open_source(config, config.train_split, config.train_examples)
    elif split == "eval":
        source = _open_eval(config)
    elif split == "validation":
        if config.validation == 0:
            raise ValueError(
                "No training images are held out; train with --data.validation 0.1."
            )
        source = open_source(config, HELD_OUT)
    else:
        raise ValueError(
            f'split must be "train", "eval" or "validation", got {split!r}.'
        )
    if estimated_bytes(source) > config.memory_limit_mb * 1e6:
        return source
    return load_into_memory(source, config)


def _open_eval(config: DataConfig) -> Source:
    """The images to evaluate on: where the set has none, those that are held out."""
    try:
        return open_source(config, config.eval_split, config.eval_examples)
    except NoSplitError:
        if config.validation == 0 or config.eval_split not in ("test", "validation"):
            raise
        source = open_source(config, HELD_OUT, config.eval_examples)
        if config.eval_split == "test":
            say_once(
                f"{config.name} has no test split, so the held-out training images are"
                " evaluated: scores of the best checkpoint, which they choose, flatter."
            )
        return source


def evaluates_held_out(config: DataConfig) -> bool:
    """Whether `load_source(config, "eval")` gives the held-out training images."""
    if config.eval_split == HELD_OUT or config.validation == 0:
        return config.validation > 0
    try:
        open_source(config, config.eval_split)
    except NoSplitError:
        return True
    return False


def train_batches(
    source: Source,
    config: DataConfig,
    batch_size: int,
    *,
    task: RowTruth,
    seed: int,
    share: Share = WHOLE,
) -> BatchIterator:
    """An endless iterator of training batches, shuffled and augmented.

    Batch s is a function of (seed, s) alone: it does not depend on the number of
    processes (each gets its share of it), workers or threads.

    Args:
        source: the images.
        config: size, augmentation, workers.
        batch_size: images of a batch, over all processes; a multiple of their number.
        task: says which truth belongs to an image.
        seed: decides order and augmentation.
        share: which rows of each batch to make.
    """
    rows = RowMaker(source, config, task, training=True)
    return BatchIterator(TrainBatches(rows, batch_size, seed, share))


def eval_batches(
    source: Source,
    config: DataConfig,
    batch_size: int,
    *,
    task: RowTruth,
    share: Share = WHOLE,
) -> EvalIterable:
    """Every image once, in batches of one size; padding has weight 0.

    May be iterated again and again. Each process gets the same number of batches.
    """
    rows = RowMaker(source, config, task, training=False)
    return EvalIterable(EvalBatches(rows, batch_size, share))


class BatchIterator(Iterator[Batch]):
    """Training batches from a step on, made ahead by threads or worker processes.

    Its whole state is the number of batches given: `get_state` and `set_state` take
    and give a plain dict that goes into JSON.
    """

    def __init__(self, batches: _Batches) -> None:
        """Starts at step 0."""
        self._batches, self._step = batches, 0
        self._engines: list[Generator[Batch, None, None]] = []  # one or none
        # Also at exit: grain's workers and threads must end before Python does.
        weakref.finalize(self, _close_all, self._engines)

    def __next__(self) -> Batch:
        """The batch of the present step."""
        if not self._engines:
            self._engines.append(_run(self._batches, self._step, _ENDLESS))
        try:
            batch = next(self._engines[0])
        except BaseException:
            self.close()
            raise
        self._step += 1
        return batch

    def get_state(self) -> dict[str, int]:
        """{"step": batches given so far}."""
        return {"step": self._step}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes to the step of a state that `get_state` gave."""
        self.close()
        self._step = int(state["step"])

    def close(self) -> None:
        """Stops workers and threads; the next batch starts them again."""
        _close_all(self._engines)


class EvalIterable:
    """The batches of an evaluation; `len` is their number.

    Attributes:
        rows: makes the rows of chosen images.
    """

    def __init__(self, batches: EvalBatches):
        """Makes nothing yet."""
        self.rows, self._batches = batches.rows, batches

    def __len__(self) -> int:
        """The number of batches."""
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """Starts from the first batch."""
        return _run(self._batches, 0, len(self))


def _run(batches: _Batches, first: int, end: int) -> Generator[Batch, None, None]:
    """Batches first to end, made ahead by grain's threads or worker processes."""
    grain = package("grain", "Making batches")
    config = batches.rows.config
    workers = 0 if isinstance(batches.rows.source, MemorySource) else config.workers
    options = grain.ReadOptions(
        num_threads=config.threads, prefetch_buffer_size=2 * config.threads
    )
    steps = grain.MapDataset.range(first, end)
    dataset = steps.map(batches.__getitem__).to_iter_dataset(options)
    if workers:
        dataset = in_workers(dataset, workers)
    # Grain starts its workers in here: one at once, several at the first batch.
    with signals_blocked(workers > 0):
        iterator = iter(dataset)
    try:
        with signals_blocked(workers > 0):
            batch = next(iterator, None)
        while batch is not None:
            # A worker's arrays are shared memory, which leaks if they live until exit.
            if workers:
                batch = {name: np.array(value) for name, value in batch.items()}
            yield batch
            batch = next(iterator, None)
    finally:
        iterator.close()


def _close_all(engines: list[Generator[Batch, None, None]]) -> None:
    while engines:
        engines.pop().close()
