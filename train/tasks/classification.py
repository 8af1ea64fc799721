"""Classification: a label is the one class of a whole image."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from cram_jax.drawing.fonts import has_font
from cram_jax.losses.outside import ignorance_loss
from cram_jax.numerics import at_least_float32
from train.config.run import FitConfig
from train.data.facts import Facts
from train.data.sources.base import DatasetInfo, Example, checked_label
from train.data.views import View
from train.errors import UserError
from train.printing import printable
from train.tasks.sums import Sums, finite_record, weighted_sum
from train.tasks.task import Batch, Caption, Loss, Task

CALIBRATION_BINS = 15


@dataclasses.dataclass(frozen=True)
class Classification(Task):
    """One class for each image; outputs are logits `[B, classes]`.

    Attributes:
      smoothing: the probability that the target spreads over all classes.
    """

    smoothing: float = 0.0

    name = "classification"
    chooses_class = True
    best_score = "accuracy"
    shown = ("accuracy",)

    @classmethod
    def of(cls, config: FitConfig) -> Classification:
        """The task of a config."""
        return cls(smoothing=config.optimizer.label_smoothing)

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Class 0."""
        del size
        return {"label": np.zeros((), np.int32)}

    def truth_of(self, example: Example, view: View) -> dict[str, np.ndarray]:
        """The class, whatever is seen."""
        del view
        return {"label": np.asarray(example.label, np.int32)}

    def check(self, example: Example, info: DatasetInfo, name: str) -> None:
        """Refuses a label that is no class; see `Task.check`."""
        checked_label(example.label, info, name=name)

    def mirrored(self, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same classes."""
        return dict(truth)

    def network(
        self, make_backbone: Callable[..., nn.Module], facts: Facts
    ) -> nn.Module:
        """The backbone with its own classifier.

        Raises:
          UserError: for a set of images without a class.
        """
        if not facts.class_names:
            raise UserError(
                "The task classification needs a class for each image, and the data set"
                " has objects, each with a category; give --task.name detection to"
                " find them."
            )
        return make_backbone(len(facts.class_names))

    def losses(self, outputs: jax.Array, batch: Batch) -> dict[str, Loss]:
        """The cross-entropy; NaN for a label that is no class."""
        logits, labels = at_least_float32(outputs), batch["label"]
        classes = logits.shape[-1]
        targets = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
        if self.smoothing:
            targets = optax.smooth_labels(targets, self.smoothing)
        losses = optax.softmax_cross_entropy(logits, targets)
        # Without it such a label would cost nothing and be learnt as nothing.
        known = (labels >= 0) & (labels < classes)
        return {"cross_entropy": jnp.where(known, losses, jnp.nan)}

    def ignorance(self, outputs: jax.Array) -> jax.Array:
        """The divergence from equally likely classes; see `ignorance_loss`."""
        return ignorance_loss(outputs)

    def training_sums(self, outputs: jax.Array, batch: Batch) -> Sums:
        """How many are right."""
        correct = label_rank(outputs, batch["label"]) < 1
        return {"accuracy": weighted_sum(batch["weight"], correct)}

    def sums(self, outputs: jax.Array, batch: Batch) -> Sums:
        """See `classification_sums`."""
        return classification_sums(outputs, batch["label"], batch["weight"])

    def record(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, facts: Facts
    ) -> dict[str, float]:
        """See `classification_record`."""
        del rows, facts
        return classification_record(sums)

    def prediction(
        self, outputs: np.ndarray, view: View, facts: Facts, size: tuple[int, int]
    ) -> dict[str, Any]:
        """The likeliest class by name and number, and its probability."""
        del view, size
        probabilities = self.class_probabilities(outputs)
        label = int(np.argmax(probabilities))
        return {
            "class": facts.class_names[label],
            "label": label,
            "probability": float(probabilities[label]),
        }

    def class_probabilities(self, outputs: np.ndarray) -> np.ndarray:
        """The softmax of the logits."""
        return np.asarray(jax.nn.softmax(outputs), np.float32)

    def guess(self, facts: Facts) -> dict[str, float]:
        """One class of many, whatever the image."""
        return {"accuracy": 1 / len(facts.class_names)}

    def line(self, prediction: Mapping[str, Any]) -> str:
        """Class and probability."""
        name, probability = printable(prediction["class"]), prediction["probability"]
        return f"{name} ({probability:.1%})"

    def caption(self, prediction: Mapping[str, Any]) -> Caption:
        """Class and probability; the class's number where no font has its letters."""
        name, note = printable(prediction["class"]), None
        if not has_font(name):
            number = f"class {prediction['label']}"
            note = (
                f"No font of this system has the letters of {name!r}: its pictures say"
                f" {number!r}. Install a font of that script."
            )
            name = number
        return Caption(f"{name} {prediction['probability']:.0%}", note)

    def explained(self, outputs: jax.Array, batch: Batch) -> dict[str, jax.Array]:
        """The true class first, where it is known, and the likeliest one."""
        classes = {"true class": batch["label"]} if "label" in batch else {}
        return classes | {"predicted class": jnp.argmax(outputs, axis=-1)}


def label_rank(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """How many classes a network puts before the label; of equal ones the first leads.

    Args:
      logits: `[B, classes]`.
      labels: int `[B]`.

    Returns:
      int `[B]`; 0 where `argmax` is the label. All classes come before a label that is
      none, and where logits are no finite numbers.
    """
    classes = logits.shape[-1]
    known = (labels >= 0) & (labels < classes)
    place = jnp.where(known, labels, 0)[:, None]
    own = jnp.take_along_axis(logits, place, axis=-1)
    ahead = (logits > own) | ((logits == own) & (jnp.arange(classes)[None] < place))
    # The largest of some values is not finite if one of them is NaN.
    known &= jnp.isfinite(jnp.max(logits, axis=-1))
    return jnp.where(known, jnp.sum(ahead, axis=-1), classes)


def classification_sums(
    logits: jax.Array, labels: jax.Array, weight: jax.Array
) -> Sums:
    """Sums of cross-entropy, top-1, top-5 and calibration bins.

    Args:
      logits: `[B, classes]`.
      labels: int `[B]`.
      weight: `[B]`; 0 leaves a padding image out, whatever its logits and label.

    Returns:
      Sums by name. "not_finite" is the weight of images whose cross-entropy is no
      finite number; they are neither in it nor in the bins. "correct_5" is there only
      for more than 5 classes, because with fewer it is always right.
    """
    logits = at_least_float32(logits)
    classes = logits.shape[-1]
    log_probabilities = jax.nn.log_softmax(logits)
    rank = label_rank(logits, labels)
    known = (labels >= 0) & (labels < classes)
    place = jnp.where(known, labels, 0)[:, None]
    own = jnp.take_along_axis(log_probabilities, place, axis=-1)[:, 0]
    finite = known & jnp.isfinite(own)
    measured = jnp.where(finite, weight, 0.0)
    correct = (rank < 1).astype(jnp.float32)
    confidence = jnp.exp(jnp.max(log_probabilities, axis=-1))
    confidence = jnp.where(finite, confidence, 0.0)
    bins = jnp.clip(confidence * CALIBRATION_BINS, 0, CALIBRATION_BINS - 1)
    member = jax.nn.one_hot(bins.astype(jnp.int32), CALIBRATION_BINS)
    member *= measured[:, None]
    sums = {
        "weight": jnp.sum(weight),
        "not_finite": weighted_sum(weight, ~finite),
        "cross_entropy": -weighted_sum(measured, own),
        "correct": weighted_sum(weight, correct),
        "bin_weight": jnp.sum(member, axis=0),
        "bin_correct": jnp.sum(member * correct[:, None], axis=0),
        "bin_confidence": jnp.sum(member * confidence[:, None], axis=0),
    }
    if classes > 5:
        sums["correct_5"] = weighted_sum(weight, rank < 5)
    return sums


def classification_record(sums: Sums) -> dict[str, float]:
    """Accuracies and calibration error from fetched sums.

    The calibration error is the expected one of Guo et al. (2017), section 3: mean
    distance of confidence and accuracy over 15 equal bins, weighted by their counts.
    Without images there is no score. Where the network gave some images logits that
    are no finite numbers (or their label is no class), "images_not_finite" says how
    many; they count as wrong, and cross-entropy and calibration are left out.
    """
    weight, not_finite = float(sums["weight"]), float(sums["not_finite"])
    if weight == 0:
        return {"images": 0.0}
    gaps = np.asarray(sums["bin_correct"]) - np.asarray(sums["bin_confidence"])
    means = {
        "cross_entropy": sums["cross_entropy"] / weight,
        "accuracy": sums["correct"] / weight,
        "calibration_error": np.abs(gaps).sum() / weight,
    }
    if "correct_5" in sums:
        means["top_5"] = sums["correct_5"] / weight
    if not_finite:
        del means["cross_entropy"], means["calibration_error"]
        means["images_not_finite"] = not_finite
    return finite_record({"images": weight} | means)
