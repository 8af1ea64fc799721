"""How Sphinx builds the site; `make docs` calls it.

The source directory is the root of the clone, not this folder: so pages here link to
results/, notebooks/ and the code by the same relative links on the site and on a forge,
and a study is shown where it lies, not copied.
"""

import os
import pathlib
import sys

DOCS = pathlib.Path(__file__).parent
sys.path[:0] = [str(DOCS), str(DOCS.parent)]
# Cells and autodoc run on a CPU, also on a machine with an accelerator.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ["PYTHONPATH"] = str(DOCS.parent)
# The usual kernel, which does not warn of a network that it does not leave.
os.environ["JUPYTER_PATH"] = str(DOCS / "_kernel")

project = "cram_jax"
author = "The cram_jax contributors"
copyright = author

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "docstrings",
]
root_doc = "docs/index"
include_patterns = [
    "docs/**",
    "results/*.md",
    "notebooks/*.ipynb",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
]
exclude_patterns = [
    ".*",
    "**/.*",
    "build",
    "cram_jax",
    "data",
    "dist",
    "docs/_build",
    "docs/_site",
    "docs/_static",
    "runs",
    "tests",
    "train",
]

# An error in a cell ends the build.
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 600
nb_merge_streams = True
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
# Docstrings name the types where they matter, with their shapes.
autodoc_typehints = "none"
napoleon_numpy_docstring = False
napoleon_attr_annotations = False
napoleon_custom_sections = [("Attributes", "params_style")]
napoleon_use_rtype = False
add_module_names = False
nitpick_ignore_regex = [
    # What belongs to others, or is one of our type aliases.
    ("py:.*", r"(jax|jaxlib|flax|numpy|np|nn|pathlib|typing|collections|abc)\b.*"),
    # The program's, of which only `train.use` has a page.
    ("py:.*", r"train\..*|(User|UnreadableImage|NoAnswer)Error"),
]

html_theme = "sphinx_book_theme"
html_title = "cram_jax"
html_extra_path = ["_site"]
html_static_path = ["_static"]
html_css_files = ["tables.css"]
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
html_theme_options = {
    "home_page_in_toc": True,
    "navbar_persistent": [],
    "show_navbar_depth": 1,
    "use_download_button": False,
}
