"""The pages of docs/: every public name is on one, and their commands exist.

`make docs` builds them; what follows needs no Sphinx. That their links lead somewhere,
and that the Python of the README and of docs/layer.md runs, is in test_readme.py.
"""

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
import shlex
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import cram_jax
from cram_jax import ATTENTIONS, attended_masks
from cram_jax.backbones import BACKBONES
from tests.test_rooms import ROOMS
from train.__main__ import COMMANDS
from train.commands.budget.options import CurveConfig, parse_curve
from train.commands.options import (
    DataReportConfig,
    EvaluateConfig,
    ExportConfig,
    ModelsConfig,
    PredictConfig,
    ReportConfig,
    parse,
    parse_data,
    parse_fit,
)
from train.commands.options.parsing import option_names
from train.config.run import FitConfig
from train.data.sources.opening import SOURCES
from train.errors import UserError
from train.tasks.registry import TASKS

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.md"))
API = sorted(DOCS.glob("api/*.rst"))
SHOWN = [ROOT / "README.md", *PAGES]
OURS = ("cram_jax", "train")

OTHERS = {
    "evaluate": EvaluateConfig,
    "predict": PredictConfig,
    "report": ReportConfig,
    "export": ExportConfig,
    "models": ModelsConfig,
}


# Names.


def documented() -> Counter[str]:
    """How often an API page documents each name, by its dotted place."""
    directive = r"^\.\. (?:auto(?:function|class)|py:data):: (\S+)$"
    return Counter(
        name
        for page in API
        for name in re.findall(directive, page.read_text(), re.MULTILINE)
    )


def public() -> dict[str, object]:
    """Every public object by its place: the package's, its folders', `train.use`'s."""
    found: dict[str, object] = {}
    folders = [f"cram_jax.{m.name}" for m in pkgutil.iter_modules(cram_jax.__path__)]
    for name in ["cram_jax", *folders, "train.use"]:
        module = importlib.import_module(name)
        for public_name in getattr(module, "__all__", ()):
            # The package's own name comes before that of its folder.
            if public_name in cram_jax.__all__:
                home = "cram_jax"
                assert getattr(module, public_name) is getattr(cram_jax, public_name)
            else:
                home = name
            found[f"{home}.{public_name}"] = getattr(module, public_name)
    return found


def test_every_public_name_is_on_one_page():
    pages, names = documented(), public()
    assert len(names) > 90
    assert not names.keys() - pages.keys(), "no API page has these"
    assert not [name for name, count in pages.items() if count > 1]


def test_every_name_on_a_page_is_there():
    for place in documented():
        module, _, name = place.rpartition(".")
        assert hasattr(importlib.import_module(module), name), place


def test_the_index_shows_every_page():
    index = (DOCS / "index.md").read_text()
    (*trees,) = re.findall(r"```\{toctree\}\n(.*?)```", index, re.DOTALL)
    entries = re.findall(r"^(?:.* <)?(/?[\w/]+)>?$", "\n".join(trees), re.MULTILINE)
    shown = {
        (DOCS / entry.replace("/results", "../results")).resolve() for entry in entries
    }
    there = {*PAGES, *API, *ROOT.glob("results/*.md")} - {DOCS / "index.md"}
    assert not {page.name for page in there if page.with_suffix("") not in shown}


# Examples.


@pytest.mark.parametrize("page", API, ids=lambda page: page.stem)
def test_examples_of_an_api_page_show_what_happens(page):
    failed, _ = doctest.testfile(str(page), module_relative=False)
    assert failed == 0


def test_examples_in_docstrings_show_what_happens():
    for found in pkgutil.walk_packages(cram_jax.__path__, "cram_jax."):
        failed, _ = doctest.testmod(importlib.import_module(found.name))
        assert failed == 0, found.name


def python_blocks(page: Path) -> list[str]:
    """Python and executed cells of a page, without the cells' options."""
    fences = r"```(?:python|\{code-cell\} python)\n(?::[^\n]*\n)*(.*?)```"
    return re.findall(fences, page.read_text(), re.DOTALL)


@pytest.fixture
def tables_kept():
    """What a page adds to a table of the packages is taken out again."""
    tables: list[dict[str, Any]] = [ATTENTIONS, BACKBONES, SOURCES, TASKS]
    before = [(table, dict(table)) for table in tables]
    yield
    for table, entries in before:
        table.clear()
        table.update(entries)


