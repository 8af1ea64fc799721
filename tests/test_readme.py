"""What the README shows is run as it stands there."""

import pathlib
import re

import jax
import jax.numpy as jnp
from flax import nnx

from cram_jax import Rectangle, RectangularAttention, attended_rectangles

README = (pathlib.Path(__file__).parent.parent / "README.md").read_text()


def test_python_blocks_run_and_show_a_rectangle(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    names: dict = {}
    for block in blocks:
        exec(block, names)
    assert names["logits"].shape == (8, 10)
    printed = capsys.readouterr().out
    assert "RectangularAttention_0" in printed
    assert "Rectangle(" in printed


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


def test_files_that_the_readme_links_to_exist():
    root = pathlib.Path(__file__).parent.parent
    links = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    assert links
    missing = [link for link in links if not (root / link).exists()]
    assert not missing
