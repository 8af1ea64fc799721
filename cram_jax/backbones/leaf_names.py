"""Which name in a file of weights each of our leaves has, whatever stands in front."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import jax

from cram_jax.backbones.published import Naming, Path, own_name
from cram_jax.backbones.registry import NAMINGS
from cram_jax.backbones.weight_files import State

Tree = Mapping[str, Any]
COLLECTIONS = ("params", "batch_stats")


def leaves_of(variables: Tree) -> Iterator[tuple[Path, Any]]:
    """Path without the collection, and leaf, of parameters, then of statistics."""
    for key in COLLECTIONS:
        tree = variables.get(key, {})
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            yield tuple(str(entry.key) for entry in path), leaf


def is_attention(path: Path) -> bool:
    """Whether a leaf belongs to an attention layer, which no published file has."""
    return any(part.startswith("attention") for part in path)


def modules_of(variables: Tree) -> set[Path]:
    """The paths of all modules that have leaves, attention layers aside."""
    return {path[:-1] for path, _ in leaves_of(variables) if not is_attention(path)}


def subtree(variables: Tree, at: str) -> dict[str, Any]:
    """The variables of the module at a path, "/" between names.

    Raises:
      ValueError: if there is no such module, with those there are.
    """
    found = {}
    for key in COLLECTIONS:
        inner: Any = variables.get(key)
        for name in filter(None, at.split("/")):
            inner = inner.get(name) if isinstance(inner, Mapping) else None
        if isinstance(inner, Mapping):
            found[key] = inner
    if not found:
        raise ValueError(
            f"There is no module {at!r} in the variables; at the top they have"
            f" {', '.join(variables.get('params', {})) or 'none'}."
        )
    return found


def place_of(variables: Tree) -> str:
    """The path of the one backbone in the variables; "" where they are its own.

    Raises:
      ValueError: if no module, or more than one, has the modules of a backbone.
    """
    found = list(_places(variables))
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(
            f"There are several backbones in these variables, at {' and '.join(found)};"
            f" say which one by at={found[0]!r}."
        )
    names = sorted({path[0] for path in modules_of(variables) if path})
    raise ValueError(
        "These variables belong to no backbone of cram_jax; their modules are"
        f" {names}. For a network of your own, say what the file calls its leaves by"
        " naming=cram_jax.backbones.published.Naming(...)."
    )


def _places(variables: Tree, path: str = "") -> Iterator[str]:
    modules = modules_of(variables)
    if any(naming.fits(modules) for naming in NAMINGS):
        yield path
        return
    for name in dict.fromkeys(n for key in COLLECTIONS for n in variables.get(key, {})):
        inner = {key: variables.get(key, {}).get(name, {}) for key in COLLECTIONS}
        if all(isinstance(tree, Mapping) for tree in inner.values()):
            yield from _places(inner, f"{path}/{name}".lstrip("/"))


def names_in(variables: Tree, naming: Naming) -> dict[Path, str]:
    """For each of our leaves its name in the file; attention layers keep ours."""
    modules = modules_of(variables)
    return {
        path: (own_name if is_attention(path) else naming.name)(path, modules)
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
    variables: Tree, state: State, styles: tuple[Naming, ...]
) -> tuple[Naming, State, tuple[str, ...]]:
    """The naming that fits the file, its arrays without a prefix, and names outside.

    Raises:
      ValueError: if no naming fits, or two networks in the file would.
    """
    for naming in styles:
        if naming.key in state:
            return naming, state, ()
    for naming in styles:
        fitting = _under_prefixes(state, naming, names_in(variables, naming))
        if len(fitting) > 1:
            raise ValueError(
                "The file holds several networks that fit, under"
                f" {' and '.join(fitting)}; save the one that is wanted."
            )
        for prefix, inside in fitting.items():
            outside = tuple(name for name in state if not name.startswith(prefix))
            return naming, inside, outside
    ours = ", ".join(list(names_in(variables, styles[0]).values())[:5])
    raise ValueError(
        "The file's names fit none of the known styles of this backbone: none of"
        f" {[naming.key for naming in styles]} is there; the first names are"
        f" {', '.join(list(state)[:5]) or 'none'}, where {ours} were expected."
    )


def _under_prefixes(
    state: State, naming: Naming, names: Mapping[Path, str]
) -> dict[str, State]:
    """By prefix, the arrays behind it, where most of our names are among them."""
    fitting, wanted = {}, set(names.values())
    for prefix in _prefixes(state, naming.key):
        inside = {n.removeprefix(prefix): n for n in state if n.startswith(prefix)}
        if len(wanted & set(inside)) > len(wanted) / 2:
            fitting[prefix] = {name: state[n] for name, n in inside.items()}
    return fitting
