"""The shape of the house: who imports whom, and what the library needs."""

import ast
import pathlib
import re
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# A file imports only from files above it.
ORDER = [
    "precision",
    "coordinates",
    "rectangle",
    "distances",
    "overlap",
    "pixels",
    "coverage",
    "rendering",
    "gating",
    "similarity",
    "warping",
    "equivariance",
    "moments",
    "trunk",
    "predictors",
    "attention",
    "channel_attention",
    "baselines",
    "losses",
    "backbones",
    "explain",
    "pictures",
    "drawing",
]


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


def rooms(names: set[str]) -> set[str]:
    """The second parts of cram_jax.ROOM[...]."""
    found = {n.split(".")[1] for n in names if n.startswith("cram_jax.")}
    return found & set(ORDER)


def test_every_library_file_has_its_place_in_the_order():
    files = {p.stem for p in (ROOT / "cram_jax").glob("*.py")} - {"__init__"}
    folders = {p.parent.name for p in (ROOT / "cram_jax").glob("*/__init__.py")}
    assert files | folders == set(ORDER)


@pytest.mark.parametrize("room", ORDER)
def test_library_files_import_only_from_above(room):
    paths = [ROOT / "cram_jax" / f"{room}.py"]
    if not paths[0].exists():
        paths = sorted((ROOT / "cram_jax" / room).glob("*.py"))
    above = set(ORDER[: ORDER.index(room)]) | {room}
    for path in paths:
        names = imported(path)
        assert rooms(names) <= above, f"{path.name} imports {rooms(names) - above}"
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