@pytest.mark.parametrize("name", ["cam", "detection", "extend"])
@pytest.mark.usefixtures("tables_kept")
def test_python_of_a_page_runs(name):
    names: dict = {"__name__": "a_page"}
    for block in python_blocks(DOCS / f"{name}.md"):
        exec(block, names)
    if name == "cam":
        assert names["picture"].shape == (192, 192, 3)
        assert names["maps"].on_image.shape == names["sevens"].on_image.shape
    elif name == "detection":
        assert len(names["matches"].scores) == 1
    else:
        assert {"rows", "rectangular-square"} <= ATTENTIONS.keys()
        source = names["open_stripes"](None, "train", None)
        assert {source[i].label for i in range(4)} == {0, 1}
        assert source[0].image.shape == (32, 32, 1)
        assert set(attended_masks(names["variables"])) <= {"attention1"}
        assert names["logits"].shape == (2, 10)
        assert TASKS["focal"](FitConfig()).name == "focal"


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_python_of_a_page_takes_public_names_that_exist(page):
    for block in python_blocks(page):
        for node in ast.walk(ast.parse(block)):
            match node:
                case ast.ImportFrom(module=str(name)) if name.startswith(OURS):
                    module = importlib.import_module(name)
                    assert all(hasattr(module, each.name) for each in node.names)
                case ast.Attribute(value=ast.Name(id="cram_jax"), attr=name):
                    assert name in cram_jax.__all__


# Commands.


def code_of(page: Path) -> list[str]:
    """Lines of code blocks, and code in sentences, each on one line."""
    fence = r"```[^\n]*\n(.*?)```"
    text = page.read_text().replace("\\\n", " ")
    lines = "\n".join(re.findall(fence, text, re.DOTALL)).splitlines()
    prose = re.sub(fence, "", text, flags=re.DOTALL)
    return lines + [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", prose)]


def commands_of(page: Path) -> list[str]:
    """What stands after `python -m train`, once each."""
    found = (re.search(r"python -m train (\w[^\"#&]*)", line) for line in code_of(page))
    return sorted({match[1].strip() for match in found if match})


def check_command(words: list[str]) -> None:
    """Parses a command as the program does."""
    command, *rest = words
    if not rest or "--help" in rest:
        assert command in COMMANDS
    elif command in OTHERS:
        parse(OTHERS[command], command, rest)
    else:
        {"fit": parse_fit, "data": parse_data, "budget": parse_curve}[command](rest)


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_commands_of_a_page_are_understood(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no run is
    for command in commands_of(page):
        try:
            check_command(shlex.split(command))
        except (SystemExit, UserError, KeyError) as error:
            pytest.fail(f"{page.name}: python -m train {command}: {error}")


def test_commands_are_found_and_wrong_ones_are_not_understood():
    assert len(commands_of(DOCS / "training.md")) >= 6
    with pytest.raises(UserError, match="Did you mean"):
        check_command(["fit", "--batch-sise", "3"])
    with pytest.raises((SystemExit, UserError)):
        check_command(["export", "--workdir", "x", "--to", "onnx"])


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_options_in_sentences_exist(page):
    kinds = [CurveConfig, DataReportConfig, *OTHERS.values()]
    known = {name for kind in kinds for name in option_names(kind)}
    known |= {"--preset", "--help"}
    for span in code_of(page):
        for word in span.split() if span.startswith("--") else ():
            if word.endswith(".*"):
                assert any(name.startswith(word[:-1]) for name in known), word
            elif word.startswith("--"):
                assert word in known, word


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.stem)
def test_what_else_is_typed_is_there(page):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    makefile = (ROOT / "Makefile").read_text()
    for line in code_of(page):
        for named in re.findall(r"pip install .*?\.\[([\w,-]+)\]", line):
            assert set(named.split(",")) <= extras["optional-dependencies"].keys(), line
        for target in re.findall(r"^make (\w[\w-]*)$", line.split("#")[0].strip()):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), line
        for module in re.findall(r"-m benchmarks\.(\w+)", line):
            assert (ROOT / "benchmarks" / f"{module}.py").exists(), line
        for path in re.findall(r"(?:examples|notebooks|results)/\w+\.\w+", line):
            assert (ROOT / path).exists(), line


# Pictures.


def drawn() -> Any:
    spec = importlib.util.spec_from_file_location("d", DOCS / "pictures/diagrams.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_diagrams_are_what_their_file_draws():
    for name, draw in drawn().PICTURES.items():
        assert (DOCS / "pictures" / name).read_text() == draw(), f"{name} is old"


def test_the_diagram_of_rooms_shows_the_rooms_in_their_order():
    for package, rooms in drawn().ROOMS.items():
        folders = [room for room in ROOMS[package] if (ROOT / package / room).is_dir()]
        assert [name for name, _ in rooms] == folders
