"""Class activation maps (Zhou et al., CVPR 2016, arXiv 1512.04150).

Where a dense layer follows global average pooling, the logit of a class is, but for its
bias, the mean over positions of `sum_c weight[c] * map[..., c]`; that sum is the map of
the class. It runs under jit, for a whole batch, and for any class of each image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.core import Tracer

from cram_jax.backbones.alignment import Grid, mask_on_image, stage_grids
from cram_jax.numerics import at_least_float32

__all__ = [
    "ClassMaps",
    "activation_map",
    "class_activation_maps",
    "map_on_pixels",
    "unit_map",
]

Variables = Mapping[str, Any]
Classes = jax.typing.ArrayLike | Sequence[int] | None


class ClassMaps(NamedTuple):
    """The map of one class for each image.

    Attributes:
      raw: `[B, h, w]` as defined, float32 or better, at the resolution of the layer.
      unit: `[B, h, w]`, the same from 0 (least) to 1 (largest) in each image.
      on_image: `[B, H, W]` at the pixels of the image, from 0 to 1 in each image.
      classes: int `[B]`, whose maps these are.
      logits: `[B, classes]`.
    """

    raw: jax.Array
    unit: jax.Array
    on_image: jax.Array
    classes: jax.Array
    logits: jax.Array


def activation_map(maps: jax.Array, weights: jax.Array) -> jax.Array:
    """The sum over channels of maps times weights (CAM), signed.

    Args:
      maps: `[..., H, W, C]`.
      weights: `[..., C]`, e.g. the column of a class in the dense layer.

    Returns:
      `[..., H, W]`, float32 or better.
    """
    maps, weights = at_least_float32(maps), at_least_float32(weights)
    return jnp.einsum("...hwc,...c->...hw", maps, weights)


def unit_map(maps: jax.Array) -> jax.Array:
    """Each map `[..., H, W]` stretched from 0 to 1; a constant one becomes 0.

    Constant is what differs by rounding alone, of the map or of its resizing: stretched
    it would be a map of noise.
    """
    maps = at_least_float32(maps)
    low = jnp.min(maps, axis=(-2, -1), keepdims=True)
    high = jnp.max(maps, axis=(-2, -1), keepdims=True)
    span = high - low
    rounding = 8 * jnp.finfo(maps.dtype).eps * jnp.maximum(jnp.abs(low), jnp.abs(high))
    varies = span > rounding
    return jnp.where(varies, (maps - low) / jnp.where(varies, span, 1.0), 0.0)


def map_on_pixels(
    maps: jax.Array, height: int, width: int, grids: tuple[Grid, Grid] | None = None
) -> jax.Array:
    """Maps `[B, h, w]` at the pixels of the image, `[B, height, width]`, bilinear.

    Args:
      maps: one for each image.
      height: the image's height in pixels.
      width: the image's width in pixels.
      grids: where the layer looks along y and x, by
        `cram_jax.backbones.alignment.stage_grids`. None spreads the map evenly: pixel
        i of n is centred at the share `(i + 0.5) / n` of the side, see
        `cram_jax.geometry.coordinates`.
    """
    if grids is not None:
        return mask_on_image(maps, grids, height, width)
    shape = (*maps.shape[:-2], height, width)
    return jax.image.resize(maps, shape, "linear", antialias=False)


def class_activation_maps(
    network: nn.Module,
    variables: Variables,
    images: jax.Array,
    classes: Classes = None,
    *,
    spread: str = "network",
) -> ClassMaps:
    """CAM of the last stage of a network with the methods of our backbones.

    Where the head is more than one dense layer (the hidden layer of MobileNetV3,
    ConvNeXt's LayerNorm), the weights are the gradient of the logit to the pooled
    features (ours), which for one dense layer is its column.

    Args:
      network: whose method `features(images)` gives the map of every stage, the last of
        which its submodule `head` pools and classifies.
      variables: the network's.
      images: `[B, H, W, C]`, as the network takes them.
      classes: int `[B]`, or one for all images; None takes the predicted class.
      spread: "network" puts each value where the layer looks, as networks that declare
        their `stages` tell ("even" for others); "even" spreads the map evenly. See
        `map_on_pixels`.

    Returns:
      The maps; `raw` is signed.

    Raises:
      ValueError: for wrong shapes, classes that are no integers or not there, and an
        unknown spread.
    """
    check_images(images, spread)
    maps: Any = network.apply(variables, images, method="features")[-1]
    pooled = jnp.mean(at_least_float32(maps), axis=(-3, -2), keepdims=True)

    def head(features: jax.Array) -> Any:
        return network.apply(variables, features, method=lambda n, f: n.head(f))

    logits, pull = jax.vjp(head, pooled)
    classes = choose_classes(classes, logits)
    weights = pull(jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype))[0]
    raw = activation_map(maps, weights[:, 0, 0])
    return collect_maps(
        raw, classes, logits, images, grids_of_stage(network, images, -1, spread)
    )


def collect_maps(
    raw: jax.Array,
    classes: jax.Array,
    logits: jax.Array,
    images: jax.Array,
    grids: tuple[Grid, Grid] | None,
) -> ClassMaps:
    """What both methods return, from the raw maps."""
    height, width = images.shape[1:3]
    on_image = unit_map(map_on_pixels(raw, height, width, grids))
    return ClassMaps(raw, unit_map(raw), on_image, classes, logits)


def grids_of_stage(
    network: nn.Module, images: jax.Array, index: int, spread: str
) -> tuple[Grid, Grid] | None:
    """Where a stage of the network looks along y and x; None means evenly."""
    if spread == "even":
        return None
    try:
        y, x = (stage_grids(network, side)[index] for side in images.shape[1:3])
    except ValueError:  # Not one of this package.
        return None
    return y, x


def check_images(images: jax.Array, spread: str) -> None:
    """Raises ValueError for images without a batch, and for an unknown spread."""
    if images.ndim != 4:
        raise ValueError(
            f"Class maps need images [B, H, W, C]; got shape {images.shape}. For one"
            " image, images[None]."
        )
    if spread not in ("network", "even"):
        raise ValueError(f"spread must be 'network' or 'even'; got {spread!r}.")


def choose_classes(classes: Classes, logits: jax.Array) -> jax.Array:
    """Int `[B]`; the predicted ones for None."""
    if logits.ndim != 2:
        raise ValueError(
            f"Class maps need logits [B, classes]; got shape {logits.shape}."
        )
    if classes is None:
        return jnp.argmax(logits, axis=-1)
    batch, count = logits.shape
    classes = jnp.asarray(classes)
    if not jnp.issubdtype(classes.dtype, jnp.integer) or classes.shape not in (
        (),
        (batch,),
    ):
        raise ValueError(
            f"Classes are one integer for each of the {batch} images, or one for all;"
            f" got {classes.dtype} of shape {classes.shape}."
        )
    if not isinstance(classes, Tracer) and batch:
        known = np.asarray(classes)
        if known.min() < 0 or known.max() >= count:
            raise ValueError(
                f"Classes must lie in 0..{count - 1}; got {known.tolist()}."
            )
    return jnp.broadcast_to(classes, (batch,))
