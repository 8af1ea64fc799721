"""The shape of the house: who imports whom, and what the library needs."""

import ast
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A file imports only from its own room and from rooms above it.
ROOMS = {
    "cram_jax": (
        "numerics",
        "checks",
        "geometry",
        "attention",
        "losses",
        "heads",
        "backbones",
        "explain",
        "drawing",
    ),
    "train": (
        "errors",
        "printing",
        "files",
        "config",
        "data",
        "tasks",
        "evidence",
        "learning",
        "run",
        "commands",
    ),
}
EVERY_ROOM = [(package, room) for package, rooms in ROOMS.items() for room in rooms]


def imported(path: pathlib.Path) -> set[str]:
    """Dotted names of all modules that a file imports, at any depth."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def files_of(package: str, room: str) -> list[pathlib.Path]:
    file = ROOT / package / f"{room}.py"
    return [file] if file.exists() else sorted((ROOT / package / room).rglob("*.py"))


def rooms_of(package: str, names: set[str]) -> set[str]:
    """The second parts of PACKAGE.ROOM[...]."""
    found = {n.split(".")[1] for n in names if n.startswith(f"{package}.")}
    return found & set(ROOMS[package])


@pytest.mark.parametrize("package", ROOMS)
def test_every_file_has_its_place_in_the_order(package):
    folder = ROOT / package
    files = {path.stem for path in folder.glob("*.py")} - {"__init__", "__main__"}
    folders = {path.parent.name for path in folder.glob("*/__init__.py")}
    assert files | folders <= set(ROOMS[package])


@pytest.mark.parametrize(("package", "room"), EVERY_ROOM)
def test_files_import_only_from_above(package, room):
    above = set(ROOMS[package][: ROOMS[package].index(room)]) | {room}
    for path in files_of(package, room):
        names = imported(path)
        below = rooms_of(package, names) - above
        assert not below, f"{path.relative_to(ROOT)} imports {below}"
        if package == "cram_jax":
            assert not {n for n in names if n.split(".")[0] in ("train", "benchmarks")}


def test_files_stay_short():
    for folder in ("cram_jax", "train", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            lines = path.read_text().count("\n")
            assert lines <= 300, f"{path.relative_to(ROOT)} has {lines} lines"


def test_import_needs_only_jax_flax_numpy_chex_and_is_quick():
    # Seconds beyond importing jax and flax, and the top-level modules beyond theirs.
    code = (
        "import sys, time, jax, flax.linen, chex\n"
        "before = {n.split('.')[0] for n in sys.modules}\n"
        "start = time.perf_counter()\n"
        "import cram_jax\n"
        "seconds = time.perf_counter() - start\n"
        "after = {n.split('.')[0] for n in sys.modules}\n"
        "extra = after - before - {'cram_jax'} - set(sys.stdlib_module_names)\n"
        "print(seconds, sorted(extra))"
    )
    start = time.perf_counter()
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT
    )
    assert result.returncode == 0, result.stderr
    seconds, extra = result.stdout.strip().split(" ", 1)
    assert float(seconds) < 2, f"took {time.perf_counter() - start:.1f} s in all"
    assert extra == "[]"


def test_public_names_are_documented_and_lead_somewhere():
    import cram_jax

    assert cram_jax.__all__ == sorted(cram_jax.__all__)
    for name in cram_jax.__all__:
        documentation = getattr(cram_jax, name).__doc__
        assert documentation, f"{name} has no docstring"
        assert not re.match(rf"{name}\(", documentation), f"{name}: only a signature"
