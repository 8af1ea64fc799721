"""Where on the image the pixels of a stage's map are centred.

A mask spreads its map evenly over the image: pixel i of n is centred at the share
(i + 0.5) / n of a side. The networks that ImageNet weights exist for are not built so.
A 3x3 convolution of stride 2 that pads one pixel on both sides looks half a pixel up
and to the left from there, each further stage the more, up to half a stride in all;
with TensorFlow's padding and even sides it looks down and to the right. What is seen in
the map must be moved by as much before it is drawn on the image or compared with an
object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.backbones.stages import Stage, declared_stages
from cram_jax.geometry.rectangle import Rectangle
from cram_jax.numerics import at_least_float32

__all__ = [
    "Grid",
    "evidence_on_image",
    "mask_on_image",
    "rectangle_on_image",
    "stage_grids",
]


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where along one side of the image the pixels of a map are centred.

    Attributes:
      pixels: how many the map has along it.
      stride: image pixels from one centre to the next.
      first: centre of the map's first pixel, in image pixels from the edge (0.5 is the
        centre of the image's first pixel).
    """

    pixels: int
    stride: int = 1
    first: float = 0.5


Declaring = tuple[str, tuple[Stage, ...]]


def stage_grids(network: nn.Module, side: int) -> tuple[Grid, ...]:
    """The grid of each stage's map along one side of the image.

    Args:
      network: one that declares its `stages` (see `cram_jax.backbones.stages`), or that
        has one such network as a field, `Seg(backbone=..., head=...)`.
      side: pixels of the image along that side.

    Raises:
      ValueError: for a network that declares nothing, or several that do.
    """
    found = list(_declaring(network))
    if len(found) != 1:
        raise ValueError(_undeclared(network, found))
    return _grids(found[0][1], side)


def _declaring(network: nn.Module, path: str = "") -> Iterator[Declaring]:
    """Path and stages of each outermost network that declares some."""
    if stages := declared_stages(network):
        yield path, stages
        return
    for name, inner in _submodules(network):
        yield from _declaring(inner, f"{path}{name}/")


