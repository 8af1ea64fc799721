"""What a run saves and shows, and with whom it shares its work.

The options --checkpoint.*, --output.* and --hosts.*.
"""

from __future__ import annotations

from dataclasses import dataclass

from train.config.checks import require_fields


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run is saved, and how much of it is kept."""

    every_steps: int | None = None
    """Steps from one checkpoint to the next; none: one at each evaluation."""
    keep_latest: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints of best accuracy on held-out training images (data.validation) kept
    besides; where none are held out, no checkpoint is best. With a budget only those
    count that were saved after its weights had risen: before, masks are still open."""

    def __post_init__(self):
        """Checks ranges."""
        least_one = ("keep_latest", "every_steps")
        require_fields(self, "checkpoint", least_one, lambda v: v >= 1, "be 1 or more")
        not_below = ["keep_best"]
        require_fields(self, "checkpoint", not_below, lambda v: v >= 0, "be 0 or more")

    def saves_at(self, step: int) -> bool:
        """Whether a checkpoint is due after this many steps, evaluations aside."""
        return self.every_steps is not None and step % self.every_steps == 0


@dataclass(frozen=True)
class OutputConfig:
    """What is written and shown while training."""

    log_every: int = 50
    """Steps (batches, not epochs) from one record of the metrics to the next."""
    evaluate_every: float = 1.0
    """Epochs (passes over the training images, not steps; parts of one too) from one
    evaluation on the test images to the next."""
    pictures: int = 16
    """Test images drawn with their rectangles at each evaluation; 0: none."""
    tensorboard: bool = True
    """Write TensorBoard files beside the JSON lines."""
    quiet: bool = False
    """Print nothing but errors."""
    profile_steps: int = 0
    """Steps that the JAX profiler records, from the tenth on, into WORKDIR/profile."""

    def __post_init__(self):
        """Checks ranges."""
        counts = ("pictures", "profile_steps")
        require_fields(self, "output", counts, lambda v: v >= 0, "be 0 or more")
        require_fields(self, "output", ["log_every"], lambda v: v >= 1, "be 1 or more")
        every = ["evaluate_every"]
        require_fields(self, "output", every, lambda v: v > 0, "be positive")

    def evaluates_at(self, step: int, steps_per_epoch: float) -> bool:
        """Whether an evaluation is due after this many steps."""
        return step % max(round(self.evaluate_every * steps_per_epoch), 1) == 0


@dataclass(frozen=True)
class HostsConfig:
    """Several processes that train one network together."""

    coordinator: str | None = None
    """HOST:PORT of process 0, or auto on a TPU pod slice, Slurm, or Open MPI; none:
    the environment variable TRAIN_COORDINATOR, or else a single process."""
    count: int | None = None
    """Number of processes (or the environment variable TRAIN_PROCESS_COUNT)."""
    index: int | None = None
    """Number of this process, from 0 (or TRAIN_PROCESS_INDEX)."""
