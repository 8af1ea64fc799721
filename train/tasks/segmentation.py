"""Segmentation: a label is the region of each pixel."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cram_jax.drawing import overlay_regions
from cram_jax.drawing.fonts import has_font
from cram_jax.geometry.similarity import Similarity
from cram_jax.geometry.warping import warp_labels
from cram_jax.heads.segmentation import SegmentationDecoder, Segmenter
from cram_jax.losses.outside import ignorance_loss
from train.config.run import FitConfig
from train.data.augmentation.mixtures import Mixture, Rows
from train.data.facts import Facts
from train.data.sources.base import (
    IGNORED,
    DatasetInfo,
    Example,
    UnreadableImageError,
)
from train.data.sources.regions import OBJECT_REGIONS
from train.data.views import View, render_mask
from train.errors import UserError
from train.printing import printable
from train.tasks.losses.segmentation import region_losses
from train.tasks.scores.segmentation import (
    predicted_regions,
    segmentation_record,
    segmentation_sums,
)
from train.tasks.segmentation_original import regions_of_original
from train.tasks.sums import Sums, weighted_sum
from train.tasks.task import Batch, Caption, Loss, Task

_SHOWN_REGIONS = 3


@dataclasses.dataclass(frozen=True)
class Segmentation(Task):
    """A region for each pixel; outputs are logits `[B, H, W, regions]`.

    Attributes:
      by_class: objects of each class are a region of their own.
      attention_in_skips: layers gate what the decoder takes of a stage.
      decoder: how it joins maps, "sum" or "concat".
      decoder_width: channels of the decoder where it ends.
      dice_weight: share of the Dice loss.
      smoothing: the probability that the target spreads over all regions.
    """

    by_class: bool = False
    attention_in_skips: bool = False
    decoder: str = "sum"
    decoder_width: int = 32
    dice_weight: float = 1.0
    smoothing: float = 0.0

    name = "segmentation"
    best_score = "mean_iou"
    shown = ("mean_iou", "pixel_accuracy")

    @classmethod
    def of(cls, config: FitConfig) -> Segmentation:
        """The task of a config."""
        task = config.task
        return cls(
            task.by_class,
            task.attention_in_skips,
            task.decoder,
            task.decoder_width,
            task.dice_weight,
            config.optimizer.label_smoothing,
        )

    def names(self, facts: Facts) -> tuple[str, ...]:
        """The regions.

        Raises:
          UserError: for a set without masks, and for `by_class` where masks name their
            regions.
        """
        if not facts.regions:
            raise UserError(
                "The task segmentation needs a mask of each training image, and the"
                " data set has none; put them in masks/CLASS/NAME.png beside the images"
                " of a folder, or name their tree by data.masks."
            )
        if not self.by_class:
            return facts.regions
        if facts.regions != OBJECT_REGIONS:
            raise UserError(
                "task.by_class needs masks of one object, and data.regions names"
                f" {', '.join(facts.regions)}; leave one of the two out."
            )
        return (OBJECT_REGIONS[0], *facts.class_names)

    def blank_truth(self, size: tuple[int, int]) -> dict[str, np.ndarray]:
        """Nothing but ignored pixels."""
        return {"regions": np.full(size, IGNORED, np.uint8)}

    def truth_of(self, example: Example, view: View) -> dict[str, np.ndarray]:
        """The regions that are seen, each pixel the nearest one of the original."""
        regions = example.regions
        if regions is None:
            return self.blank_truth((view.height, view.width))
        if self.by_class:
            own = np.asarray(example.label + 1, np.uint8)
            regions = np.where(regions == 1, own, regions)
        return {"regions": render_mask(regions, view)}

    def check(self, example: Example, info: DatasetInfo, name: str) -> None:
        """Refuses an image without a mask, as one that is damaged; see `Task.check`."""
        if example.regions is None:
            absent = f"{name} of {info.name} has no mask."
            raise UnreadableImageError(example.no_regions or absent)

    def mirrored(self, truth: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The regions, mirrored."""
        return {"regions": truth["regions"][:, :, ::-1]}

    def mixed(self, truth: Rows, others: Rows, mixture: Mixture) -> Rows:
        """The regions of what is seen of either image; see `Task.mixed`."""
        if mixture.boxes is None:
            raise UserError(
                "For the task 'segmentation' a pixel has one region, but data.mixup"
                " shows two images in each; use data.cutmix in its place."
            )
        patches = mixture.patches(truth["regions"].shape[1:])
        return {"regions": np.where(patches, others["regions"], truth["regions"])}

    def network(self, make_backbone: Callable[..., nn.Module], facts: Facts) -> Any:
        """The backbone's maps, and the decoder on them."""
        encoder: Any = make_backbone(1)  # Its classifier is never asked.
        skips: dict[str, Any] = {}
        if self.attention_in_skips:
            names = ("attention", "attention_stages")
            skips = {name: getattr(encoder, name) for name in names}
            encoder = make_backbone(1, attention=None, attention_stages=())
        decoder = SegmentationDecoder(
            len(self.names(facts)),
            self.decoder_width,
            self.decoder,
            dtype=encoder.dtype,
            param_dtype=encoder.param_dtype,
            **skips,
        )
        return Segmenter(encoder, decoder)

    def losses(self, outputs: jax.Array, batch: Batch) -> dict[str, Loss]:
        """Cross-entropy and Dice; see `region_losses`."""
        cross_entropy, dice = region_losses(
            outputs, batch["regions"], batch["weight"], smoothing=self.smoothing
        )
        if self.dice_weight == 0:
            return {"cross_entropy": cross_entropy}
        weighted = self.dice_weight * dice[0], dice[1]
        return {"cross_entropy": cross_entropy, "dice_loss": weighted}

    def moved(self, similarities: Similarity, batch: Batch) -> Batch:
        """The regions move along; what came from outside is ignored."""
        moved = warp_labels(similarities, batch["regions"], fill=IGNORED)
        return {**batch, "regions": moved}

    def ignorance(self, outputs: jax.Array) -> jax.Array:
        """The mean over pixels of the divergence from equally likely regions."""
        return jnp.mean(ignorance_loss(outputs), axis=(1, 2))

    def training_sums(self, outputs: jax.Array, batch: Batch) -> Sums:
        """The share of known pixels that are right, of each image."""
        truth = batch["regions"]
        known = jnp.sum(truth != IGNORED, axis=(1, 2))
        right = jnp.sum(predicted_regions(outputs) == truth, axis=(1, 2))
        share = right / jnp.maximum(known, 1)
        return {"pixel_accuracy": weighted_sum(batch["weight"], share)}

    def sums(self, outputs: jax.Array, batch: Batch) -> Sums:
        """See `segmentation_sums`."""
        return segmentation_sums(outputs, batch["regions"], batch["weight"])

    def record(
        self, sums: Sums, rows: Mapping[str, np.ndarray] | None, facts: Facts
    ) -> dict[str, float]:
        """See `segmentation_record`."""
        del rows
        return segmentation_record(sums, self.names(facts))

    def prediction(
        self, outputs: np.ndarray, view: View, facts: Facts, size: tuple[int, int]
    ) -> dict[str, Any]:
        """The map of regions, and the share of each in what was seen.

        "regions" is as large as the original: the number of each pixel's region, which
        is its place in "shares"; 255 where the network did not see.
        """
        regions = regions_of_original(outputs, view, size)
        seen = regions[regions != IGNORED]
        counts = np.bincount(seen, minlength=outputs.shape[-1])
        shares = (counts / max(seen.size, 1)).tolist()
        names = self.names(facts)
        return {"regions": regions, "shares": dict(zip(names, shares, strict=True))}

    def line(self, prediction: Mapping[str, Any]) -> str:
        """The largest regions but the background, and their shares."""
        return ", ".join(f"{name} {share:.1%}" for name, share in _largest(prediction))

    def caption(self, prediction: Mapping[str, Any]) -> Caption:
        """As `line`; the number of a region where no font has its name's letters."""
        numbers, parts, notes = list(prediction["shares"]), [], []
        for name, share in _largest(prediction):
            if not has_font(name):
                notes.append(f"No font of this system has the letters of {name!r}.")
            shown = name if has_font(name) else f"region {numbers.index(name)}"
            parts.append(f"{shown} {share:.0%}")
        return Caption(", ".join(parts), notes[0] if notes else None)

    def draw(
        self, picture: np.ndarray, prediction: Mapping[str, Any], scale: float
    ) -> np.ndarray:
        """Regions as colours; what was not seen is grey."""
        del scale
        count = len(prediction["shares"])
        return overlay_regions(picture, prediction["regions"], count=count)

    def compared(
        self, picture: np.ndarray, outputs: Any, truth: Mapping[str, np.ndarray]
    ) -> np.ndarray:
        """Side by side the true regions and, if there are any, those found."""
        true = np.asarray(truth["regions"])
        if outputs is None:
            known = true[true != IGNORED]
            return overlay_regions(picture, true, count=int(known.max(initial=0)) + 1)
        found = np.asarray(predicted_regions(jnp.asarray(outputs)))
        count = outputs.shape[-1]
        sides = [overlay_regions(picture, each, count=count) for each in (true, found)]
        return np.concatenate(sides, axis=1)


def _largest(prediction: Mapping[str, Any]) -> list[tuple[str, float]]:
    background, *others = prediction["shares"].items()
    others = sorted(others, key=lambda each: -each[1])[:_SHOWN_REGIONS]
    there = [each for each in others if each[1] > 0] or [background]
    return [(printable(name), share) for name, share in there]
