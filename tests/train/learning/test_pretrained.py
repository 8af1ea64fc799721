"""Fine-tuning: what is loaded, how images are prepared, what stays and what moves."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cram_jax.backbones import backbone, weights
from cram_jax.backbones.preprocessing import preprocessing
from tests.checks import assert_close
from tests.tiny_runs import (
    SIDE,
    random_batch,
    tiny_arguments,
    tiny_config,
    tiny_experiment,
    tiny_network,
    write_images,
)
from train.__main__ import main
from train.config.data import DataConfig
from train.config.model import ModelConfig
from train.config.optimizer import OptimizerConfig
from train.data.preparation import channel_statistics, with_source_interpolation
from train.data.views import View, render_view
from train.errors import DONE, UserError
from train.learning.devices import JitParallel
from train.learning.steps import train_step

WIDTHS = (4, 4, 4)


def write_weights(path, *, classes=7, widths=WIDTHS):
    """A file of a bare network with random weights and statistics; its variables."""
    network = backbone("convnet")(classes, widths=widths)
    images = np.zeros((1, SIDE, SIDE, 3), np.float32)
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    generator = np.random.default_rng(0)
    variables = jax.tree.map(
        lambda leaf: generator.uniform(0.1, 1, leaf.shape).astype(np.float32), shapes
    )
    weights.save_safetensors(path, variables)
    return variables


def experiment_with(path, **optimizer):
    config = tiny_config(
        model=ModelConfig(widths=WIDTHS, attention_stages=(1,), pretrained=str(path)),
        optimizer=OptimizerConfig(learning_rate=1e-2, **optimizer),
    )
    return tiny_experiment(config, JitParallel(jax.devices()[:1]))


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(jax.device_get(tree))
    return {jax.tree_util.keystr(p, simple=True, separator="/"): v for p, v in leaves}


def test_a_run_starts_from_the_file_but_for_attention_and_a_new_head(tmp_path):
    variables = write_weights(tmp_path / "bare.safetensors")
    experiment = experiment_with(tmp_path / "bare.safetensors")
    messages = []
    fresh = flat(experiment.initial_state().params)
    started = experiment.pretrained_state(messages.append)
    statistics = flat(variables["batch_stats"])
    for name, value in flat(started.batch_stats).items():
        assert_close(value, statistics[name])
    file = flat(variables["params"])
    for name, value in flat(started.params).items():
        anew = name.startswith(("head", "attention1"))
        assert_close(value, (fresh if anew else file)[name])
    assert {name.split("/")[0] for name in fresh} >= {"head", "attention1"}
    assert "+ head/dense/kernel (ours, keeps its values)" in messages[0]
    assert "- head.dense.kernel (theirs, not used)" in messages[0]
    assert "+ attention1/" in messages[0]
    assert f"{len(file) - 2 + len(statistics)} arrays loaded" in messages[0]


def test_a_head_of_as_many_classes_is_loaded(tmp_path):
    variables = write_weights(tmp_path / "bare.safetensors", classes=3)
    experiment = experiment_with(tmp_path / "bare.safetensors")
    messages = []
    params = experiment.pretrained_state(messages.append).params
    head = variables["params"]["head"]["dense"]
    assert_close(params["head"]["dense"]["kernel"], head["kernel"])
    assert "head/" not in messages[0]


def test_weights_that_do_not_fit_are_refused_with_the_first_names(tmp_path):
    write_weights(tmp_path / "wide.safetensors", widths=(5, 4, 4))
    experiment = experiment_with(tmp_path / "wide.safetensors")
    with pytest.raises(UserError, match=r"! stage1_conv1\.\S+ has shape"):
        experiment.pretrained_state(print)
    experiment = experiment_with(tmp_path / "absent.safetensors")
    with pytest.raises(UserError, match="There is no weights file"):
        experiment.pretrained_state(print)
    with pytest.raises(ValueError, match="fit the backbone resnet18, got 'eff"):
        ModelConfig(backbone="resnet18", pretrained="efficientnet-lite0")


def test_fit_needs_the_file_only_once(tmp_path, capsys):
    write_weights(tmp_path / "bare.safetensors")
    folder = write_images(tmp_path / "images")
    more = f"--model.pretrained={tmp_path / 'bare.safetensors'}", "--epochs=1"
    arguments = tiny_arguments(folder, tmp_path / "run", *more)
    assert main(arguments) == DONE
    assert "arrays loaded" in capsys.readouterr().out
    (tmp_path / "bare.safetensors").unlink()
    assert main(arguments) == DONE
    assert "Going on from" in capsys.readouterr().out


def stepped(experiment, steps=1):
    state = experiment.initial_state()
    step = jax.jit(functools.partial(train_step, experiment))
    after = state
    for number in range(steps):
        after = step(after, random_batch(number, 8))
    return jax.device_get(state), jax.device_get(after)


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_statistics_stay_and_are_used(tmp_path, frozen):
    write_weights(tmp_path / "bare.safetensors")
    experiment = experiment_with(tmp_path / "bare.safetensors", freeze_norm=frozen)
    before = experiment.pretrained_state(print)
    batch = random_batch(0, 8)
    after = jax.jit(functools.partial(train_step, experiment))(before, batch)
    old, new = flat(before.batch_stats), flat(after.batch_stats)
    assert old.keys() == new.keys()
    assert all(np.array_equal(old[name], new[name]) == frozen for name in old)
    # The loss of the step is the one of evaluation mode only if it used them.
    logits: Any = experiment.model.apply(
        {"params": before.params, "batch_stats": before.batch_stats}
        | experiment.schedule(before.step),
        experiment.normalise(jnp.asarray(batch["image"]) / 255),
    )
    log_probabilities = jax.nn.log_softmax(logits)
    rows = np.arange(8)
    loss = -float(np.mean(np.asarray(log_probabilities)[rows, batch["label"]]))
    same = np.isclose(float(after.window["loss"]) / 8, loss, rtol=1e-3)
    assert same == frozen
    moved = flat(jax.tree.map(lambda a, b: a - b, before.params, after.params))
    assert np.any(moved["stage2_conv1/norm/scale"])


def convolutions(experiment):
    """How many convolutions a step has, backward ones included."""
    state = experiment.initial_state()
    step = functools.partial(train_step, experiment)
    text = str(jax.make_jaxpr(step)(state, random_batch(0, 8)))
    return text.count("conv_general_dilated[")


def test_frozen_layers_stay_and_have_no_backward_pass():
    def experiment_of(freeze):
        config = tiny_config(optimizer=OptimizerConfig(freeze=freeze))
        return tiny_experiment(config, JitParallel(jax.devices()[:1]))

    experiment = experiment_of("^(stage|attention)")
    before, after = stepped(experiment)
    moved = flat(jax.tree.map(lambda a, b: a - b, before.params, after.params))
    for name, difference in moved.items():
        assert np.any(difference) == name.startswith("head")
    # Six convolutions, each with a gradient of its kernel and of its input, but for
    # the first one's input; frozen ones have none. The predictor has its own.
    assert convolutions(experiment) + 11 <= convolutions(experiment_of(None))


def test_images_are_prepared_as_for_the_weights():
    lite = ModelConfig(backbone="efficientnet-lite0", pretrained="efficientnet-lite0")
    mean, std = channel_statistics(lite, 3)
    # TensorFlow's: (pixel - 127) / 128.
    assert_close((np.array([0.0, 127.0, 255.0]) / 255 - mean) / std, [-127 / 128, 0, 1])
    bare = dataclasses.replace(lite, pretrained=None)
    assert channel_statistics(bare, 3)[0] == (0.485, 0.456, 0.406)
    assert channel_statistics(bare, 1) == ((0.449,), (0.226,))

    def interpolation(model, **data):
        config = tiny_config(model=model, data=DataConfig(**data))
        return with_source_interpolation(config).interpolation

    assert interpolation(lite) == "bicubic"
    assert interpolation(bare) == "bilinear"
    assert interpolation(lite, interpolation="bilinear") == "bilinear"
    assert preprocessing("efficientnet-b1").crop == 240 / 256
    assert preprocessing("resnet50").interpolation == "bilinear"


@pytest.mark.parametrize("name", ["bilinear", "bicubic"])
def test_a_view_is_resized_as_pillow_does(name):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    view = View(0, 0, 30, 20, 9, 13)
    theirs = Image.fromarray(image).resize((13, 9), Image.Resampling[name.upper()])
    np.testing.assert_array_equal(render_view(image, view, name), np.asarray(theirs))


def test_the_slot_in_residual_blocks_can_be_chosen():
    config = ModelConfig(
        backbone="resnet18",
        attention="squeeze-excite",
        attention_stages=(4,),
        attention_in_blocks=True,
    )
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    params = jax.eval_shape(tiny_network(config).init, jax.random.key(0), images)
    assert "attention" in params["params"]["layer4_1"]
    assert "attention" not in params["params"]["layer3_1"]
    with pytest.raises(ValueError, match="needs a ResNet; convnet has no"):
        tiny_network(dataclasses.replace(config, backbone="convnet"))
