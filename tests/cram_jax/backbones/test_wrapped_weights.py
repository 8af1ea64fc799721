"""Torch weights into a backbone that is a part of another network."""

from typing import Any

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.backbones import backbone, weights
from cram_jax.backbones.leaf_names import leaves_of, modules_of, names_in
from cram_jax.backbones.published import Naming
from cram_jax.backbones.registry import NAMINGS

CLASSES = 3
# Networks of one family differ in how often they repeat a block.
FAMILIES = (
    "convnet",
    "resnet18",
    "resnet50-small",
    "mobilenetv3-small",
    "efficientnet-b0",
    "efficientnet-lite0",
    "convnext-tiny",
)


class Seg(nn.Module):
    """Uses the maps, so the backbone has no classifier."""

    backbone: nn.Module
    head: nn.Module

    def __call__(self, images):
        return self.head(self.backbone.features(images)[-1])


class Ensemble(nn.Module):
    """Uses the logits of its members."""

    members: tuple[nn.Module, ...]

    @nn.compact
    def __call__(self, images):
        return sum(nn.Dense(2)(member(images)) for member in self.members)


def filled(network, first=1.0):
    """Variables whose leaves all differ, without computing anything."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    shapes = {key: shapes[key] for key in ("params", "batch_stats") if key in shapes}
    leaves, structure = jax.tree.flatten(shapes)
    values = [
        np.full(leaf.shape, first + i, np.float32) for i, leaf in enumerate(leaves)
    ]
    return jax.tree.unflatten(structure, values)


def file_of(variables, naming):
    """A state dict as the library of that naming would have saved it."""
    names = names_in(variables, naming)
    state = {}
    for path, leaf in leaves_of(variables):
        state[names[path]] = np.asarray(leaf if naming.ours else leaf.T)
        if leaf.ndim == 4 and not naming.ours:
            state[names[path]] = leaf.transpose(3, 2, 0, 1)
    return state


STYLES = [
    (name, number)
    for name in FAMILIES
    for number, naming in enumerate(NAMINGS)
    if naming.fits(modules_of(filled(backbone(name)(CLASSES))))
]


@pytest.mark.parametrize(("name", "number"), STYLES)
def test_a_headless_backbone_takes_all_but_the_classifier(name, number):
    bare = filled(backbone(name)(CLASSES))
    state = file_of(bare, NAMINGS[number])
    head = {n for n in state if n.startswith(NAMINGS[number].head)}
    attended = backbone(name)(
        CLASSES, attention=RectangularAttention, attention_stages=(2,)
    )
    wrapped = filled(Seg(attended, nn.Dense(2)), first=10_000.0)
    for at in ("", "backbone"):
        loaded, report = weights.load_state(state, wrapped, at=at)
        chex.assert_trees_all_equal_structs(loaded, wrapped)
        for key, tree in loaded.items():
            inner = tree["backbone"]
            before = wrapped[key]["backbone"]
            trunk = {k: v for k, v in inner.items() if not k.startswith("attention")}
            chex.assert_trees_all_equal(trunk, {k: bare[key][k] for k in trunk})
            assert "head" not in trunk
            assert set(bare[key]) - set(trunk) <= {"head"}
            for k in set(inner) - set(trunk):
                chex.assert_trees_all_equal(inner[k], before[k])
        chex.assert_trees_all_equal(loaded["params"]["head"], wrapped["params"]["head"])
        assert all(n.startswith("backbone/") for n in report.loaded)
        assert {"head/kernel", "head/bias"} <= set(report.kept)
        assert set(report.unused) == head


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3-small", "convnet"])
def test_a_backbone_with_its_classifier_is_found_in_a_list(name):
    bare = filled(backbone(name)(CLASSES))
    wrapped = filled(Ensemble((backbone(name)(CLASSES),)), first=10_000.0)
    state = weights.torch_state(bare)
    loaded, report = weights.load_state(state, wrapped)
    chex.assert_trees_all_equal(loaded["params"]["members_0"], bare["params"])
    assert set(report.kept) == {"Dense_0/kernel", "Dense_0/bias"}
    back = weights.torch_state(loaded)
    assert back.keys() == state.keys()
    assert all((back[key] == state[key]).all() for key in state)
    kept, report = weights.load_state(state, wrapped, keep_head=True)
    assert "members_0/head/dense/kernel" in report.kept
    chex.assert_trees_all_equal(
        kept["params"]["members_0"]["head"]["dense"],
        wrapped["params"]["members_0"]["head"]["dense"],
    )


def test_of_two_backbones_the_one_that_is_named_is_loaded():
    bare = filled(backbone("resnet18")(CLASSES))
    state = weights.torch_state(bare)
    members = backbone("resnet18")(CLASSES), backbone("resnet18")(CLASSES)
    network = Seg(Ensemble(members), nn.Dense(1))
    network = Ensemble((network.backbone,))
    wrapped = filled(network, first=10_000.0)
    one, other = "members_0/members_0", "members_0/members_1"
    with pytest.raises(ValueError, match=rf"{one} and {other}; say .*at='{one}'"):
        weights.load_state(state, wrapped)
    loaded, report = weights.load_state(state, wrapped, at=other)
    inner = loaded["params"]["members_0"]
    chex.assert_trees_all_equal(inner["members_1"], bare["params"])
    chex.assert_trees_all_equal(
        inner["members_0"], wrapped["params"]["members_0"]["members_0"]
    )
    assert all(name.startswith(f"{other}/") for name in report.loaded)
    with pytest.raises(ValueError, match=r"no module .members_2..*members_0"):
        weights.load_state(state, wrapped, at="members_2")


def test_what_does_not_fit_is_refused_inside_a_network_too():
    state = weights.torch_state(filled(backbone("resnet34")(CLASSES)))
    wrapped = filled(Seg(backbone("resnet18")(CLASSES), nn.Dense(2)))
    with pytest.raises(ValueError, match="is left over"):
        weights.load_state(state, wrapped)
    state = weights.torch_state(filled(backbone("convnet")(CLASSES)))
    with pytest.raises(ValueError, match="none of the known styles"):
        weights.load_state(state, wrapped)


class Own(nn.Module):
    @nn.compact
    def __call__(self, images):
        x = nn.Conv(4, (3, 3), name="first")(images)
        return nn.Dense(2, name="last")(x.mean((-3, -2)))


def test_a_network_of_ones_own_says_what_the_file_calls_its_leaves():
    variables = filled(Own())
    rng = np.random.default_rng(0)
    state: dict[str, Any] = {
        "net.conv.weight": np.float32(rng.normal(size=(4, 3, 3, 3))),
        "net.conv.bias": np.float32(rng.normal(size=4)),
        "net.fc.weight": np.float32(rng.normal(size=(2, 4))),
        "net.fc.bias": np.float32(rng.normal(size=2)),
    }
    with pytest.raises(ValueError, match=r"belong to no backbone.*naming="):
        weights.load_state(state, variables)

    def name(path, modules):
        del modules
        layer = {"first": "net.conv", "last": "net.fc"}[path[0]]
        return f"{layer}.{'bias' if path[-1] == 'bias' else 'weight'}"

    naming = Naming(lambda _: True, "net.conv.weight", name)
    loaded, _ = weights.load_state(state, variables, naming=naming)
    kernel = loaded["params"]["first"]["kernel"]
    assert (kernel == state["net.conv.weight"].transpose(2, 3, 1, 0)).all()
    wrapped = filled(Ensemble((Own(),)))
    loaded, _ = weights.load_state(state, wrapped, naming=naming, at="members_0")
    last = loaded["params"]["members_0"]["last"]["kernel"]
    assert (last == state["net.fc.weight"].T).all()
