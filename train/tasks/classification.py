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
from train.data.augmentation.mixtures import Mixture, Rows
from train.data.facts import Facts
from train.data.sources.base import DatasetInfo, Example, checked_label
from train.data.views import View
from train.errors import UserError
from train.printing import printable
from train.tasks.scores.classification import (
    classification_record,
    classification_sums,
    label_rank,
)
from train.tasks.sums import Sums, weighted_sum
from train.tasks.task import Batch, Caption, Loss, Task


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

    def mixed(self, truth: Rows, others: Rows, mixture: Mixture) -> Rows:
        """The class, the other image's, and the share of the former."""
        more = {"other_label": others["label"], "label_share": mixture.shares}
        return {**truth, **more}

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
        """The cross-entropy; NaN for a label that is no class.

        That of a mixture is the mean over both labels, each by its image's share.
        """
        logits = at_least_float32(outputs)

        def loss_of(labels: jax.Array) -> jax.Array:
            classes = logits.shape[-1]
            targets = jax.nn.one_hot(labels, classes, dtype=logits.dtype)
            if self.smoothing:
                targets = optax.smooth_labels(targets, self.smoothing)
            losses = optax.softmax_cross_entropy(logits, targets)
            # Without it such a label would cost nothing and be learnt as nothing.
            known = (labels >= 0) & (labels < classes)
            return jnp.where(known, losses, jnp.nan)

        return {"cross_entropy": _over_labels(loss_of, batch)}

    def ignorance(self, outputs: jax.Array) -> jax.Array:
        """The divergence from equally likely classes; see `ignorance_loss`."""
        return ignorance_loss(outputs)

    def training_sums(self, outputs: jax.Array, batch: Batch) -> Sums:
        """How many are right; of a mixture, both labels by their images' shares."""

        def correct(labels: jax.Array) -> jax.Array:
            return label_rank(outputs, labels) < 1

        right = _over_labels(correct, batch)
        return {"accuracy": weighted_sum(batch["weight"], right)}

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


def _over_labels(function: Callable[[jax.Array], jax.Array], batch: Batch):
    """A function of labels, of mixtures the mean over both labels by their shares."""
    own = function(batch["label"])
    if "other_label" not in batch:
        return own
    share, other = batch["label_share"], function(batch["other_label"])
    # What has no share may be anything.
    return jnp.where(share < 1, share * own + (1 - share) * other, own)
