"""The shape of the house: who imports whom, and what the library needs."""

import ast
import graphlib
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
        "use",
        "commands",
    ),
}
EVERY_ROOM = [(package, room) for package, rooms in ROOMS.items() for room in rooms]


def imported(path: pathlib.Path, *, also_for_types: bool = True) -> set[str]:
    """Dotted names of all modules that a file imports, at any depth."""
    names, tree = set(), ast.parse(path.read_text())
    only_types = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in only_types and not also_for_types:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: write absolute imports"
            names.add(node.module or "")
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def folders_of(package: str) -> list[pathlib.Path]:
    inits = (ROOT / package).rglob("*/__init__.py")
    return sorted(init.parent for init in inits if init.parent != ROOT / package)


def built_on(folder: pathlib.Path) -> dict[str, set[str]]:
    """For each file and folder in a folder the others that it imports."""
    name = ".".join(folder.relative_to(ROOT).parts)
    parts = {path.stem: [path] for path in folder.glob("*.py")} | {
        path.parent.name: list(path.parent.rglob("*.py"))
        for path in folder.glob("*/__init__.py")
    }
    del parts["__init__"]
    return {
        part: {
            other
            for file in files
            for other in parts
            if other != part
            and any(
                f"{found}.".startswith(f"{name}.{other}.")
                for found in imported(file, also_for_types=False)
            )
        }
        for part, files in parts.items()
    }


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


@pytest.mark.parametrize("package", ROOMS)
def test_files_of_a_folder_do_not_import_in_circles(package):
    for folder in folders_of(package):
        files = built_on(folder)
        order = list(graphlib.TopologicalSorter(files).static_order())
        assert set(files) <= set(order), f"{folder} imports in circles"


@pytest.mark.parametrize("folder", folders_of("cram_jax"), ids=lambda path: path.name)
def test_files_are_built_on_those_that_their_folder_names_before(folder):
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    listed = re.search(r"Files, each built on those before it:([\w\s,]+)\.", text)
    assert listed, f"{folder.name}/__init__.py does not name its files in order"
    order = re.findall(r"\w+", listed[1])
    found = built_on(folder)
    assert sorted(order) == sorted(found)
    for place, name in enumerate(order):
        assert found[name] <= set(order[:place]), name


def test_files_and_functions_stay_short():
    for folder in ("cram_jax", "train", "benchmarks"):
        for path in (ROOT / folder).rglob("*.py"):
            text, name = path.read_text(), path.relative_to(ROOT)
            lines = text.count("\n")
            assert lines <= 250, f"{name} has {lines} lines"
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.FunctionDef):
                    lines = (node.end_lineno or 0) - node.lineno + 1
                    assert lines <= 50, f"{node.name} in {name} has {lines} lines"


def test_no_folder_of_the_program_is_crowded():
    for folder in (ROOT / "train").rglob("__init__.py"):
        files = list(folder.parent.glob("*.py"))
        assert len(files) <= 12, f"{folder.parent} has {len(files)} files"


def test_names_in_a_work_directory_stand_in_one_file():
    from train.run import layout

    names = {value for name, value in vars(layout).items() if name.isupper()}
    names = {name for name in names if isinstance(name, str) and "." in name}
    assert {"config.json", "metrics.jsonl", "in-use.json"} <= names
    for path in (ROOT / "train").rglob("*.py"):
        if path.name == "layout.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant):
                assert node.value not in names, f"{path}: {node.value}"


def docstrings(path: pathlib.Path) -> list[str]:
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    tree = ast.walk(ast.parse(path.read_text()))
    return [ast.get_docstring(n) or "" for n in tree if isinstance(n, kinds)]


@pytest.mark.parametrize("package", ["cram_jax", "train", "benchmarks", "examples"])
def test_docstring_lines_have_a_subject(package):
    for path in (ROOT / package).rglob("*.py"):
        for line in "\n".join(docstrings(path)).splitlines():
            headless = re.match(r"\s*(\w+: )?([Oo]f |[Ll]ikewise)", line)
            assert not headless, f"{path.relative_to(ROOT)}: {line.strip()}"


def test_import_needs_only_jax_flax_numpy_and_is_quick():
    # Seconds beyond importing jax and flax, and the top-level modules beyond theirs.
    code = (
        "import sys, time, jax, flax.linen\n"
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
