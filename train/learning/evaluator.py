"""Scores on all evaluation images, each counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from train.errors import UserError
from train.evidence.localization import localization_record
from train.learning.devices import Parallel
from train.learning.metrics import classification_record
from train.learning.steps import eval_step, observe
from train.learning.task import Task


class Evaluator:
    """The compiled evaluation of one task."""

    def __init__(self, task: Task, parallel: Parallel):
        """Compiles when first called."""
        self._parallel = parallel
        self._step: Callable = parallel.compile_evaluation(partial(eval_step, task))
        self._observe: Callable = jax.jit(partial(observe, task))

    def scores(
        self, variables: Any, step: Any, batches: Iterable[Mapping[str, np.ndarray]]
    ) -> dict[str, float]:
        """Means over all images, flat names: `accuracy`, `attention2/iou`, ...

        Args:
          variables: placed, as `TrainState.evaluated_variables` gives them.
          step: placed; it decides the sharpness.
          batches: padded, this process's part of each.

        Returns:
          Finite numbers only: a score that nothing was known for is left out, and
          `images`, `attention2/images_with_truth` say how many images there were.

        Raises:
          UserError: if there is no batch.
        """
        # Kept on the devices until the end: a fetch in between would wait.
        sums = [
            self._step(variables, step, self._parallel.place_batch(batch))
            for batch in batches
        ]
        if not sums:
            raise UserError("There are no images to evaluate; got an empty split.")
        fetched = jax.device_get([self._parallel.fetchable(each) for each in sums])
        total = jax.tree.map(lambda *leaves: np.sum(leaves, 0, np.float64), *fetched)
        record = classification_record(total["classification"])
        for path, layer in total["layers"].items():
            named = localization_record(layer).items()
            record |= {f"{path}/{name}": value for name, value in named}
        return record

    def observe(self, variables: Any, step: Any, images: np.ndarray) -> tuple:
        """Fetched logits and layer evidence of uint8 images, on one device."""
        variables, step = jax.device_get((variables, step))
        return jax.device_get(self._observe(variables, step, images))
