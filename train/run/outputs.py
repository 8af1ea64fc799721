"""Files that a command writes where a user's files may lie: none is written over.

The rule, for every command: a file is written over only if it is, byte for byte, what
an earlier start of the same command wrote there for the same run. Any other file is
the user's, or a result of another run. What was written is noted, with a checksum, in
a hidden file of the directory.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from train.errors import CannotWriteError, UserError
from train.files import json_bytes, write_whole
from train.run import layout

# File systems allow 255 bytes; endings and numbers need some.
_LONGEST_STEM = 180


class Outputs:
    """What one command writes into one directory.

    Attributes:
      directory: that the files lie in; made when the first is written.
    """

    def __init__(self, directory: Path, command: str, runs: Sequence[Path]):
        """Reads what was written there before.

        Args:
          directory: that the files lie in.
          command: that writes.
          runs: work directories that the files tell of.

        Raises:
          UserError: if the directory is a file.
        """
        if os.path.lexists(directory) and not directory.is_dir():
            raise UserError(
                f"{directory} is no directory; choose another one to write to."
            )
        self.directory = directory
        self._command = command
        self._runs = {_place(run, directory) for run in runs}
        self._notes: dict[str, list[dict[str, Any]]] = {}
        for note in _read_notes(directory):
            self._notes.setdefault(note["file"], []).append(note)

    def check(self, *names: str) -> None:
        """Refuses names at which another's file stands.

        Raises:
          UserError: names the first, and whose it is.
        """
        for name in names:
            path = self.directory / name
            if os.path.lexists(path) and not self._is_own(name):
                raise UserError(
                    f"{path} {self._story(name)}; it is not written over. Move it away"
                    " or choose another directory."
                )

    def free_name(self, stem: str, ending: str, taken: set[str]) -> str:
        """A file name at which nothing stands, or our own file of an earlier start.

        Args:
          stem: beginning of the name; shortened and made printable where need be.
          ending: end of the name; a number comes before its last dot.
          taken: names already given, of which none comes again in any spelling that
            a file system may take for the same; the new one is added.
        """
        stem, (body, dot, suffix) = _plain_stem(stem), ending.rpartition(".")
        name, number = f"{stem}{ending}", 2
        while _folded(name) in taken or not self._may_write(name):
            name, number = f"{stem}{body}-{number}{dot}{suffix}", number + 1
        taken.add(_folded(name))
        return name

    def adopt(self, *names: str) -> None:
        """Takes files for our own that a version without notes wrote together."""
        if any(name in self._notes for name in names):
            return
        for name in names:
            checksum = _checksum_of(self.directory / name)
            if checksum is not None:
                self._note(name, checksum)

    def write(self, name: str, content: bytes) -> Path:
        """Writes a file whole or not at all.

        Raises:
          UserError: if another's file stands there.
          CannotWriteError: if the disk is full, or the directory forbidden.
        """
        self.check(name)
        path = self.directory / name
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            # First: a file without a note would be taken for the user's.
            self._note(name, _checksum(content))
            write_whole(path, content)
        except OSError as error:
            raise CannotWriteError(
                f"{path} cannot be written: {error.strerror or error}."
            ) from error
        return path

    def write_json(self, name: str, values: Any) -> Path:
        """Writes JSON that any reader takes: NaN and infinity become null."""
        return self.write(name, json_bytes(values))

    def _may_write(self, name: str) -> bool:
        return not os.path.lexists(self.directory / name) or self._is_own(name)

    def _is_ours(self, note: dict[str, Any]) -> bool:
        runs = note.get("runs")
        same_run = isinstance(runs, list) and self._runs & set(map(str, runs))
        return note.get("command") == self._command and bool(same_run)

    def _is_own(self, name: str) -> bool:
        checksum = _checksum_of(self.directory / name)
        return any(
            self._is_ours(note) and note.get("checksum") == checksum
            for note in self._notes.get(name, [])
        )

    def _story(self, name: str) -> str:
        """Why a file is not ours, as the end of a sentence."""
        checksum = _checksum_of(self.directory / name)
        notes = self._notes.get(name, [])
        for note in reversed(notes):
            if note.get("checksum") == checksum and not self._is_ours(note):
                runs = note.get("runs")
                whose = f" of {runs[0]}" if isinstance(runs, list) and runs else ""
                return f"is a result of {note.get('command')}{whose}, another run"
        if any(self._is_ours(note) for note in notes):
            return "was changed since it was written"
        return "was not written by this command"

    def _note(self, name: str, checksum: str) -> None:
        note = {
            "file": name,
            "checksum": checksum,
            "command": self._command,
            "runs": sorted(self._runs),
        }
        known = self._notes.setdefault(name, [])
        if note not in known:
            with (self.directory / layout.NOTES).open("a", encoding="ascii") as file:
                file.write(json.dumps(note) + "\n")
            known.append(note)


def written_here(directory: Path, command: str) -> set[str]:
    """Names of the files in a directory that a command wrote, for whatever run."""
    return {
        note["file"]
        for note in _read_notes(directory)
        if note.get("command") == command
        and note.get("checksum") == _checksum_of(directory / note["file"])
    }


def _place(run: Path, directory: Path) -> str:
    """What tells a run from others; it stays when a run moves with its results."""
    run, directory = run.resolve(), directory.resolve()
    if directory.is_relative_to(run):
        return os.path.relpath(run, directory)
    return str(run)


def _read_notes(directory: Path) -> Iterator[dict[str, Any]]:
    """The notes of a directory; lines that are none are left out."""
    try:
        text = (directory / layout.NOTES).read_text(encoding="ascii", errors="replace")
    except OSError:
        return
    for line in text.splitlines():
        with contextlib.suppress(ValueError):
            note = json.loads(line)
            if isinstance(note, dict) and isinstance(note.get("file"), str):
                yield note


def _checksum(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _checksum_of(path: Path) -> str | None:
    """The checksum of a plain file; None for anything else."""
    try:
        if path.is_symlink() or not path.is_file():
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _folded(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold())


def _plain_stem(stem: str) -> str:
    """A stem that prints, is valid UTF-8, and leaves room for an ending."""
    text = "".join(c if c.isprintable() else "_" for c in stem)
    short = text.encode("utf-8", "replace")[:_LONGEST_STEM]
    return short.decode("utf-8", "ignore")
