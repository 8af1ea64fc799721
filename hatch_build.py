"""Puts the program into the wheel, under a name that nobody else's module has.

In the clone it is `train`, as in `python -m train`; many projects have a `train.py`,
and an installed package of that name would be in their way. So in the wheel it is
`cram_jax_train`, and its command is `cram-jax-train`: every file is copied with those
two names in place of the clone's (`renamed`). CONTRIBUTING.md says why.
"""

from __future__ import annotations

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

CLONE_NAME, NAME = "train", "cram_jax_train"
CLONE_COMMAND, COMMAND = "python -m train", "cram-jax-train"

# An editable installation uses the clone's files, so its `train`: here under the name
# of the wheel, for the command and for whoever imports it.
_ALIAS = f'''"""The clone's `{CLONE_NAME}`, under the name that it has in the wheel."""

import {CLONE_NAME}

__path__ = {CLONE_NAME}.__path__
'''


def renamed(source: str, rooms: list[str]) -> str:
    """The text of one of the program's files as it stands in the wheel.

    Args:
      source: the text in the clone.
      rooms: names of the program's files and folders: `train.data` is a module's name,
        in a string or a comment too, and `options.train` or "train.csv" is none.
    """
    module = rf"(?<![\w./-]){CLONE_NAME}(?=[./](?:{'|'.join(rooms)})\b)"
    text = re.sub(module, NAME, source)
    statement = rf"^(\s*(?:from|import)\s+){CLONE_NAME}(?=\s|$)"
    text = re.sub(statement, rf"\g<1>{NAME}", text, flags=re.MULTILINE)
    return text.replace(CLONE_COMMAND, COMMAND)


def copy_renamed(program: Path, target: Path) -> None:
    """Copies the program's folder, its Python files renamed."""
    rooms = sorted(path.stem for path in program.iterdir() if path.name[0] not in "_.")
    unwanted = shutil.ignore_patterns("__pycache__", ".*")
    shutil.copytree(program, target, ignore=unwanted)
    for path in target.rglob("*.py"):
        source = path.read_text(encoding="utf-8")
        path.write_text(renamed(source, rooms), encoding="utf-8")


class CustomBuildHook(BuildHookInterface):
    """Hands hatch a renamed copy, or for an editable installation an alias."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Makes the files in a folder that lives as long as the build."""
        self._folder = tempfile.TemporaryDirectory(prefix=f"{NAME}-")
        package = Path(self._folder.name) / NAME
        if version == "editable":
            package.mkdir()
            (package / "__init__.py").write_text(_ALIAS)
            build_data["force_include_editable"][str(package)] = NAME
        else:
            copy_renamed(Path(self.root) / CLONE_NAME, package)
            build_data["force_include"][str(package)] = NAME

    def finalize(self, *_: Any) -> None:
        """Removes them."""
        self._folder.cleanup()
