"""Where on the image the pixels of a stage's map are centred.

A mask spreads its map evenly over the image: pixel i of n is centred at (i + 0.5) / n
of the side. The networks that ImageNet weights exist for are not built so: a 3x3
convolution of stride 2 that pads one pixel on both sides looks half a pixel to the left
of and above that point, each further stage the more, up to half a stride in all; with
TensorFlow's padding and even sides it looks to the right and below. What is seen in the
map must be moved by as much before it is drawn on the image or compared with an object.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import flax.linen as nn
import jax
import jax.numpy as jnp

from cram_jax.backbones.convnet import ConvNet
from cram_jax.backbones.convnext import ConvNeXt
from cram_jax.backbones.depthwise import padding_for
from cram_jax.backbones.inverted import InvertedResidualNet
from cram_jax.backbones.resnet import ResNet
from cram_jax.geometry.rectangle import Rectangle


@dataclasses.dataclass(frozen=True)
class Grid:
    """Where along one side of the image the pixels of a map are centred.

    Attributes:
      pixels: of the map.
      stride: image pixels from one centre to the next.
      first: centre of the map's first pixel, in image pixels from the edge (0.5 is the
        centre of the image's first pixel).
    """

    pixels: int
    stride: int = 1
    first: float = 0.5


def _shrinking(network: nn.Module) -> Iterator[tuple[tuple[int, int], ...]]:
    """Kernel and stride of all strided operations that lead to each stage."""
    if isinstance(network, ConvNet):
        yield from (((stride + 2, stride),) for stride in network.strides)
    elif isinstance(network, ConvNeXt):
        yield ((4, 4),)
        yield from (((2, 2),) for _ in network.depths[1:])
    elif isinstance(network, ResNet):
        yield ((7, 2), (3, 2)) if network.stem == "imagenet" else ()
        yield from (((3, 2),) for _ in network.depths[1:])
    elif isinstance(network, InvertedResidualNet):
        yield ((3, 2),)
        specs = [spec for group in network.groups for spec in group]
        yield from (((s.kernel, s.strides),) for s in specs if s.strides > 1)
        yield ()
    else:
        raise ValueError(
            f"The positions of {type(network).__name__} are not known; there are those"
            " of the networks in cram_jax.backbones."
        )


def stage_grids(network: nn.Module, side: int) -> tuple[Grid, ...]:
    """The grid of each stage's map along one side of the image.

    Args:
      network: a backbone of this package.
      side: of the image, in pixels.

    Raises:
      ValueError: for any other network.
    """
    same = isinstance(network, InvertedResidualNet) and network.same_padding
    grid, grids = Grid(side), []
    for steps in _shrinking(network):
        for kernel, stride in steps:
            padding = padding_for(kernel, stride, (grid.pixels,) * 2, same=same)[0]
            if isinstance(network, ConvNeXt):
                padding = (0, 0)
            # Centre of the first window, in pixels of the map before.
            center = kernel / 2 - padding[0]
            grid = Grid(
                (grid.pixels + sum(padding) - kernel) // stride + 1,
                grid.stride * stride,
                grid.first + grid.stride * (center - 0.5),
            )
        grids.append(grid)
    return tuple(grids)


def rectangle_on_image(
    rectangle: Rectangle, grids: tuple[Grid, Grid], height: int, width: int
) -> Rectangle:
    """A rectangle in coordinates of a map as one in coordinates of the image.

    Args:
      rectangle: isotropic coordinates of the map.
      grids: of its stage along y and x.
      height: of the image in pixels.
      width: likewise.
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
