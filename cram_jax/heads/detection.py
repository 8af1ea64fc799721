"""A detector of rotated rectangles without anchors, on the maps of any backbone.

In the manner of CenterNet (Zhou et al. 2019, arXiv 1904.07850), rotated (ours): at each
cell of one map a logit for each category says whether an object has its centre there,
and six numbers tell its rectangle (`cram_jax.geometry.cells`). The targets are in
`cram_jax.heads.detection_targets`, the way back in `cram_jax.heads.detections`.

The cells are taken to cover the image evenly. Strided networks look up to half a stride
beside that (`cram_jax.backbones.alignment`). The offset learns it if it is the same at
all cells: where the stride divides the image's sides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.checks import check_count, check_number
from cram_jax.heads.top_down import merge_top_down
from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["DetectionHead", "Detector"]

# Six zeros but for the cosine: where the angle is 0 rather than undefined.
_NEUTRAL_CODE = (0.0, 0.0, 0.0, 0.0, 1.0, 0.0)
# Lin et al. 2017, section 4.1, so that the start does not depend on the features.
_START = nn.initializers.normal(0.01)


class DetectionHead(nn.Module):
    """Maps of all stages `[..., h, w, C]` to heat maps and boxes on one of them.

    The maps are merged from the deepest to that of `stage` (see
    `cram_jax.heads.top_down`); a 3x3 and a 1x1 convolution lead from there to each
    output. Both are float32, whatever the dtype of the maps.

    Attributes:
      num_categories: K, heat maps.
      stage: the stage, counted from 1, on whose map the outputs lie. A stride of 4 is
        usual; `cram_jax.backbones.alignment.stage_grids` tells those of a network.
      width: channels in between; a multiple of 8.
      merge: how maps are joined, see `cram_jax.heads.top_down`.
      prior: the probability of an object at the start, at each cell (Lin et al. 2017,
        *Focal loss*, arXiv 1708.02002, section 3.3).
      dtype: the computation's dtype (default: that of maps and parameters).
      param_dtype: the parameters' dtype.
    """

    num_categories: int
    stage: int = 1
    width: int = 64
    merge: str = "sum"
    prior: float = 0.01
    dtype: Dtype | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array]) -> dict[str, jax.Array]:
        """Detects.

        Args:
          maps: one for each stage, shallow to deep.

        Returns:
          "heat", logits `[..., h, w, K]`, and "boxes", codes `[..., h, w, 6]`.

        Raises:
          ValueError: without a map, for a width that is no multiple of 8, for a stage
            that there is not, and a prior that is no probability.
        """
        check_count("num_categories", self.num_categories)
        check_number("prior", self.prior, lambda v: (v > 0) & (v < 1), "be in 0 to 1")
        merged = merge_top_down(
            maps,
            width=self.width,
            merge=self.merge,
            down_to=self.stage,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        heat_bias = [math.log(self.prior / (1 - self.prior))] * self.num_categories
        return {
            "heat": self._branch("heat", merged, heat_bias),
            "boxes": self._branch("boxes", merged, _NEUTRAL_CODE),
        }

    def _branch(self, name: str, merged: jax.Array, bias: Sequence[float]) -> jax.Array:
        settings: dict[str, Any] = {"param_dtype": self.param_dtype}
        conv = nn.Conv(
            self.width, (3, 3), name=f"{name}_conv", dtype=self.dtype, **settings
        )
        # Half floats would lose small probabilities, and the place within a cell.
        wide = at_least_float32(nn.relu(conv(merged)))

        def start(key: jax.Array, shape: Any, dtype: Any) -> jax.Array:
            del key, shape
            return jnp.array(bias, dtype)

        layer = nn.Conv(
            len(bias),
            (1, 1),
            name=name,
            kernel_init=_START,
            bias_init=start,
            dtype=wide.dtype,
            **settings,
        )
        return layer(wide)


class Detector(nn.Module):
    """A backbone and the head on its maps: images to heat maps and boxes.

    Torch's weights are loaded into the backbone, and the evidence of its attention
    layers is put on the image, as without the head.

    Attributes:
      backbone: a network with `features(images, train=)`; see `cram_jax.backbones`.
      head: what stands on its maps.
    """

    backbone: nn.Module
    head: DetectionHead

    def __call__(
        self, images: jax.Array, *, train: bool = False
    ) -> dict[str, jax.Array]:
        """Detects in images `[..., H, W, C]`; see `DetectionHead`."""
        features: Callable[..., Sequence[jax.Array]] = self.backbone.features
        return self.head(features(images, train=train))
