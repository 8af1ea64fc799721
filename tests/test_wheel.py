"""What the wheel holds: the library, and the program under a name of its own.

`make test-wheel` installs it in a fresh environment and trains away from the clone.
"""

import ast
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from hatch_build import _ALIAS, COMMAND, NAME, renamed
from tests.test_rooms import ROOT, imported

# Imports all modules of the program, and what it names by "MODULE:FUNCTION".
IMPORT_ALL = f"""
import importlib, pkgutil, re, sys
from pathlib import Path
sys.path = [path for path in sys.path if path and Path(path) != Path({str(ROOT)!r})]
sys.path.insert(0, sys.argv[1])
import {NAME}
for found in pkgutil.walk_packages({NAME}.__path__, "{NAME}."):
    importlib.import_module(found.name)
for path in Path({NAME}.__path__[0]).rglob("*.py"):
    for module, function in re.findall(r'"({NAME}[\\w.]+):(\\w+)"', path.read_text()):
        getattr(importlib.import_module(module), function)
        print("opened")
assert not {{"train", "tests"}} & sys.modules.keys()
print({NAME}.__main__.main(["--help"]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The folder that a wheel of the clone was unpacked into."""
    built = tmp_path_factory.mktemp("built")
    words = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", built]
    subprocess.run(words, check=True, cwd=ROOT, capture_output=True)
    (file,) = built.iterdir()
    with zipfile.ZipFile(file) as content:
        content.extractall(built / "content")
    return built / "content"


def python_files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*.py")}


def run(*words: str | Path, **variables: str) -> str:
    result = subprocess.run(
        [sys.executable, *words],
        capture_output=True,
        text=True,
        cwd=Path(sys.prefix),
        env=os.environ | variables,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_wheel_holds_the_library_and_the_program(wheel):
    (information,) = wheel.glob("*.dist-info")
    names = {path.name for path in wheel.iterdir()}
    assert names == {"cram_jax", NAME, information.name}
    assert python_files(wheel / "cram_jax") == python_files(ROOT / "cram_jax")
    assert python_files(wheel / NAME) == python_files(ROOT / "train")
    entries = (information / "entry_points.txt").read_text().split()
    assert entries == ["[console_scripts]", COMMAND, "=", f"{NAME}.__main__:main"]


def test_files_differ_from_the_clones_by_two_names_only(wheel):
    for path in (wheel / NAME).rglob("*.py"):
        text, original = (
            path.read_text(),
            ROOT / "train" / path.relative_to(wheel / NAME),
        )
        tops = {name.partition(".")[0] for name in imported(path)}
        assert not {"train", "tests", "benchmarks"} & tops, path
        assert not re.search(r"python -m train|[\"'`]train\.\w+\.\w", text), path
        back = text.replace(NAME, "train").replace(COMMAND, "python -m train")
        assert back == original.read_text()
        ast.parse(text)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("from train.data import x", "from cram_jax_train.data import x"),
        ("    import train.data.views", "    import cram_jax_train.data.views"),
        ("import train", "import cram_jax_train"),
        ("from train import data", "from cram_jax_train import data"),
        ('"train.data.views:View"', '"cram_jax_train.data.views:View"'),
        ("see `train/data/views.py`", "see `cram_jax_train/data/views.py`"),
        ("`python -m train fit`", "`cram-jax-train fit`"),
    ],
)
def test_the_programs_name_is_replaced(before, after):
    assert renamed(before, ["data", "run"]) == after


@pytest.mark.parametrize(
    "text",
    [
        "from train_data import x",
        "import trainer",
        "constrain.data",
        "options.train.data",
        "a/train/data/0.png",
        "train/cat/0.png",
        '"train.csv"',
        'splits["train"].data',
        "pip install 'cram-jax[train]'",
        "train = find(train)",
        "x = train.run_time",
    ],
)
def test_what_only_looks_like_it_stays(text):
    assert renamed(text, ["data", "run"]) == text


def test_the_program_of_the_wheel_needs_nothing_of_the_clone(wheel):
    said = run("-c", IMPORT_ALL, wheel)
    assert said.count("opened") >= 3
    assert f"usage: {COMMAND} SUBCOMMAND" in said
    assert said.endswith("\n0\n")


def test_an_editable_installation_knows_the_name_too(tmp_path):
    (tmp_path / NAME).mkdir()
    (tmp_path / NAME / "__init__.py").write_text(_ALIAS)
    places = os.pathsep.join(map(str, (tmp_path, ROOT)))
    entry = f"import sys; from {NAME}.__main__ import main; sys.exit(main())"
    for words in (["-m", NAME], ["-c", entry]):
        said = run(*words, "--help", PYTHONPATH=places)
        assert "usage: python -m train SUBCOMMAND" in said
