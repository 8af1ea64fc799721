"""The record of one training run: typed, checked when made, kept beside its results.

Every field is a command line option of the same name (`--batch-size`); the sentence
under it is its help text.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from train.config.attention import BudgetConfig, EquivarianceConfig, SharpnessConfig
from train.config.checks import require, require_choices
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import CheckpointConfig, HostsConfig, OutputConfig
from train.config.task import TaskConfig


@dataclass(frozen=True)
class FitConfig:
    """Trains a network; started again with the same work directory, it goes on."""

    workdir: Path = Path("runs/default")
    """Directory of the run: checkpoints, metrics, pictures."""
    seed: int = 0
    """Seed of the parameters, the order of the images, and the augmentation."""
    epochs: float = 20.0
    """Passes over the training images; parts of one too. More of them than the run of
    the work directory has: it goes on, its learning rate begins its course anew, and
    what was annealed stays as it ended."""
    earlier_epochs: tuple[float, ...] = ()
    """Epochs at which the run was to end before it was given more; the program notes
    them, nobody needs to type them."""
    batch_size: int = 64
    """Images of one step, over all devices and processes."""
    parallel: Literal["jit", "pmap"] = "jit"
    """How the batch is spread over devices: a sharded jit, or pmap."""
    precision: Literal["float32", "bf16"] = "float32"
    """Numbers that the network computes in; parameters, geometry and losses are always
    float32."""
    task: TaskConfig = field(default_factory=TaskConfig)
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    sharpness: SharpnessConfig = field(default_factory=SharpnessConfig)
    equivariance: EquivarianceConfig = field(default_factory=EquivarianceConfig)
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    checkpoint: CheckpointConfig = field(default_factory=CheckpointConfig)
    output: OutputConfig = field(default_factory=OutputConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)

    def __post_init__(self):
        """Checks ranges."""
        require_choices(self, "")
        require(0 < self.epochs < math.inf, "epochs must be positive", self.epochs)
        ends = (0, *self.earlier_epochs, self.epochs)
        require(
            all(one < next_one for one, next_one in itertools.pairwise(ends)),
            "earlier_epochs must rise, and stay below epochs",
            self.earlier_epochs,
        )
        require(
            self.batch_size >= 1 and self.batch_size % self.optimizer.accumulate == 0,
            "batch_size must be a positive multiple of optimizer.accumulate",
            self.batch_size,
        )
        require(
            self.batch_size > 1 or not self.data.mixes_images,
            "batch_size must be 2 or more for data.mixup and data.cutmix",
            self.batch_size,
        )
        require(0 <= self.seed < 2**31, "seed must be in [0, 2**31)", self.seed)
        _require_finite(to_dict(self))


def _require_finite(values: dict[str, Any], prefix: str = "") -> None:
    """JSON has no infinity, and no option of a run means one."""
    for name, value in values.items():
        if isinstance(value, dict):
            _require_finite(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            known = math.isfinite(value)
            require(known, f"{prefix}{name} must be a finite number", value)


def to_dict(config: Any) -> dict[str, Any]:
    """The config as plain JSON values."""
    values = {}
    for item in dataclasses.fields(config):
        value = getattr(config, item.name)
        if dataclasses.is_dataclass(value):
            value = to_dict(value)
        elif isinstance(value, Path):
            value = str(value)
        elif isinstance(value, tuple):
            value = [list(v) if isinstance(v, tuple) else v for v in value]
        values[item.name] = value
    return values
