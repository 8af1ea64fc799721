"""The batches of a run, and what the network must know of its data set."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any

import jax
import numpy as np

from train.config.run import FitConfig
from train.data.collate import RowMaker, RowTruth
from train.data.facts import Facts
from train.data.labels import with_facts
from train.data.pipeline import (
    Batch,
    EvalIterable,
    Share,
    eval_batches,
    evaluates_held_out,
    input_shape,
    load_source,
    train_batches,
)
from train.data.prefetch import PrefetchIterator, prefetch_to_device
from train.data.preparation import with_source_interpolation
from train.data.sources import Source
from train.errors import UserError

_SHOWN_NAMES = 8


@contextlib.contextmanager
def _named_errors() -> Iterator[None]:
    """What a data source refuses is the user's to mend: one sentence, no traceback."""
    try:
        yield
    except (ValueError, OSError) as error:
        raise UserError(str(error)) from error


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN_NAMES]) or "none"
    return f"{shown}, ..." if len(names) > _SHOWN_NAMES else shown


class Feed:
    """Training and evaluation batches of one run, this process's part of each.

    Sources are opened when first asked for: an evaluation needs no training images.
    """

    def __init__(
        self,
        config: FitConfig,
        task: RowTruth,
        facts: Facts | None = None,
    ):
        """Opens nothing yet.

        Args:
          config: the run's config.
          task: says which truth belongs to an image.
          facts: what a run that was trained knows: labels count in its order of
            classes. None: the order of the training images.
        """
        self._config, self._task, self._facts = config, task, facts
        self._data = with_source_interpolation(config)
        self._share = Share(jax.process_index(), jax.process_count())

    @cached_property
    def train_source(self) -> Source:
        """The training images.

        Raises:
          UserError: if the set is unknown, not there, or broken.
        """
        with _named_errors():
            return self._labelled(load_source(self._data, "train"), whole=True)

    @cached_property
    def eval_source(self) -> Source:
        """The evaluation images; raises as `train_source`."""
        with _named_errors():
            return self._labelled(load_source(self._data, "eval"), whole=False)

    def _labelled(self, source: Source, *, whole: bool) -> Source:
        if self._facts is None:
            return source
        return with_facts(source, self._facts, whole=whole)

    @cached_property
    def validation_source(self) -> Source | None:
        """The training images that are held out, if any; raises as `train_source`."""
        if self._data.validation == 0:
            return None
        with _named_errors():
            source = load_source(self._data, "validation")
            return self._labelled(source, whole=False)

    @cached_property
    def evaluates_held_out(self) -> bool:
        """Whether the evaluation images are the held-out ones; raises as they do."""
        with _named_errors():
            return evaluates_held_out(self._data)

    @cached_property
    def inputs(self) -> Facts:
        """Shape and meaning of the images.

        Raises:
          UserError: if training and evaluation images have different classes, or
            objects of different categories.
        """
        info, test = self.train_source.info, self.eval_source.info
        if info.class_names != test.class_names:
            raise UserError(
                f"The splits {info.split} and {test.split} of {info.name} must have"
                f" the same classes; got {len(info.class_names)} and"
                f" {len(test.class_names)}."
            )
        if info.categories != test.categories:
            raise UserError(
                f"The splits {info.split} and {test.split} of {info.name} must have"
                " the same categories in one order; got"
                f" {_some(info.categories)} and {_some(test.categories)}."
            )
        return Facts(
            image_shape=input_shape(info, self._data),
            class_names=info.class_names,
            num_examples=len(self.train_source),
            truth=test.truth,
            regions=info.regions,
            categories=info.categories,
            rotated_objects=info.rotated_objects,
            most_objects=max(info.most_objects, test.most_objects),
        )

    def train_batches(
        self, step: int, put: Callable[[Batch], Any]
    ) -> PrefetchIterator[Any]:
        """Endless batches from `step` on, each put on the devices ahead of its use."""
        config = self._config
        with _named_errors():
            batches = train_batches(
                self.train_source,
                self._data,
                config.batch_size,
                seed=config.seed,
                share=self._share,
                task=self._task,
            )
        batches.set_state({"step": step})
        return prefetch_to_device(batches, put)

    @cached_property
    def _evaluation(self) -> EvalIterable:
        return self._once(self.eval_source)

    def eval_batches(self) -> EvalIterable:
        """All evaluation images once; the last batch is padded."""
        return self._evaluation

    @cached_property
    def _validation(self) -> EvalIterable | None:
        source = self.validation_source
        return None if source is None else self._once(source)

    def validation_batches(self) -> EvalIterable | None:
        """All held-out images once, seen as in evaluation; None if there are none."""
        return self._validation

    def held_out_sample(self, count: int) -> Iterator[Batch] | None:
        """At most `count` held-out images from all over their set, in padded batches.

        None if nothing is held out.

        Raises:
          UserError: when called or iterated, if the images are not there or broken.
        """
        batches, source = self.validation_batches(), self.validation_source
        if batches is None or source is None:
            return None
        count = min(count, len(source))
        chosen = np.arange(count) * len(source) // count
        return self._padded(batches.rows, chosen)

    def _padded(self, rows: RowMaker, chosen: np.ndarray) -> Iterator[Batch]:
        size = self._config.batch_size
        for first in range(0, len(chosen), size):
            indices = chosen[first : first + size]
            padding = size - len(indices)
            indices = np.pad(indices, (0, padding), "edge")
            with _named_errors():
                batch = rows(indices, np.zeros(size, bool))
            batch["weight"][size - padding :] = 0
            yield batch

    def train_images(self) -> EvalIterable:
        """All training images once, seen as in evaluation."""
        return self._once(self.train_source)

    def _once(self, source: Source) -> EvalIterable:
        with _named_errors():
            return eval_batches(
                source,
                self._data,
                self._config.batch_size,
                task=self._task,
                share=self._share,
            )

    def fixed_batch(self, count: int) -> Batch:
        """Evaluation images from all over the set, the same ones in each process."""
        total = len(self.eval_source)
        count = min(count, total)
        indices = np.arange(count) * total // count
        with _named_errors():
            return self._evaluation.rows(indices, np.zeros(count, bool))
