"""Which checkpoints are kept: the newest, those of highest score, and ends."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from orbax.checkpoint import checkpoint_managers as policies

from train.config.output import CheckpointConfig


class LatestAndBest(policies.PreservationPolicy):
    """Keeps the newest checkpoints, those of highest score, and some steps' always.

    Orbax's own `best_fn` with `max_to_keep` would delete the latest step, and its
    metrics, once damaged, would stop the directory from opening.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        scores: dict[int, float],
        always: Collection[int] = (),
    ):
        """Reads `scores`, by step, anew at every decision."""
        self._config, self._scores, self._always = config, scores, always

    def should_preserve(
        self, checkpoints: Sequence[Any], *, context: Any
    ) -> list[bool]:
        """Whether to keep each of `checkpoints`, which come in order of their step."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-self._config.keep_latest :], *self._always}
        scored = [step for step in steps if step in self._scores]
        scored.sort(key=lambda step: (self._scores[step], step))
        kept.update(scored[len(scored) - min(self._config.keep_best, len(scored)) :])
        return [step in kept for step in steps]


def read_scores(path: Path) -> dict[int, float]:
    """Scores by step; none if the file is missing or damaged."""
    try:
        return {int(step): float(v) for step, v in json.loads(path.read_text()).items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}
