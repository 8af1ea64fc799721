"""Scores on all evaluation images, each counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from cram_jax.attention.evidence import layer_evidence
from train.data.preparation import unit_range
from train.errors import UserError
from train.evidence.localization import (
    evidence_on_image,
    localization_record,
    localization_sums,
)
from train.learning.devices import Parallel
from train.learning.experiment import Experiment
from train.tasks.classification import classification_record, classification_sums
from train.tasks.sums import Sums

Batch = Mapping[str, Any]
Variables = Mapping[str, Any]


def observe(
    experiment: Experiment,
    variables: Variables,
    step: jax.Array,
    images: jax.Array,
    *,
    on_image: bool = True,
):
    """Logits and layer evidence of uint8 images `[B, H, W, C]`, in evaluation mode.

    Rectangles are in coordinates of the images and masks at their resolution, or with
    `on_image=False` in those of the layers' maps.
    """
    logits, updates = experiment.model.apply(
        {**variables, **experiment.schedule(step)},
        experiment.normalise(unit_range(images)),
        mutable=["intermediates"],
    )
    evidence = layer_evidence(updates.get("intermediates") or {})
    if on_image:
        evidence = evidence_on_image(experiment.model, evidence, *images.shape[1:3])
    return logits, evidence


def shown_by(
    experiment: Experiment, variables: Variables, step: jax.Array
) -> Callable[[jax.Array], dict[str, dict[str, Any]]]:
    """A function from uint8 images to what the layers show, on their own maps."""
    look = partial(observe, experiment, variables, step, on_image=False)
    return lambda images: look(images)[1]


def eval_step(
    experiment: Experiment, variables: Variables, step: jax.Array, batch: Batch
) -> Sums:
    """Sums over one batch: classification, and where each layer looked."""
    logits, evidence = observe(experiment, variables, step, batch["image"])
    sums = {
        "classification": classification_sums(logits, batch["label"], batch["weight"]),
        "layers": {
            path: localization_sums(layer, batch, experiment.inputs.truth)
            for path, layer in evidence.items()
        },
    }
    return experiment.sum_over_devices(sums)


class Evaluator:
    """The compiled evaluation of one experiment."""

    def __init__(self, experiment: Experiment, parallel: Parallel):
        """Compiles when first called."""
        self._parallel = parallel
        self._step: Callable = parallel.compile_evaluation(
            partial(eval_step, experiment)
        )
        self._observe: Callable = jax.jit(partial(observe, experiment))

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