def _submodules(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The modules among the fields of a module, by the names that flax gives them."""

    def named(name: str, value: Any) -> Iterator[tuple[str, nn.Module]]:
        if isinstance(value, nn.Module):
            yield name, value
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                yield from named(f"{name}_{index}", item)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from named(f"{name}_{key}", item)

    for field in dataclasses.fields(network):
        if field.name not in ("parent", "name"):
            yield from named(field.name, getattr(network, field.name, None))


def _undeclared(network: nn.Module, found: list[Declaring]) -> str:
    name = type(network).__name__
    if found:
        fields = ", ".join(path.rstrip("/") for path, _ in found)
        return (
            f"{name} holds several networks that declare stages ({fields}); ask for the"
            " one that is meant."
        )
    return (
        f"{name} does not declare where its maps lie on the image. Give its class the"
        " attribute or property `stages`, one cram_jax.backbones.Stage for each map, as"
        " in (Stage((Step(kernel=3, stride=2, padding=1),), channels=16,"
        " modules=('conv1', 'attention1')),); or make the network that does declare"
        " them a field of it."
    )


def _grids(stages: tuple[Stage, ...], side: int) -> tuple[Grid, ...]:
    grid, grids = Grid(side), []
    for stage in stages:
        for step in stage.steps:
            before, after = step.margins(grid.pixels)
            # Centre of the first window, in pixels of the map before.
            center = step.kernel / 2 - before
            grid = Grid(
                (grid.pixels + before + after - step.kernel) // step.stride + 1,
                grid.stride * step.stride,
                grid.first + grid.stride * (center - 0.5),
            )
        grids.append(grid)
    return tuple(grids)


def evidence_on_image(
    network: nn.Module, evidence: Mapping[str, Any], height: int, width: int
) -> dict[str, dict[str, Any]]:
    """What layers show in coordinates of their maps, in those of the image.

    The stages that the network declares tell on which map a layer works: each names its
    modules. Where they name none, and for a layer beside the declaring network ("gate"
    in `Seg(backbone, gate, head)`), the size of its mask must tell. It must confirm the
    stage in any case.

    Args:
      network: the network of the layers; see `stage_grids`.
      evidence: `{path: {"mask": [B, h, w], "rectangle": Rectangle of [B]}}`, as
        `cram_jax.layer_evidence` gives it; "rectangle" may be absent.
      height: the images' height in pixels.
      width: the images' width in pixels.

    Returns:
      The same, with masks `[B, height, width]`.

    Raises:
      ValueError: for a network that declares nothing, and for a layer whose place is
        not known.
    """
    moved: dict[str, dict[str, Any]] = {}
    if not evidence:
        return moved
    found = list(_declaring(network))
    for path, layer in evidence.items():
        inside = [each for each in found if path.startswith(each[0])] or found
        if len(inside) != 1:
            raise ValueError(_undeclared(network, found))
        grids = _grids_of_layer(inside[0], path, layer["mask"].shape, height, width)
        mask = at_least_float32(layer["mask"])
        moved[path] = {**layer, "mask": mask_on_image(mask, grids, height, width)}
        if "rectangle" in layer:
            rectangle = layer["rectangle"]
            moved[path]["rectangle"] = rectangle_on_image(
                rectangle, grids, height, width
            )
    return moved


def _grids_of_layer(
    declaring: Declaring, path: str, shape: tuple[int, ...], height: int, width: int
) -> tuple[Grid, Grid]:
    """The grids along y and x of the map that a layer's mask `[B, h, w]` lies on."""
    prefix, stages = declaring
    grids = list(zip(_grids(stages, height), _grids(stages, width), strict=True))
    candidates = list(range(len(stages)))
    if path.startswith(prefix) and any(stage.modules for stage in stages):
        inner = path.removeprefix(prefix)
        candidates = [n for n in candidates if stages[n].holds(inner)]
    fitting = {grids[n] for n in candidates if _size(grids[n]) == tuple(shape[1:])}
    if len(fitting) == 1:
        return fitting.pop()
    sizes = ", ".join(f"{n}: {_size(g)}" for n, g in enumerate(grids, start=1))
    raise ValueError(
        f"It is not known where the attention layer {path!r} looks, so it cannot be"
        f" put on the image: its mask has {tuple(shape[1:])} pixels, and the maps of"
        f" the network's stages have {sizes}. Name the layer as one of the `modules` of"
        " its stage, e.g. attentionN after stage N, or add its name to them."
    )


def _size(grids: tuple[Grid, Grid]) -> tuple[int, int]:
    return grids[0].pixels, grids[1].pixels


def rectangle_on_image(
    rectangle: Rectangle, grids: tuple[Grid, Grid], height: int, width: int
) -> Rectangle:
    """A rectangle in coordinates of a map as one in coordinates of the image.

    Args:
      rectangle: isotropic coordinates of the map.
      grids: its stage's grids along y and x.
      height: the image's height in pixels.
      width: the image's width in pixels.
    """
    y, x = grids
    map_half, image_half = max(y.pixels, x.pixels) / 2, max(height, width) / 2

    def center(value, grid, side):
        position = value * map_half + grid.pixels / 2
        return (grid.first + grid.stride * (position - 0.5) - side / 2) / image_half

    # Rectangles keep their shape: both axes have one stride.
    scale = x.stride * map_half / image_half
    return Rectangle(
        center_x=center(rectangle.center_x, x, width),
        center_y=center(rectangle.center_y, y, height),
        half_width=rectangle.half_width * scale,
        half_height=rectangle.half_height * scale,
        angle=rectangle.angle,
    )


def mask_on_image(
    mask: jax.Array, grids: tuple[Grid, Grid], height: int, width: int
) -> jax.Array:
    """Masks `[B, h, w]` of a map as masks `[B, height, width]` of the image (bilinear).

    Beyond the outermost centres the mask goes on as it is there.
    """
    padded = jnp.pad(mask, ((0, 0), (1, 1), (1, 1)), mode="edge")
    stride = jnp.array([float(grid.stride) for grid in grids])
    first = jnp.array([grid.first for grid in grids])
    return jax.image.scale_and_translate(
        padded,
        (mask.shape[0], height, width),
        (1, 2),
        stride,
        # The padded pixel's centre lies one stride before the first.
        first - 1.5 * stride,
        "linear",
        antialias=False,
    )
