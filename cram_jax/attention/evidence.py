"""What attention layers showed in one call, and the sharpness they are shown with.

A layer *sows* its mask (and its rectangle, if it has one) into the collection
"intermediates". The functions here find it there again, by the path of the layer's
module: "backbone/attention3". A layer that is itself the root has the path "".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from cram_jax.geometry.rectangle import Rectangle
from cram_jax.geometry.rendering import check_sharpness
from cram_jax.numerics import at_least_float32

__all__ = [
    "attended_masks",
    "attended_rectangles",
    "layer_evidence",
    "mask_dropout_schedule",
    "sharpness_schedule",
    "shows_several",
]


def layer_evidence(intermediates: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each layer with a spatial mask showed, by module path.

    Args:
      intermediates: the collection "intermediates" that
        `apply(..., mutable=["intermediates"])` returns, or a dict that holds it
        under that name.

    Returns:
      `{path: {"mask": [..., H, W], "rectangle": Rectangle of [...]}}` in module order,
      "/" between names. A layer of several rectangles has `[..., K]` of them, and their
      union as its mask (`shows_several` tells which). A position-wise layer has no
      "rectangle"; where one layer was called several times, the last call counts.
    """
    found: dict[str, dict[str, Any]] = {}
    for path, name, value in _sown(intermediates):
        found.setdefault(path, {})[name] = value
    return {path: layer for path, layer in found.items() if "mask" in layer}


def attended_masks(intermediates: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The spatial mask `[..., H, W]` of every layer that sows one, by module path.

    Args:
      intermediates: as in `layer_evidence`, as are order and repeated calls.
    """
    sown = _sown(intermediates)
    return {path: value for path, name, value in sown if name == "mask"}


def attended_rectangles(intermediates: Mapping[str, Any]) -> dict[str, Rectangle]:
    """The rectangle `[...]` of every CRAM layer, by module path.

    A layer made with `count=K`, K > 1, has `[..., K]`.

    Args:
      intermediates: as in `layer_evidence`, as are order and repeated calls.
    """
    sown = _sown(intermediates)
    return {path: value for path, name, value in sown if name == "rectangle"}


def shows_several(layer: Mapping[str, Any]) -> bool:
    """Whether a layer shows several rectangles `[..., K]` of each map, or one `[...]`.

    Only ranks are looked at: beside a mask `[..., H, W]` an axis more than the batch's
    is that of the rectangles, also where there are as many of them as images.

    Args:
      layer: what `layer_evidence` gives of it; or the same without the batch.

    Returns:
      False for a layer without a rectangle.

    Raises:
      ValueError: where the ranks of rectangle and mask do not belong together.
    """
    if "rectangle" not in layer:
        return False
    rectangle, mask = jnp.shape(layer["rectangle"].center_x), jnp.shape(layer["mask"])
    more = len(rectangle) - (len(mask) - 2)
    if more not in (0, 1):
        raise ValueError(
            "Rectangles are [...] or [..., K] where the mask is [..., H, W]; got"
            f" rectangles {rectangle} and a mask {mask}."
        )
    return more == 1


def _sown(intermediates: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Path of the layer, "mask" or "rectangle", and what the last call sowed."""

    def visit(tree: Mapping[str, Any], path: tuple[str, ...]) -> Iterator:
        for name, value in tree.items():
            if isinstance(value, Mapping):
                yield from visit(value, (*path, name))
            elif name in ("mask", "rectangle"):
                yield "/".join(path), name, value[-1]

    return visit(intermediates.get("intermediates", intermediates), ())


def sharpness_schedule(
    paths: Iterable[str], sharpness: jax.typing.ArrayLike
) -> dict[str, Any]:
    """The collection that sets the sharpness of CRAM layers from outside.

    Merge it into the variables: `model.apply({**variables, **collection}, images)`.
    A traced sharpness can so follow a schedule within one compiled step.

    Args:
      paths: module paths, as the keys of `attended_rectangles`.
      sharpness: positive; a number or a scalar array.

    Returns:
      `{"schedule": {...}}`.

    Raises:
      ValueError: if a sharpness known now is not positive.
    """
    check_sharpness(sharpness)
    return _schedule(paths, "sharpness", at_least_float32(sharpness))


def mask_dropout_schedule(paths: Iterable[str], opened: jax.Array) -> dict[str, Any]:
    """The collection that lets some examples past every mask (ours).

    A network that has only ever seen masked features forgets the others; shown both,
    it stays good at both. What layers sow are their own masks as ever. Beside a
    sharpness, merge the trees of the two collections, not the collections.

    Args:
      paths: module paths of layers that gate, as the keys of `attended_masks`.
      opened: boolean `[B]`, true for examples whose mask counts as 1.

    Returns:
      `{"schedule": {...}}`.
    """
    gates = (f"{path}/gate" for path in paths)
    return _schedule(gates, "open", opened)


def _schedule(paths: Iterable[str], name: str, value: jax.Array) -> dict[str, Any]:
    schedule: dict[str, Any] = {}
    for path in paths:
        level = schedule
        for part in filter(None, path.split("/")):
            level = level.setdefault(part, {})
        level[name] = value
    return {"schedule": schedule}
