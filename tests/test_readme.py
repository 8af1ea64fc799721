"""What the README and the pages of docs/ show is run as it stands there."""

import pathlib
import re

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from cram_jax import Rectangle, RectangularAttention, attended_rectangles

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("results/*.md")]
)
SHOWN = [
    page
    for page in PAGES
    if "```python" in page.read_text()
    # In tests/train/use/, and in tests/test_docs.py.
    and page.stem not in ("using", "cam", "extend", "detection")
]


@pytest.mark.parametrize("page", SHOWN, ids=lambda page: page.name)
def test_python_blocks_run_and_show_a_rectangle(page, capsys):
    names: dict = {}
    for block in re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL):
        exec(block, names)
    assert names["logits"].shape == (8, 10)
    printed = capsys.readouterr().out
    assert "{'attention': Rectangle(" in printed
    leaves = jax.tree.leaves(names.get("gradient", {}))
    assert all(jnp.isfinite(leaf).all() for leaf in leaves)


def test_layer_wrapped_for_nnx_as_described():
    features = jax.random.normal(jax.random.key(0), (2, 8, 8, 3))
    layer = nnx.bridge.ToNNX(RectangularAttention(), rngs=nnx.Rngs(0))
    layer.lazy_init(features)
    nnx.pop(layer, nnx.Intermediate)
    gated = layer(features, mutable=["intermediates"])
    assert gated.shape == features.shape
    sown = nnx.to_pure_dict(nnx.pop(layer, nnx.Intermediate))
    (rectangle,) = attended_rectangles(sown).values()
    assert isinstance(rectangle, Rectangle)

    @nnx.jit
    def loss_gradient(layer, features):
        return nnx.grad(lambda layer: jnp.sum(layer(features) ** 2))(layer)

    gradient = loss_gradient(layer, features)
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_that_a_page_links_to_exist(page):
    links = re.findall(r"\]\((?!http)([^)#]+)\)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_the_readme_is_read_in_a_hurry():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120
