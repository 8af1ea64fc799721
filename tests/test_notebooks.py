"""The notebooks run from top to bottom, as they are, in a kernel of their own."""

import ast
import pathlib

import nbformat
import pytest
from nbclient import NotebookClient

from tests import compilation

ROOT = pathlib.Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# What replaces the cell tagged "parameters": a few steps show that it runs.
SMALL = {"02_equivariance": "STEPS = 3\nBATCH = 4"}


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(path):
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def test_the_notebooks_are_found():
    assert [path.stem for path in NOTEBOOKS] == ["01_rectangle", "02_equivariance"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_installs_what_is_missing_and_imports_the_public_api_only(path):
    first, *others = code_cells(path)
    assert "importlib.util.find_spec" in first.source
    assert "jax==" not in first.source
    public = {"cram_jax", "cram_jax.backbones", "cram_jax.drawing"}
    for cell in others:
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom) and node.module:
                if node.module.split(".")[0] in ("cram_jax", "train", "benchmarks"):
                    assert node.module in public
                assert not any(name.name.startswith("_") for name in node.names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    for cell in code_cells(path):
        assert cell.outputs == []
        assert cell.execution_count is None


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_and_shows_pictures(path, monkeypatch, tmp_path):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("XLA_FLAGS", compilation.flags())
    notebook = read(path)
    for cell in notebook.cells:
        if "parameters" in cell.metadata.get("tags", []):
            cell.source = SMALL[path.stem]
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        notebook, timeout=1200, kernel_name="python3", resources=resources
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    pictures = [output for output in outputs if "image/png" in output.get("data", {})]
    assert len(pictures) >= 5
    # A warning in a visitor's first notebook is a defect.
    errors = [o for o in outputs if o.get("name") == "stderr" and "Warning" in o.text]
    assert errors == []
