"""Grad-CAM (Selvaraju et al., ICCV 2017, arXiv 1610.02391), for any linen network.

The weight of a channel is the mean over positions of the gradient of the class's logit
to it, whatever follows; in the weighted sum what is negative becomes 0. In a network
that ends in global average pooling and a dense layer, at the last map, this is the
positive part of the class activation map, up to a factor (their section 3.1).

The gradient to a map inside a network is that to a nudge added to it: a flax
interceptor adds it at the output of a module, so the network need not be written for
it. It runs under jit, for a whole batch, and for any class of each image.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from cram_jax.backbones.alignment import Grid
from cram_jax.explain.cam import (
    Classes,
    ClassMaps,
    Variables,
    activation_map,
    check_images,
    choose_classes,
    collect_maps,
    grids_of_stage,
)
from cram_jax.numerics import at_least_float32

__all__ = ["grad_cam", "grad_cam_of_split", "gradient_map"]


def gradient_map(maps: jax.Array, gradients: jax.Array) -> jax.Array:
    """Grad-CAM: channels weighted by their mean gradient, what is negative set to 0.

    Args:
      maps: `[..., H, W, C]`.
      gradients: the derivatives of the class's logit to the maps, of the same shape.

    Returns:
      `[..., H, W]`, not negative, float32 or better.
    """
    weights = jnp.mean(at_least_float32(gradients), axis=(-3, -2))
    return jax.nn.relu(activation_map(maps, weights))


def grad_cam(
    network: nn.Module,
    variables: Variables,
    images: jax.Array,
    classes: Classes = None,
    *,
    stage: int | None = None,
    layer: str | None = None,
    spread: str = "network",
) -> ClassMaps:
    """Grad-CAM at a stage of a network, or at the output of any of its modules.

    Args:
      network: any linen network with logits `[B, classes]`; for a `stage`, its method
        `features(images)` gives the map of every stage.
      variables: the network's, which is applied as in evaluation.
      images: `[B, H, W, C]`, as the network takes them.
      classes: int `[B]`, or one for all images; None takes the predicted class.
      stage: counted from 1, behind its attention layer if it has one; None is the last.
      layer: path of a module that is called once, "/" between names, instead of a
        stage; the map is what it returns. It is spread evenly.
      spread: see `class_activation_maps`.

    Returns:
      The maps; `raw` is not negative.

    Raises:
      ValueError: for wrong shapes, and a stage, layer, spread or class that is none.
    """
    check_images(images, spread)
    if None not in (stage, layer):
        raise ValueError(
            f"Give a stage or a layer, not both; got stage={stage}, layer={layer!r}."
        )
    grids = None
    if layer is None:
        index, layer = _module_of_stage(network, variables, images, stage)
        grids = grids_of_stage(network, images, index, spread)

    def nudged(images, nudge):
        tap = _Tap(layer, nudge)
        with nn.intercept_methods(tap):
            logits = network.apply(variables, images)
        return logits, tap.found_in(network)

    return _grad_cam(nudged, images, classes, grids)


def grad_cam_of_split(
    maps_of: Callable[[jax.Array], jax.Array],
    logits_of: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    classes: Classes = None,
) -> ClassMaps:
    """Grad-CAM of a network given as two functions, one after the other.

    Args:
      maps_of: images `[B, H, W, C]` to maps `[B, h, w, c]`.
      logits_of: those maps to logits `[B, classes]`.
      images: `[B, H, W, C]`.
      classes: int `[B]`, or one for all images; None takes the predicted class.

    Returns:
      The maps, spread evenly; `raw` is not negative.

    Raises:
      ValueError: for wrong shapes and classes that are no integers or not there.
    """
    check_images(images, "even")

    def nudged(images, nudge):
        maps = maps_of(images)
        return logits_of(maps if nudge is None else maps + nudge), maps

    return _grad_cam(nudged, images, classes, None)


class _Tap:
    """A flax interceptor: keeps what a module returns, and adds a nudge to it."""

    def __init__(self, layer: str, nudge: jax.Array | None):
        self.layer = layer
        self.nudge = nudge
        self.output: jax.Array | None = None
        self.paths: set[str] = set()

    def __call__(self, call: Callable, args, kwargs, context) -> Any:
        output = call(*args, **kwargs)
        if context.method_name != "__call__":
            return output
        path = "/".join(context.module.path)
        self.paths.add(path)
        if path != self.layer:
            return output
        if not isinstance(output, jax.Array):
            raise ValueError(
                f"Grad-CAM needs a module that returns one map; {path!r} returns"
                f" {type(output).__name__}. Name one inside it."
            )
        self.output = output
        return output if self.nudge is None else output + self.nudge

    def found_in(self, network: nn.Module) -> jax.Array:
        """What was kept.

        Raises:
          ValueError: if the network has no such module.
        """
        if self.output is None:
            raise ValueError(
                f"{type(network).__name__} has no module {self.layer!r}; its modules"
                f" are {', '.join(sorted(self.paths - {''}))}."
            )
        return self.output


class _Outputs:
    """A flax interceptor: keeps what every module returns, by path."""

    def __init__(self):
        self.outputs: list[tuple[str, Any]] = []

    def __call__(self, call: Callable, args, kwargs, context) -> Any:
        output = call(*args, **kwargs)
        if context.method_name == "__call__":
            self.outputs.append(("/".join(context.module.path), output))
        return output


def _module_of_stage(
    network: nn.Module, variables: Variables, images: jax.Array, stage: int | None
) -> tuple[int, str]:
    """Index of the stage and path of the module whose output is its map."""
    found: list[str | None] = []

    def trace(variables, images):
        kept = _Outputs()
        with nn.intercept_methods(kept):
            maps = network.apply(variables, images, method="features")
        for one in maps:
            # Outermost last: a block returns later than the modules inside.
            same = [path for path, output in kept.outputs if output is one]
            found.append(same[-1] if same else None)

    jax.eval_shape(trace, variables, images)
    if stage is not None and not 1 <= stage <= len(found):
        raise ValueError(
            f"{type(network).__name__} has the stages 1 to {len(found)}; got {stage}."
        )
    index = len(found) - 1 if stage is None else stage - 1
    layer = found[index]
    if layer is None:
        raise ValueError(
            f"The map of stage {index + 1} of {type(network).__name__} is no module's"
            " output; name a module by `layer`, or split the network in two functions"
            " (grad_cam_of_split)."
        )
    return index, layer


def _grad_cam(
    nudged: Callable,
    images: jax.Array,
    classes: Classes,
    grids: tuple[Grid, Grid] | None,
) -> ClassMaps:
    shape = jax.eval_shape(lambda images: nudged(images, None)[1], images)
    if len(shape.shape) != 4 or shape.shape[0] != images.shape[0]:
        raise ValueError(
            "Grad-CAM needs maps [B, h, w, c], one for each image; the layer returns"
            f" shape {shape.shape} for images of shape {images.shape}."
        )
    zero = jnp.zeros(shape.shape, shape.dtype)
    logits, pull, maps = jax.vjp(
        lambda nudge: nudged(images, nudge), zero, has_aux=True
    )
    classes = choose_classes(classes, logits)
    chosen = jax.nn.one_hot(classes, logits.shape[-1], dtype=logits.dtype)
    raw = gradient_map(maps, pull(chosen)[0])
    return collect_maps(raw, classes, logits, images, grids)
