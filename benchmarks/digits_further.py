"""More test images of the cluttered digits than the data set's 2,000.

Two networks whose accuracies differ by a point cannot be told apart by 2,000 images:
one accuracy has a standard error of 0.6 points. The images are a function of their
index, so those beyond the split's end are as good as those in it: the same
handwriting, which no training image shows, in new places amid new clutter.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import jax
import numpy as np

from train.data.pipeline import Batch
from train.data.sources.digits.cluttered import SPLIT_SIZES, make_sample
from train.learning.devices import JitParallel
from train.learning.evaluator import Evaluator
from train.run.checkpoints.restore import restore_trained

BATCH = 500
FILE = "further.json"


@cache
def further_batches(count: int) -> list[Batch]:
    """The first `count` test images beyond the data set's end, a multiple of 500."""
    first = SPLIT_SIZES["test"]
    batches = []
    for start in range(first, first + count, BATCH):
        samples = [make_sample("test", i) for i in range(start, start + BATCH)]
        batches.append(
            {
                "image": np.stack([sample.image for sample in samples])[..., None],
                "label": np.array([sample.label for sample in samples], np.int32),
                "weight": np.ones(BATCH, np.float32),
                "rectangle": np.stack([sample.rectangle for sample in samples]),
                "rectangle_weight": np.ones(BATCH, np.float32),
            }
        )
    return batches


def further_scores(workdir: Path, count: int) -> dict[str, float]:
    """Scores of a trained run on `count` further images, kept in its directory."""
    path = workdir / FILE
    known = json.loads(path.read_text()) if path.exists() else {}
    if known.get("images") != count:
        parallel = JitParallel(jax.devices()[:1])
        trained = restore_trained(workdir, "latest", parallel)
        evaluator = Evaluator(trained.experiment, parallel)
        known = evaluator.scores(
            trained.variables, trained.step, further_batches(count)
        )
        path.write_text(json.dumps(known))
    return known
