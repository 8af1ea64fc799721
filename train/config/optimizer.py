"""How the parameters move (options --optimizer.*)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.config.checks import require_choices, require_fields, require_pattern


@dataclass(frozen=True)
class OptimizerConfig:
    """How the parameters move."""

    name: Literal["sgd", "adamw", "lamb"] = "adamw"
    """The rule: SGD with Nesterov momentum, AdamW, or LAMB for large batches."""
    learning_rate: float = 1e-3
    """Highest learning rate, reached after the warm-up."""
    predictor_scale: float = 1.0
    """Learning rate of the rectangle predictors, as a multiple of the others'."""
    schedule: Literal["cosine", "step", "constant"] = "cosine"
    """Course of the learning rate after the warm-up."""
    warmup_fraction: float = 0.05
    """Share of the training steps over which the learning rate rises from 0."""
    final_fraction: float = 0.0
    """Learning rate at the end of the cosine, as a share of the highest."""
    step_points: tuple[float, ...] = (0.5, 0.75)
    """Points of the training, as shares of it, where the step schedule drops."""
    step_factor: float = 0.1
    """Factor of each of these drops."""
    momentum: float = 0.9
    """Momentum of SGD; first moment decay of AdamW and LAMB."""
    second_moment: float = 0.999
    """Second moment decay of AdamW and LAMB."""
    weight_decay: float = 1e-4
    """Weight decay of kernels; norms and biases are spared."""
    label_smoothing: float = 0.0
    """Probability spread over all classes in the target."""
    clip_norm: float | None = None
    """Largest norm of the whole gradient; longer ones are shortened to it."""
    accumulate: int = 1
    """Parts into which each batch is cut, one after the other through the network, to
    save memory; BatchNorm then sees one part at a time."""
    ema_decay: float | None = None
    """Decay per step of the averaged parameters that are evaluated and saved too;
    none: no averaging."""
    freeze: str | None = None
    """Regular expression; parameters whose path (as in stage1_conv1/Conv_0/kernel) it
    matches anywhere stay as they are. What lies before the first parameter that moves
    costs no gradient."""
    freeze_norm: bool = False
    """BatchNorm normalises by its running statistics, in training too, and leaves them
    as they are; its scale and bias move unless frozen."""
    scales: tuple[tuple[str, float], ...] = ()
    """Learning rates of groups: pairs of a regular expression and a factor, as in
    '^(stem|block)' 0.1; of a parameter's path the first that matches counts."""

    def __post_init__(self):
        """Checks ranges."""
        require_choices(self, "optimizer")
        for names, accept, must in _RULES:
            require_fields(self, "optimizer", names, accept, must)
        if self.freeze is not None:
            require_pattern("optimizer.freeze", self.freeze)
        for pattern, _ in self.scales:
            require_pattern("optimizer.scales", pattern)


_RULES = (
    (
        ("learning_rate", "predictor_scale", "weight_decay", "step_factor"),
        lambda value: value >= 0,
        "not be negative",
    ),
    (
        ("warmup_fraction", "final_fraction", "label_smoothing"),
        lambda value: 0 <= value < 1,
        "be in [0, 1)",
    ),
    (("momentum", "second_moment"), lambda value: 0 <= value < 1, "be in [0, 1)"),
    (
        ("step_points",),
        lambda points: all(0 <= point <= 1 for point in points),
        "be shares of the training, in [0, 1]",
    ),
    (("accumulate",), lambda value: value >= 1, "be 1 or more"),
    (("ema_decay",), lambda value: 0 < value < 1, "be between 0 and 1"),
    (("clip_norm",), lambda value: value > 0, "be positive"),
    (
        ("scales",),
        lambda pairs: all(factor >= 0 for _, factor in pairs),
        "have factors that are not negative",
    ),
)
