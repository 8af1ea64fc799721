"""The outside view as a pass of its own, from which the mask alone learns.

`cram_jax.losses.outside` shows both views in one batch, and what lies behind a layer
learns from both. Then the network learns to answer "I do not know" to whatever the mask
holds back, and nothing keeps the mask open (ours; measured on photographs: the mean
area fell from 0.39 to 0.20, below the animals'). Lu et al. (GC-Net, ECCV 2020, arXiv
2007.09727) train the rectangle for a classifier that stays as it is; so does this.

The ordinary pass *keeps* what meets in each gate. A second pass starts from there, with
parameters that are constants. What it repeats of the network before the gate is used by
nothing, so a compiler leaves it out.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.core.scope import union_filters

from cram_jax.attention.gate import Gate, add_view

__all__ = ["apply_with_second_passes"]

# The collection of what a second pass needs of the first, beside "intermediates".
_KEPT = "kept_for_second_pass"


def _keep(module: nn.Module, name: str, value: jax.Array) -> None:
    """Sows a value at the module's path; of several calls the last one's stays."""
    module.sow(_KEPT, name, value, init_fn=lambda: value, reduce_fn=lambda _, new: new)


class _FirstPass:
    """A flax interceptor: keeps what gates and measuring BatchNorms are given."""

    def __init__(self):
        self.paths: list[str] = []

    def __call__(self, call: Callable, args, kwargs, context) -> Any:
        module = context.module
        if context.method_name == "__call__" and isinstance(module, Gate):
            self.paths.append("/".join(module.path[:-1]))
            _keep(module, "features", args[0])
            _keep(module, "mask", args[1])
        elif context.method_name == "__call__" and _measures(module, args, kwargs):
            _keep(module, "features", args[0])
        return call(*args, **kwargs)


class _SecondPass:
    """A flax interceptor: the gate at a path shows what it holds back."""

    def __init__(self, path: str):
        self.path = path

    def __call__(self, call: Callable, args, kwargs, context) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, Gate) and "/".join(module.path[:-1]) == self.path:
            features = jax.lax.stop_gradient(module.get_variable(_KEPT, "features"))
            return module.complement(features, module.get_variable(_KEPT, "mask"))
        if _measures(module, args, kwargs):
            first = jax.lax.stop_gradient(module.get_variable(_KEPT, "features"))
            call = functools.partial(_normalise_as, call, first)
        return call(*args, **kwargs)


def _measures(module: nn.Module, args, kwargs) -> bool:
    """Whether a module normalises by statistics of its batch."""
    if not isinstance(module, nn.BatchNorm):
        return False
    asked = args[1] if len(args) > 1 else kwargs.get("use_running_average")
    return not (asked or module.use_running_average)


def _normalise_as(call: Callable, first: jax.Array, features: jax.Array, *args, **rest):
    """The features normalised by the statistics of the first pass."""
    both = add_view(first, features)
    is_first = jnp.arange(both.shape[0]) % 2 == 0
    rest["mask"] = is_first.reshape(-1, *(1,) * (both.ndim - 1))
    return call(both, *args, **rest).reshape(-1, 2, *first.shape[1:])[:, 1]


def apply_with_second_passes(
    network: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    mutable: Any,
    **settings: Any,
) -> tuple[Any, dict[str, Any], Any]:
    """The output, that from outside each layer by path, and the updated collections.

    Args:
      network: whose layers gate through `Gate`.
      variables: the network's.
      images: `[B, H, W, C]`.
      mutable: as in `apply`.
      **settings: further arguments of `apply`.

    Returns:
      Output, outputs from outside by path (empty without a gate), and updates.
    """
    keeping = union_filters(mutable, _KEPT)
    first = _FirstPass()
    with nn.intercept_methods(first):
        output, updates = network.apply(variables, images, mutable=keeping, **settings)
    held = {**jax.lax.stop_gradient(variables), _KEPT: updates.get(_KEPT, {})}
    updates = {name: value for name, value in updates.items() if name != _KEPT}
    outside = {}
    for path in dict.fromkeys(first.paths):
        with nn.intercept_methods(_SecondPass(path)):
            # Mutable as before, for BatchNorm wants to write; what it writes is lost.
            result = network.apply(held, images, mutable=mutable or [], **settings)
        outside[path] = result[0]
    return output, outside, updates
