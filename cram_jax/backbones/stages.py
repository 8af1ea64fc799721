"""What a network declares about the maps that it makes, one `Stage` for each.

A network class that has a property (or attribute) `stages`, a tuple of these, tells
where its maps lie on the image. All networks of this package do; a network of your own
can do the same:

    class Mine(nn.Module):
        stages = (
            Stage((Step(3, 2, 1),), channels=16, modules=("conv1", "attention1")),
            Stage((Step(3, 2, 1),), channels=32, modules=("conv2", "attention2")),
        )
"""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

__all__ = ["Stage", "Step", "declared_stages"]


@dataclasses.dataclass(frozen=True)
class Step:
    """A convolution or pooling that shrinks or shifts the map.

    Attributes:
      kernel: side of the square window, in pixels.
      stride: pixels from one window to the next.
      padding: pixels of zeros on each of the four sides; "same" is TensorFlow's, which
        depends on the map and may put one pixel more below and to the right.
    """

    kernel: int
    stride: int
    padding: int | Literal["same"]

    def margins(self, side: int) -> tuple[int, int]:
        """Pixels of padding before and after a side of so many pixels."""
        if self.padding != "same":
            return self.padding, self.padding
        outputs = -(-side // self.stride)
        total = max((outputs - 1) * self.stride + self.kernel - side, 0)
        return total // 2, total - total // 2


@dataclasses.dataclass(frozen=True)
class Stage:
    """One map of a network.

    Attributes:
      steps: what shrinks or shifts the map since the stage before (or the image).
        Convolutions of stride 1 that keep its size are left out.
      channels: the map's channels.
      modules: names of the network's modules that work on this map, its attention
        layer among them. "layer2" stands for "layer2_0", "layer2_1" and so on as well,
        "trunk/layer2" for modules inside "trunk".
    """

    steps: tuple[Step, ...]
    channels: int
    modules: tuple[str, ...] = ()

    def inside(self, name: str) -> Stage:
        """The same stage of a network that holds this one as its module `name`."""
        modules = tuple(f"{name}/{module}" for module in self.modules)
        return dataclasses.replace(self, modules=modules)

    def holds(self, path: str) -> bool:
        """Whether the module at the path, "/" between names, works on this map."""
        ends = "/_"
        return any(
            path == module or (path.startswith(module) and path[len(module)] in ends)
            for module in self.modules
        )


def declared_stages(network: Any) -> tuple[Stage, ...]:
    """The stages that a network declares by itself; none if it does not."""
    stages = getattr(network, "stages", ())
    if isinstance(stages, tuple) and all(isinstance(one, Stage) for one in stages):
        return stages
    return ()
