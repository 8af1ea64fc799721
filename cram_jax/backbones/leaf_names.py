"""Which name in a file of weights each of our leaves has, whatever stands in front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from cram_jax.backbones import torch_names
from cram_jax.backbones.weight_files import State

Tree = Mapping[str, Any]
Path = tuple[str, ...]


def leaves_of(variables: Tree) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Path without the collection, and leaf, of parameters and statistics."""
    kept = {
        key: variables[key] for key in ("params", "batch_stats") if key in variables
    }
    for path, leaf in jax.tree_util.tree_leaves_with_path(kept):
        yield tuple(str(entry.key) for entry in path[1:]), leaf


def is_attention(path: tuple[str, ...]) -> bool:
    """Whether a leaf belongs to an attention layer, which no published file has."""
    return any(part.startswith("attention") for part in path)


def namings(modules: set[tuple[str, ...]]) -> tuple[tuple[str, Any], ...]:
    """The styles of the family that the modules give away (see `STYLES`).

    Raises:
      ValueError: for modules of no backbone of this package.
    """
    for module, styles in torch_names.STYLES.items():
        if any(path[0] == module for path in modules):
            return styles
    raise ValueError(
        "These variables belong to no backbone of cram_jax; their modules are"
        f" {sorted({path[0] for path in modules})}."
    )


def names_in(variables: Tree, naming: torch_names.Naming) -> dict[Path, str]:
    """For each of our leaves its name in the file; attention layers keep ours."""
    backbone = {path[:-1] for path, _ in leaves_of(variables) if not is_attention(path)}
    return {
        path: (torch_names.own if is_attention(path) else naming)(path, backbone)
        for path, _ in leaves_of(variables)
    }


def _prefixes(state: State, key: str) -> list[str]:
    """What stands in front of a style's key, such as "module."; "" first."""
    found = sorted(
        (name.removesuffix(key) for name in state if name.endswith(key)), key=len
    )
    ends = [prefix for prefix in found if not prefix or prefix.endswith(".")]
    # The key of a block inside of the network ends in the same way.
    return [p for i, p in enumerate(ends) if not any(map(p.startswith, ends[:i]))]


def match(
    variables: Tree, state: State
) -> tuple[torch_names.Naming, State, tuple[str, ...]]:
    """The naming that fits the file, its arrays without a prefix, and names outside.

    Raises:
      ValueError: if no naming fits, or two networks in the file would.
    """
    styles = namings({p[:-1] for p, _ in leaves_of(variables) if not is_attention(p)})
    for key, naming in styles:
        if key in state:
            return naming, state, ()
    for key, naming in styles:
        names = set(names_in(variables, naming).values())
        fitting = {}
        for prefix in _prefixes(state, key):
            inside = {n.removeprefix(prefix): n for n in state if n.startswith(prefix)}
            if len(names & set(inside)) > len(names) / 2:
                fitting[prefix] = {name: state[n] for name, n in inside.items()}
        if len(fitting) > 1:
            raise ValueError(
                "The file holds several networks that fit, under"
                f" {' and '.join(fitting)}; save the one that is wanted."
            )
        for prefix, inside in fitting.items():
            outside = tuple(name for name in state if not name.startswith(prefix))
            return naming, inside, outside
    ours = ", ".join(list(names_in(variables, styles[0][1]).values())[:5])
    raise ValueError(
        "The file's names fit none of the known styles of this backbone: none of"
        f" {[key for key, _ in styles]} is there; the first names are"
        f" {', '.join(list(state)[:5]) or 'none'}, where {ours} were expected."
    )
