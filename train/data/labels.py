"""Labels by the name of their class or category: a run has its own order of them."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence
from typing import Literal

import numpy as np

from train.data.facts import Facts
from train.data.sources import Source
from train.data.sources.base import DatasetInfo, Example
from train.data.sources.memory import MemorySource
from train.errors import UserError


def _key(name: str) -> str:
    # A disk may spell an accent in two ways; copied, a set may come in the other.
    return unicodedata.normalize("NFC", name)


def differing_names(own: Sequence[str], other: Sequence[str]) -> str:
    """Classes that only one side has: "+ new - gone"; empty if they are the same."""
    before, now = set(map(_key, own)), set(map(_key, other))
    added = [f"+ {name}" for name in sorted(now - before)]
    return " ".join(added + [f"- {name}" for name in sorted(before - now)])


@dataclasses.dataclass(frozen=True, eq=False)
class Relabelled:
    """A source whose labels follow another order of the names.

    Attributes:
      info: with that order.
      source: the images.
      labels: new label by old one, of classes or of categories.
      of: whose labels they are.
    """

    info: DatasetInfo
    source: Source
    labels: tuple[int, ...]
    of: Literal["class_names", "categories"] = "class_names"

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        return self.relabelled(self.source[index])

    def relabelled(self, example: Example) -> Example:
        """An example of the source with its new labels."""
        if self.of == "class_names":
            return dataclasses.replace(example, label=self.labels[example.label])
        if example.objects is None:
            return example
        new = np.asarray(self.labels, np.int64)[example.objects.labels]
        objects = dataclasses.replace(example.objects, labels=new)
        return dataclasses.replace(example, objects=objects)


def with_facts(source: Source, facts: Facts, *, whole: bool) -> Source:
    """The source with the labels of a run, of classes and of categories.

    Args:
      source: labelled in its own order.
      facts: the run's.
      whole: the source must have all of the run's classes and categories, not only
        some.

    Raises:
      UserError: names the classes or categories that differ.
    """
    source = _with_names(source, "class_names", facts.class_names, whole=whole)
    return _with_names(source, "categories", facts.categories, whole=whole)


def _with_names(
    source: Source,
    of: Literal["class_names", "categories"],
    names: Sequence[str],
    *,
    whole: bool,
) -> Source:
    own: tuple[str, ...] = getattr(source.info, of)
    if tuple(own) == tuple(names):
        return source
    label = {_key(name): index for index, name in enumerate(names)}
    unknown = [name for name in own if _key(name) not in label]
    missing = whole and len(own) < len(names)
    if unknown or missing or not own:
        what = "classes" if of == "class_names" else "categories"
        raise UserError(
            f"The data set has other {what} than the run: {differing_names(names, own)}"
            f" ({source.info.name}, split {source.info.split}). Nothing was changed."
        )
    labels = tuple(label[_key(name)] for name in own)
    info = dataclasses.replace(source.info, **{of: tuple(names)})
    relabelled = Relabelled(info, source, labels, of)
    if isinstance(source, MemorySource):
        # Kept a MemorySource: the pipeline treats what is in memory apart.
        examples = (
            each if isinstance(each, str) else relabelled.relabelled(each)
            for each in source.examples
        )
        return MemorySource(info, tuple(examples))
    return relabelled
