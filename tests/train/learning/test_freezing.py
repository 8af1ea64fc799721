"""What is frozen, and patterns that freeze or scale nothing."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cram_jax
from cram_jax.backbones import BACKBONES
from tests.cram_jax.test_settings import SMALL
from tests.tiny_runs import tiny_arguments, tiny_network, write_images
from train.__main__ import main
from train.commands.models import network_parts
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.errors import WRONG_USE, UserError
from train.learning.network import parameter_paths
from train.learning.optimizer import check_patterns

PATHS = (
    "attention1/mask_predictor/trunk/kernel",
    "head/dense/kernel",
    "stage1_conv1/norm/scale",
    "stage2_conv1/conv/kernel",
)


def settings(freeze=None, scales=(), **more):
    return OptimizerConfig(freeze=freeze, scales=tuple(scales), **more)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (settings("^layer1"), r"freeze.*'\^layer1'.*stage1_conv1"),
        (settings("^stage1_conv2"), r"freeze.*Near it are: .*stage1_conv1"),
        (settings("^Stage1"), "freeze"),
        (settings(scales=[("^stage", 0.1), ("^block", 0.1)]), r"scales.*'\^block'"),
        (settings("^stage", [("^hed", 0.1)]), r"scales.*'\^hed'.*head"),
        (settings(""), "leaves no parameter to train"),
        (settings("."), "leaves no parameter"),
        (settings(scales=[("kernel|scale", 0.0)]), "leaves no parameter"),
        (settings("^(stage|head)", predictor_scale=0.0), "leaves no parameter"),
    ],
)
def test_patterns_that_do_nothing_or_all_are_refused(config, message):
    with pytest.raises(UserError, match=message) as caught:
        check_patterns(config, PATHS)
    assert "\n" not in str(caught.value)


def test_patterns_that_match_are_taken():
    for config in (
        settings(),
        settings("^$"),  # freezes nothing, where a preset would freeze
        settings("^stage1", [("conv", 0.1), ("head", 0.0)]),
    ):
        check_patterns(config, PATHS)


@pytest.mark.parametrize(
    "wrong", [("--optimizer.freeze=^layer1",), ("--optimizer.scales", "^layer1", "0.1")]
)
def test_fit_refuses_them_before_it_writes_anything(tmp_path, capsys, wrong):
    folder = write_images(tmp_path / "images")
    assert main(tiny_arguments(folder, tmp_path / "run", *wrong)) == WRONG_USE
    error = capsys.readouterr().err
    assert "layer1" in error
    assert "stage1_conv1" in error
    assert not (tmp_path / "run").exists()


def test_fit_refuses_to_freeze_statistics_that_are_not_there(tmp_path, capsys):
    folder = write_images(tmp_path / "images")
    arguments = tiny_arguments(folder, tmp_path / "run", "--optimizer.freeze-norm")
    assert main(arguments) == WRONG_USE
    assert "model.pretrained" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


class Drops(nn.Module):
    """A layer with a BatchNorm and a dropout of its own."""

    dtype: object = None
    param_dtype: object = jnp.float32

    @nn.compact
    def __call__(self, features, *, train=False):
        features = nn.BatchNorm(use_running_average=not train, name="extra")(features)
        return nn.Dropout(0.5, deterministic=not train)(features)


@pytest.mark.parametrize("name", ["convnet", "resnet18", "mobilenetv3-small"])
def test_only_the_backbones_statistics_stand_still(name):
    make = functools.partial(
        BACKBONES[name], **SMALL.get(name, {}), freeze_norm=True, attention=Drops
    )
    network = make(2, attention_stages=(2,))
    x = jax.random.normal(jax.random.key(0), (4, 32, 32, 3)) + 1.0
    variables = jax.jit(network.init)(jax.random.key(1), x)
    run = jax.jit(functools.partial(network.apply, train=True, mutable=["batch_stats"]))
    logits, after = run(variables, x, rngs={"dropout": jax.random.key(2)})
    for path, before in jax.tree.leaves_with_path(variables["batch_stats"]):
        leaf = after["batch_stats"]
        for entry in path:
            leaf = leaf[entry.key]
        own = "extra" in jax.tree_util.keystr(path)
        assert np.array_equal(before, leaf) != own, path
    again, _ = run(variables, x, rngs={"dropout": jax.random.key(3)})
    assert (logits != again).any()


def test_the_program_freezes_the_backbone_only():
    model = tiny_network(ModelConfig(), freeze_norm=True)
    assert model.freeze_norm
    layer = tiny_network(ModelConfig(attention="coordinate"), freeze_norm=True)
    x = jax.random.normal(jax.random.key(0), (4, 16, 16, 3)) + 1.0
    variables = jax.jit(layer.init)(jax.random.key(1), x)
    _, after = layer.apply(variables, x, train=True, mutable=["batch_stats"])
    moved = {
        jax.tree_util.keystr(path, simple=True, separator="/").split("/")[0]
        for (path, a), b in zip(
            jax.tree.leaves_with_path(after["batch_stats"]),
            jax.tree.leaves(variables["batch_stats"]),
            strict=True,
        )
        if not np.array_equal(a, b)
    }
    assert moved
    assert all(name.startswith("attention") for name in moved)


@pytest.mark.slow
def test_describing_a_network_leaks_no_tracer():
    # `JAX_CHECK_TRACER_LEAKS=1 fit` failed here; or JAX's search for who holds the
    # tracer found no end.
    network = BACKBONES["convnet"](
        2,
        attention=cram_jax.RectangularAttention,
        attention_stages=(1,),
        **SMALL["convnet"],
    )
    with jax.checking_leaks():
        parts, parameters, _ = network_parts(network, (12, 12, 3))
        assert parameter_paths(network, (12, 12, 3))
    assert parameters == sum(part.parameters for part in parts)
