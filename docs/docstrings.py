"""Makes the docstrings of the packages readable for Sphinx.

They are written to be read as text: `name` between single backticks, which
reStructuredText reads as a reference. Here each becomes a link, where an API page has
that name, or else code.
"""

from __future__ import annotations

import functools
import importlib
import re

PACKAGES = (
    "cram_jax",
    "cram_jax.backbones",
    "cram_jax.drawing",
    "cram_jax.explain",
    "cram_jax.losses",
    "train.use",
)
# Pages that tell what a module's docstring tells.
PAGES = {"cram_jax.geometry.coordinates": "/docs/conventions"}
# What single backticks quote, no role and no literal; or a bar, which would quote too.
_QUOTED = re.compile(r"(?<![`\w:])`([^`]+?)`(?![`_])|\|")
# What flax adds to the signature of every module.
_OF_FLAX = re.compile(r",? ?(parent|name)(: [^=,()]*)? ?= ?(<[^>]*>|None)")
# How Python writes a default that is a class or a function.
_CLASS = re.compile(r"<class '(?:\w+\.)*(\w+)'>")
_FUNCTION = re.compile(r"<function [^>]*>(\.\w+( at \w+)?>)?")


@functools.cache
def public_names() -> dict[str, str]:
    """The place under which an API page has a name, by every way to write the name."""
    places: dict[str, str] = {}
    for package in PACKAGES:
        module = importlib.import_module(package)
        for name in module.__all__:
            target = getattr(module, name)
            home = f"{getattr(target, '__module__', package)}.{name}"
            # The package's own name comes before that of its folder.
            place = f"{package}.{name}"
            for written in (name, place, home):
                places.setdefault(written, place)
    return places


def marked(text: str) -> str:
    """A docstring with `name` as a link or as code."""
    return _QUOTED.sub(_marked, text)


def _marked(match: re.Match[str]) -> str:
    if match[1] is None:
        return r"\|"
    quoted = " ".join(match[1].split())
    if quoted in PAGES:
        return f":doc:`{quoted} <{PAGES[quoted]}>`"
    if quoted in public_names():
        return f":py:obj:`{quoted} <{public_names()[quoted]}>`"
    return f"``{quoted}``"


def _process(app, kind, name, target, options, lines: list[str]) -> None:
    del app, kind, name, target, options
    lines[:] = marked("\n".join(lines)).split("\n")


def _signature(app, kind, name, target, options, signature, returns):
    del app, kind, name, target, options
    if signature:
        signature = _CLASS.sub(r"\1", _OF_FLAX.sub("", signature))
        signature = _FUNCTION.sub("...", signature)
    return signature, returns


def setup(app) -> dict[str, bool]:
    """Registers both with Sphinx."""
    # Before napoleon, which would take marks for its own.
    app.connect("autodoc-process-docstring", _process, priority=400)
    app.connect("autodoc-process-signature", _signature)
    return {"parallel_read_safe": True}
