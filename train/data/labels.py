"""Labels by the name of their class: a run's order is its own, whatever a set's is."""

from __future__ import annotations

import dataclasses
import unicodedata
from collections.abc import Sequence

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
    """A source whose labels follow another order of the class names.

    Attributes:
      info: with that order.
      source: the images.
      labels: new label by old one.
    """

    info: DatasetInfo
    source: Source
    labels: tuple[int, ...]

    def __len__(self) -> int:
        """The number of images."""
        return len(self.source)

    def __getitem__(self, index: int) -> Example:
        """Decodes one image; raises UnreadableImageError, which names it."""
        return _relabelled(self.source[index], self.labels)


def _relabelled(example: Example, labels: tuple[int, ...]) -> Example:
    return dataclasses.replace(example, label=labels[example.label])


def with_classes(source: Source, class_names: Sequence[str], *, whole: bool) -> Source:
    """The source with the labels of a run.

    Args:
      source: labelled in its own order.
      class_names: the run's classes, in its order.
      whole: the source must have all of these classes; else some of them will do.

    Raises:
      UserError: names the classes that differ.
    """
    info = source.info
    if tuple(info.class_names) == tuple(class_names):
        return source
    label = {_key(name): index for index, name in enumerate(class_names)}
    unknown = [name for name in info.class_names if _key(name) not in label]
    missing = whole and len(info.class_names) < len(class_names)
    if unknown or missing:
        differing = differing_names(class_names, info.class_names)
        raise UserError(
            f"The data set has other classes than the run: {differing} ({info.name},"
            f" split {info.split}). Nothing was changed."
        )
    labels = tuple(label[_key(name)] for name in info.class_names)
    info = dataclasses.replace(info, class_names=tuple(class_names))
    if isinstance(source, MemorySource):
        # Kept a MemorySource: the pipeline treats what is in memory apart.
        examples = (
            each if isinstance(each, str) else _relabelled(each, labels)
            for each in source.examples
        )
        return MemorySource(info, tuple(examples))
    return Relabelled(info, source, labels)
