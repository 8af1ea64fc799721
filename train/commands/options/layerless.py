"""Options that ask something of a layer, where the layer chosen cannot do it."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from typing import Any

from train.config.model import ModelConfig
from train.config.run import FitConfig
from train.errors import UserError

# What each needs of the attention layer, and its value where nothing is asked.
_NEEDS: dict[str, tuple[str, Any]] = {
    "equivariance.weight": ("a rectangle", 0.0),
    "budget.area": ("a spatial mask", None),
    "budget.price": ("a spatial mask", 0.0),
    "budget.outside": ("a spatial mask", 0.0),
    "budget.mask_dropout": ("a spatial mask", 0.0),
    "model.attention_fill": ("a mask that can be filled", "zero"),
    "model.attention_count": ("any number of rectangles", 1),
}


def without_layer_options(
    config: FitConfig, typed: Collection[str]
) -> tuple[FitConfig, list[str]]:
    """The config without what its attention layer cannot do, and what was given up.

    Args:
      config: a preset's, with the options that were typed.
      typed: their names, as in "equivariance.weight".

    Raises:
      UserError: if one of those that were typed needs another layer.
    """
    asked = [name for name, (_, off) in _NEEDS.items() if _value(config, name) != off]
    given_up: list[str] = []
    abilities = _abilities(config.model) if asked else frozenset()
    for name in asked:
        need, off = _NEEDS[name]
        if need in abilities:
            continue
        if name in typed:
            option = name.replace("_", "-")
            raise UserError(
                f"--{option} needs a layer with {need}, and model.attention is"
                f" {config.model.attention!r}; leave it out, or try rectangular."
            )
        given_up.append(f"{name} {_value(config, name)}")
        config = _with_value(config, name, off)
    return config, given_up


def _value(config: FitConfig, name: str) -> Any:
    section, _, field = name.partition(".")
    return getattr(getattr(config, section), field)


def _with_value(config: FitConfig, name: str, value: Any) -> FitConfig:
    section, _, field = name.partition(".")
    changed = dataclasses.replace(getattr(config, section), **{field: value})
    return dataclasses.replace(config, **{section: changed})


def _abilities(model: ModelConfig) -> frozenset[str]:
    """What the configured layer has of the things in `_NEEDS`."""
    # Here, so that `--help` need not import jax.
    from cram_jax.attention.registry import attention_factory, shown_by
    from train.learning.network import takes

    factory = attention_factory(model.attention)
    if factory is None or not model.attention_stages:
        return frozenset()
    names = {"mask": "a spatial mask", "rectangle": "a rectangle"}
    found = {names[each] for each in shown_by(factory)}
    for field, ability in (
        ("fill", "a mask that can be filled"),
        ("count", "any number of rectangles"),
    ):
        found |= {ability} if takes(factory, field) else set()
    return frozenset(found)
