"""What lies outside the mask should tell the network nothing.

The *outside view* of a layer is the output of the same network when that layer lets
through what it usually holds back: `1 - mask` in place of the mask (see
`cram_jax.attention.gate.Gate.complement`). The loss asks that its prediction be
uniform. Lu et al. (GC-Net, ECCV 2020, arXiv 2007.09727) train a rectangle so, by the
entropy of the prediction from outside; Wu et al. (BAS, CVPR 2022) suppress the
activation of the background behind a mask. Both need an area term beside them: the
widest mask leaves nothing outside. Instead of showing where the class is, a mask may
also learn to *encode* it (Jethani et al., REAL-X, arXiv 2103.01890); only a network
trained apart can tell.

Only what lies behind a layer runs twice. Unless the mask alone is to learn from outside
(`cram_jax.losses.second_pass`), the layer's gate appends the outside view to the batch
(`cram_jax.attention.gate`). Several layers take turns: in the outside view of one layer
all others are as they always are, and look at what they are then given. BatchNorm
normalises all views by the statistics of the first, which is the ordinary pass, and
only that one enters the running averages: output, averages and what layers sow are
those of the network without outside views.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.attention.gate import Gate, add_view, first_view
from cram_jax.losses.second_pass import apply_with_second_passes
from cram_jax.numerics import at_least_float32

__all__ = ["apply_with_outside", "ignorance_loss", "outside_loss"]


class _ViewThroughComplements:
    """A flax interceptor: gates add a view, BatchNorm measures the first view only."""

    def __init__(self, batch: int):
        self.batch = batch
        self.paths: dict[int, str] = {}

    def __call__(self, call: Callable, args, kwargs, context) -> Any:
        module = context.module
        if context.method_name != "__call__":
            return call(*args, **kwargs)
        if isinstance(module, Gate):
            return self._gate(call, module, *args, **kwargs)
        behind = self.paths and isinstance(module, nn.BatchNorm)
        if behind and args[0].shape[0] != self.batch:
            return call(*args, **kwargs, mask=self._of_first_view(args[0]))
        return call(*args, **kwargs)

    def _gate(self, call: Callable, gate: Gate, features, mask) -> jax.Array:
        # By number, because a function under a lifted transformation is traced twice.
        number = features.shape[0] // self.batch
        self.paths[number] = "/".join(gate.path[:-1])
        first = first_view(features, self.batch), first_view(mask, self.batch)
        return add_view(call(features, mask), gate.complement(*first))

    def _of_first_view(self, features: jax.Array) -> jax.Array:
        first = jnp.arange(features.shape[0] // self.batch) == 0
        first = jnp.tile(first, self.batch)
        return first.reshape(-1, *(1,) * (features.ndim - 1))


def apply_with_outside(
    network: nn.Module,
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    on: bool | jax.Array = True,
    mask_only: bool = False,
    mutable: Any = False,
    **settings: Any,
) -> Any:
    """`network.apply`, and the output behind the complement of each layer's mask.

    Args:
      network: whose layers gate through `cram_jax.Gate` (RectangularAttention,
        PositionwiseAttention, CBAM). A layer on a branch beside a shortcut needs
        `cram_jax.attention.gate.follow_views` where the two meet, as in the blocks of
        our ResNet.
      variables: the network's.
      images: `[B, H, W, C]`.
      on: whether there are outside views. A traced boolean switches them while the
        compiled program runs; they are then computed in any case.
      mask_only: from the outside views nothing learns but the mask: their gradient
        reaches the layer's own parameters and, through the mask, what lies before it.
        See `cram_jax.losses.second_pass`, also for why. To be compiled: without `jit`
        the network before a layer runs again for each layer.
      mutable: as in `apply`. Arrays in "intermediates" must have the batch in front.
      **settings: further arguments of `apply`, e.g. `train=True`, `rngs`, `method`.

    Returns:
      The output; by module path the output of each layer's outside view, zeros where
      it is off; and, if anything is mutable, the updated collections.

    Raises:
      ValueError: for images without a batch axis, and for a network without a gate.
    """
    # On CPU, XLA's convolutions take five times as long under `jax.lax.cond`, so what a
    # traced `on` switches off is computed all the same.
    passes = apply_with_second_passes if mask_only else _apply_to_views
    apply = functools.partial(_apply_outside, passes, network, mutable, settings)
    if on is False:
        result = network.apply(variables, images, mutable=mutable, **settings)
        output, *updates = result if mutable is not False else (result,)
        shapes = jax.eval_shape(apply, variables, images)[1]
        nothing = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        return output, nothing, *updates
    output, outside, *updates = apply(variables, images)
    if on is not True:
        outside = jax.tree.map(lambda leaf: jnp.where(on, leaf, 0), outside)
    return output, outside, *updates


def _apply_outside(
    passes: Callable,
    network: nn.Module,
    mutable: Any,
    settings: Mapping[str, Any],
    variables: Mapping[str, Any],
    images: jax.Array,
) -> tuple[Any, ...]:
    """Output, outputs from outside, and the updates if anything is mutable."""
    if images.ndim < 4:
        raise ValueError(
            "Outside views lie in the batch axis: images must be [B, H, W, C]; got"
            f" shape {images.shape}. Add the axis, images[None]."
        )
    output, outside, updates = passes(
        network, variables, images, mutable=mutable, **settings
    )
    if not outside:
        raise ValueError(
            f"{type(network).__name__} has no layer that gates by a spatial mask,"
            " so it has no outside view; give it one, e.g."
            " attention=RectangularAttention, or leave the outside loss out."
        )
    return (output, outside, updates) if mutable is not False else (output, outside)


def _apply_to_views(
    network: nn.Module, variables, images, *, mutable: Any, **settings: Any
) -> tuple[Any, dict[str, Any], Any]:
    """All views in one batch; what `apply_with_second_passes` returns."""
    interceptor = _ViewThroughComplements(images.shape[0])
    with nn.intercept_methods(interceptor):
        output, updates = network.apply(
            variables, images, mutable=mutable or [], **settings
        )
    batch = interceptor.batch

    def view(number: int) -> Any:
        def take(leaf: jax.Array) -> jax.Array:
            views = leaf.reshape(batch, -1, *leaf.shape[1:])
            # What lies before a layer looks the same from outside it.
            return views[:, number if number < views.shape[1] else 0]

        return jax.tree.map(take, output)

    outside = {path: view(number) for number, path in interceptor.paths.items()}
    if "intermediates" in updates:
        sown = jax.tree.map(
            lambda leaf: first_view(leaf, batch), updates["intermediates"]
        )
        updates = {**updates, "intermediates": sown}
    return view(0), outside, updates


def ignorance_loss(logits: jax.Array) -> jax.Array:
    """KL(uniform || prediction) in nats, 0 where all classes are equally likely.

    Args:
      logits: `[..., classes]`, floating point.

    Returns:
      `[...]`, at least float32. Its gradient is `prediction - 1 / classes`.
    """
    logits = at_least_float32(logits)
    centred = logits - jnp.mean(logits, axis=-1, keepdims=True)
    # At least 0 up to rounding: the mean of exp is at least exp of the mean.
    return jax.nn.logsumexp(centred, axis=-1) - jnp.log(float(logits.shape[-1]))


def outside_loss(outside: Mapping[str, jax.Array]) -> jax.Array:
    """The mean over the layers of `ignorance_loss` from outside each of them.

    Args:
      outside: logits `[B, classes]` by path, as `apply_with_outside` gives them.

    Returns:
      `[B]`, per example: a sum over examples, which batches and devices add up.

    Raises:
      ValueError: without layers.
    """
    if not outside:
        raise ValueError(
            "There is no outside view to judge; got an empty mapping. The network"
            " needs a layer with a spatial mask."
        )
    return jnp.mean(jnp.stack([ignorance_loss(v) for v in outside.values()]), axis=0)
