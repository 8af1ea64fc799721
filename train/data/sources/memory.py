"""A data set decoded once and kept in memory."""

from __future__ import annotations

import dataclasses
import functools
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from train.config.data import DataConfig
from train.data.sources.base import DatasetInfo, Example, Source, UnreadableImageError

_SIZE_SAMPLES = 16

_log = logging.getLogger(__name__)
_naming = threading.Lock()


@dataclasses.dataclass(frozen=True, eq=False)
class MemorySource:
    """Decoded images; made by `load_into_memory`.

    Attributes:
        info: what is known of the source that was read.
        examples: decoded, or for an image that could not be the sentence that says so.
    """

    info: DatasetInfo
    examples: tuple[Example | str, ...]

    def __len__(self) -> int:
        """The number of images, unreadable ones included."""
        return len(self.examples)

    def __getitem__(self, index: int) -> Example:
        """An image; raises UnreadableImageError, which names it."""
        example = self.examples[index]
        if isinstance(example, str):
            raise UnreadableImageError(example)
        return example


def load_into_memory(source: Source, config: DataConfig) -> MemorySource:
    """Decodes a whole source with the threads of the config.

    With `config.on_bad_image="skip"`, unreadable images are named in the log and kept
    as their sentence; with "raise" the first one is raised.

    Raises:
        UnreadableImageError: names the image.
    """

    def read(index: int) -> Example | str:
        try:
            return source[index]
        except UnreadableImageError as error:
            if config.on_bad_image == "raise":
                raise
            name_skipped(str(error))
            return str(error)

    with ThreadPoolExecutor(config.threads) as pool:
        return MemorySource(source.info, tuple(pool.map(read, range(len(source)))))


def estimated_bytes(source: Source) -> int:
    """The memory that the decoded images need, judged by a sample of them."""
    step = max(1, len(source) // _SIZE_SAMPLES)
    sizes = []
    for index in range(0, len(source), step):
        try:
            example = source[index]
        except UnreadableImageError:
            continue
        kept = {id(each): each for each in (example.mask, example.regions)}
        mask_bytes = sum(each.nbytes for each in kept.values() if each is not None)
        sizes.append(example.image.nbytes + mask_bytes)
    return round(len(source) * float(np.mean(sizes))) if sizes else 0


def name_skipped(message: str) -> None:
    """Logs an image that is skipped; once per process, not once per epoch."""
    say_once(f"Skipped: {message}")


def say_once(message: str) -> None:
    """Logs a sentence, once per process."""
    # Two threads may meet the same image, and lru_cache would call twice.
    with _naming:
        _log_once(message)


@functools.lru_cache(maxsize=10_000)
def _log_once(message: str) -> None:
    _log.warning("%s", message)
