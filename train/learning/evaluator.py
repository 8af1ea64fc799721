"""Scores on all evaluation images, each counted once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from cram_jax.attention.evidence import layer_evidence
from cram_jax.backbones.alignment import evidence_on_image
from cram_jax.explain import class_activation_maps, grad_cam
from train.data.preparation import unit_range
from train.errors import UserError
from train.evidence.answers import Shown
from train.evidence.localization import (
    localization_record,
    localization_sums,
)
from train.learning.devices import Parallel
from train.learning.experiment import Experiment
from train.tasks.sums import Sums

Batch = Mapping[str, Any]
Variables = Mapping[str, Any]
_WEIGHT = "weight"


def observe(
    experiment: Experiment,
    variables: Variables,
    step: jax.Array,
    images: jax.Array,
    *,
    on_image: bool = True,
):
    """Outputs and layer evidence of uint8 images `[B, H, W, C]`, in evaluation mode.

    Rectangles are in coordinates of the images and masks at their resolution, or with
    `on_image=False` in those of the layers' maps.
    """
    outputs, updates = experiment.model.apply(
        {**variables, **experiment.schedule(step)},
        experiment.normalise(unit_range(images)),
        mutable=["intermediates"],
    )
    evidence = layer_evidence(updates.get("intermediates") or {})
    if on_image:
        evidence = evidence_on_image(experiment.model, evidence, *images.shape[1:3])
    return outputs, evidence


def shown_by(
    experiment: Experiment, variables: Variables, step: jax.Array
) -> Callable[[jax.Array], dict[str, dict[str, Any]]]:
    """A function from uint8 images to what the layers show, on their own maps."""
    look = partial(observe, experiment, variables, step, on_image=False)
    return lambda images: look(images)[1]


def explain(
    experiment: Experiment, variables: Variables, step: jax.Array, batch: Batch
) -> Shown:
    """What the layers and class activation maps of a network show of a batch.

    Grad-CAM is of the true class only: behind global pooling and one dense layer it is
    the positive part of the class activation map.
    """
    outputs, layers = observe(experiment, variables, step, batch["image"])
    classes = experiment.task.explained(outputs, batch)
    images = experiment.normalise(unit_range(batch["image"]))
    given = {**variables, **experiment.schedule(step)}
    maps, correct = {}, None
    for name, of_images in classes.items():
        found = class_activation_maps(experiment.model, given, images, of_images)
        maps[f"CAM, {name}"] = found.on_image
    if "true class" in classes:
        true = classes["true class"]
        found = grad_cam(experiment.model, given, images, true)
        maps["Grad-CAM, true class"] = found.on_image
        correct = classes["predicted class"] == true
    return Shown(layers, maps, correct)


def explain_prediction(
    experiment: Experiment, variables: Variables, step: jax.Array, images: jax.Array
) -> tuple[Any, dict[str, dict[str, jax.Array]]]:
    """Outputs, and the class activation map of the predicted class as a mask.

    Args:
      experiment: whose task has classes.
      variables: its network's.
      step: it decides the sharpness.
      images: uint8 `[B, H, W, C]`.

    Raises:
      UserError: if the task's outputs are no classes.
    """
    outputs, _ = observe(experiment, variables, step, images, on_image=False)
    classes = experiment.task.explained(outputs, {})
    if "predicted class" not in classes:
        raise UserError(
            "Class activation maps need a task whose outputs are classes; this run's"
            f" task is {experiment.task.name!r}."
        )
    found = class_activation_maps(
        experiment.model,
        {**variables, **experiment.schedule(step)},
        experiment.normalise(unit_range(images)),
        classes["predicted class"],
    )
    return outputs, {"class activation map": {"mask": found.on_image}}


def eval_step(
    experiment: Experiment, variables: Variables, step: jax.Array, batch: Batch
) -> tuple[Sums, dict[str, jax.Array] | None]:
    """Sums over one batch, the task's and where each layer looked; and its rows."""
    task = experiment.task
    outputs, evidence = observe(experiment, variables, step, batch["image"])
    sums = {
        "task": task.sums(outputs, batch),
        "layers": {
            path: localization_sums(layer, batch, experiment.inputs.truth)
            for path, layer in evidence.items()
        },
    }
    rows = task.rows(outputs, batch)
    if rows is not None:
        rows = experiment.gather_over_devices({_WEIGHT: batch["weight"], **rows})
    return experiment.sum_over_devices(sums), rows


class Evaluator:
    """The compiled evaluation of one experiment."""

    def __init__(self, experiment: Experiment, parallel: Parallel):
        """Compiles when first called."""
        self._parallel, self._task = parallel, experiment.task
        self._facts = experiment.inputs
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
        results = [
            self._step(variables, step, self._parallel.place_batch(batch))
            for batch in batches
        ]
        if not results:
            raise UserError("There are no images to evaluate; got an empty split.")
        results = jax.device_get([self._parallel.fetchable(each) for each in results])
        sums, rows = zip(*results, strict=True)
        total = jax.tree.map(lambda *leaves: np.sum(leaves, 0, np.float64), *sums)
        record = self._task.record(total["task"], _rows_of_images(rows), self._facts)
        for path, layer in total["layers"].items():
            named = localization_record(layer).items()
            record |= {f"{path}/{name}": value for name, value in named}
        return record

    def observe(
        self, variables: Any, step: Any, images: np.ndarray
    ) -> tuple[Any, dict[str, dict[str, Any]]]:
        """Fetched outputs and layer evidence of uint8 images, on one device."""
        variables, step = jax.device_get((variables, step))
        return jax.device_get(self._observe(variables, step, images))


def _rows_of_images(batches: Sequence[Any]) -> dict[str, np.ndarray] | None:
    """The fetched rows of all batches in one, without those of padding."""
    if batches[0] is None:
        return None
    rows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *batches)
    real = rows.pop(_WEIGHT) > 0
    return {name: values[real] for name, values in rows.items()}
