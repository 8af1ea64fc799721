"""A path to a directory that Orbax and TensorStore can take, whatever its name.

Orbax looks for its own files by a glob of the unescaped path (`[2,3]` then is a
pattern that finds nothing), and TensorStore's paths are UTF-8 of limited length. A
directory that is held open also has a harmless name: that of its descriptor.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import jax

from train.errors import UserError

_HARMLESS = re.compile(r"[\w ./,=+@~-]+")
_LONG = 1024  # bytes; a path may have 4096, and a checkpoint's files add to it
_DESCRIPTORS = Path("/proc/self/fd")


def is_harmless(path: Path) -> bool:
    """Whether Orbax can take the path as it is."""
    text = str(path)
    return _HARMLESS.fullmatch(text) is not None and len(os.fsencode(path)) <= _LONG


class SafePath:
    """A directory by a path without surprises; `close` when done.

    Attributes:
      path: absolute; of the directory itself, or of its descriptor.
    """

    def __init__(self, directory: Path):
        """Opens the directory, which must be there, if its name needs it.

        Raises:
          UserError: if its name cannot be made harmless on this system.
        """
        self.path, self._descriptor = directory.absolute(), None
        if is_harmless(self.path):
            return
        if jax.process_count() > 1 or not _DESCRIPTORS.is_dir():
            raise UserError(
                f"Checkpoints cannot be kept in {self.path}: use letters, digits and"
                " any of ' ./,=+@~-' in the names of a --workdir, and at most"
                f" {_LONG} bytes."
            )
        self._descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        self.path = _DESCRIPTORS / str(self._descriptor)

    def close(self) -> None:
        """Lets go of the directory."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
