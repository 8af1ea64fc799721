"""One vector of logits per image, from the deepest map of a backbone."""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.checks import check_count
from cram_jax.numerics import Dtype, at_least_float32

__all__ = ["Classifier", "pool_globally"]


def pool_globally(features: jax.Array) -> jax.Array:
    """The mean over positions, `[..., H, W, C] -> [..., C]`, in at least float32."""
    return jnp.mean(at_least_float32(features), axis=(-3, -2))


class Classifier(nn.Module):
    """Global average pooling and a dense layer: `[..., H, W, C] -> [..., num_classes]`.

    The logits are float32 whatever the features' dtype: a softmax over bfloat16
    logits loses the small probabilities.

    Attributes:
      num_classes: number of logits.
      hidden: units of a dense layer in between, 0 for none.
      activation: the nonlinearity after that layer.
      norm_epsilon: the epsilon of a LayerNorm after the pooling; None leaves it out.
      param_dtype: the parameters' dtype.
    """

    num_classes: int
    hidden: int = 0
    activation: Callable[[jax.Array], jax.Array] = nn.relu
    norm_epsilon: float | None = None
    param_dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Returns the logits."""
        check_count("num_classes", self.num_classes)
        pooled = pool_globally(features)
        dtypes = {"dtype": pooled.dtype, "param_dtype": self.param_dtype}
        if self.norm_epsilon is not None:
            pooled = nn.LayerNorm(
                self.norm_epsilon, use_fast_variance=False, name="norm", **dtypes
            )(pooled)
        if self.hidden:
            pooled = nn.Dense(self.hidden, name="hidden", **dtypes)(pooled)
            pooled = self.activation(pooled)
        return nn.Dense(self.num_classes, name="dense", **dtypes)(pooled)
