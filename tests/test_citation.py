"""How to cite: what CITATION.cff says agrees with the rest of the repository."""

import pathlib
import re
import tomllib

ROOT = pathlib.Path(__file__).parent.parent


def test_the_version_and_licence_are_the_packages():
    text = (ROOT / "CITATION.cff").read_text()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert re.findall(r"(?m)^version: (.+)$", text) == [project["version"]]
    assert re.findall(r"(?m)^license: (.+)$", text) == [project["license"]]


def test_the_paper_is_the_one_that_the_readme_names():
    text, readme = ((ROOT / n).read_text() for n in ("CITATION.cff", "README.md"))
    (paper,) = re.findall(r"https://arxiv.org/abs/[\d.]+", text)
    assert paper in readme
    names = re.findall(r"family-names: (\w+)", text)
    assert ", ".join(names[:-1]) + f" and {names[-1]}" in readme.replace("\n", " ")
