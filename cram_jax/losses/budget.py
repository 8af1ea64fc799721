"""What a mask costs: a price of its area, or a target for the area of a batch.

Labels alone never close a mask: a network classifies best with everything in view. So
area must cost something. Lu et al. (GC-Net, ECCV 2020, arXiv 2007.09727) add a
rectangle's area to their loss, which is a *price*. Bai et al. (SAT, ICCV 2023) ask that
the area of a whole batch meet a *target*, which leaves each image the area it needs;
Fong et al. (extremal perturbations, ICCV 2019, arXiv 1910.08485) fix the area of every
image. Verelst and Tuytelaars (DynConv, CVPR 2020, arXiv 1912.03203) anneal their bounds
over the first third of the training against an early collapse, hence `ramped_weight`.
The least a mask can do is to shut, or to encode the class in its outline (REAL-X,
Jethani et al., arXiv 2103.01890): watch accuracy and area together. That the same
functions serve rectangles and free masks is ours.

**A price adds up, a target does not.** The mean of `price * area` over a batch is a sum
over examples. `relu(mean area - target)^2` is not: the mean must be known first. Two
ways lead there. `area_target_loss` sums over the devices before the hinge, which is
exact for a batch that is all there at once. Or a step uses a price that was fixed
before it: `target_price` is the slope of that hinge at a measured area, so the price
loss has the hinge's gradient where the areas agree; the area is measured along the way.
See `cram_jax.losses.prices`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.numerics import at_least_float32

__all__ = [
    "area_price_loss",
    "area_sums",
    "area_target_loss",
    "mask_areas",
    "ramped_weight",
]

ByLayer = Mapping[str, jax.Array]
Number = jax.typing.ArrayLike


def mask_areas(masks: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The share of its map that each mask covers.

    Args:
      masks: `[..., H, W]` in [0, 1] by layer, as `cram_jax.attended_masks` gives them;
        or by layer a mapping that holds such an array under "mask".

    Returns:
      `[...]` in [0, 1] by layer, at least float32.

    Raises:
      ValueError: for a mask with fewer than two axes or none of a length.
    """
    areas = {}
    for path, layer in masks.items():
        mask = jnp.asarray(layer["mask"] if isinstance(layer, Mapping) else layer)
        if mask.ndim < 2 or 0 in mask.shape[-2:]:
            raise ValueError(
                f"A mask is [..., H, W], neither of length 0; that of layer {path!r}"
                f" has shape {mask.shape}."
            )
        areas[path] = jnp.mean(at_least_float32(mask), axis=(-2, -1))
    return areas


def area_price_loss(areas: ByLayer, price: Number | Mapping[str, Number]) -> jax.Array:
    """`price * area` of each example, the mean over the layers.

    Args:
      areas: `[B]` by layer, see `mask_areas`.
      price: what the whole map costs, one price for all layers or one for each; not
        differentiated.

    Returns:
      `[B]`, per example.

    Raises:
      ValueError: without layers, or if a layer has no price.
    """
    prices = _for_each_layer(areas, price, "price")
    costs = [jax.lax.stop_gradient(prices[path]) * areas[path] for path in areas]
    return jnp.mean(jnp.stack(costs), axis=0)


def _for_each_layer(
    areas: ByLayer, value: Number | Mapping[str, Number], name: str
) -> dict[str, jax.Array]:
    if not areas:
        raise ValueError(
            "A budget needs a layer that shows a mask; got none. Channel attention and"
            " the bare network have no area."
        )
    if not isinstance(value, Mapping):
        return {path: jnp.asarray(value) for path in areas}
    if value.keys() != areas.keys():
        raise ValueError(
            f"There must be one {name} for each layer, {sorted(areas)}; got"
            f" {sorted(value)}."
        )
    return {path: jnp.asarray(value[path]) for path in areas}


def area_sums(
    areas: ByLayer, weights: jax.Array | None = None
) -> tuple[dict[str, jax.Array], jax.Array]:
    """The sum of the areas by layer, and the weight of the examples.

    Args:
      areas: `[B]` by layer.
      weights: `[B]`, 0 for padding; default 1.

    Returns:
      Scalars by layer, and the scalar weight. Both add up over batches and devices.
    """
    first = next(iter(areas.values()))
    weights = jnp.ones_like(first) if weights is None else jnp.asarray(weights)
    weights = weights.astype(first.dtype)
    return {p: jnp.sum(weights * area) for p, area in areas.items()}, jnp.sum(weights)


def area_target_loss(
    areas: ByLayer,
    target: Number | Mapping[str, Number],
    *,
    weights: jax.Array | None = None,
    axis_name: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """`relu(mean area - target)^2` of the whole batch, the mean over the layers.

    Under pmap or shard_map each device returns its share: shares and weights add up
    over the devices to those of one device, and so do their gradients. In a batch taken
    part after part (accumulation) each part would have its own mean; use a price there.

    Args:
      areas: `[B]` by layer, of this device's examples.
      target: area to come down to, one for all layers or one for each. A smaller area
        costs nothing.
      weights: `[B]`, 0 for padding; default 1.
      axis_name: mapped axis to take the mean over as well, or None.

    Returns:
      A sum over the examples and its weight, both scalar: their quotient is the loss.

    Raises:
      ValueError: without layers, or if a layer has no target.
    """
    targets = _for_each_layer(areas, target, "target")
    sums, weight = area_sums(areas, weights)
    total = sums, weight
    if axis_name is not None:
        total = jax.lax.psum(total, axis_name)
    whole = jnp.maximum(total[1], jnp.finfo(total[1].dtype).tiny)
    excess = [jax.nn.relu(total[0][p] / whole - targets[p]) ** 2 for p in areas]
    return weight * jnp.mean(jnp.stack(excess)), weight


def ramped_weight(
    weight: Number, step: Number, total_steps: int, *, start: float, ramp: float
) -> jax.Array:
    """A weight that is 0 at first and then rises linearly to its full value.

    Args:
      weight: the full value.
      step: steps done, may be traced.
      total_steps: all steps of the training, at least 1.
      start: share of the training that goes by before the rise, in [0, 1].
      ramp: share of the training that the rise takes, in [0, 1]; 0 is a jump.

    Returns:
      float32 of the shape of the step; full from `start + ramp` on.

    Raises:
      ValueError: for shares outside [0, 1] or a training without steps.
    """
    if not (0 <= start <= 1 and 0 <= ramp <= 1) or total_steps < 1:
        raise ValueError(
            "A ramp needs start and ramp in [0, 1], as shares of at least one step; got"
            f" start={start}, ramp={ramp}, total_steps={total_steps}."
        )
    weight = jnp.asarray(weight, jnp.float32)
    done = jnp.asarray(step, jnp.float32) - start * total_steps
    if ramp * total_steps < 1e-3:
        return weight * (done >= 0).astype(jnp.float32)
    return weight * jnp.clip(done / (ramp * total_steps), 0.0, 1.0)
