"""The examples run, and do what they say."""

import functools
import importlib.util
import pathlib

import jax
import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == {
        "own_cnn",
        "flax_mnist",
        "serve",  # in tests/train/use/test_export.py
    }


def test_an_own_network_learns_with_the_layer_in_it(capsys):
    accuracy, rectangle = load("own_cnn").main(steps=150)
    assert accuracy > 0.25  # chance is 0.1
    # It does not look at one place only: the rectangle follows its image.
    assert float(np.std(rectangle.center_x)) > 1e-3
    assert "center_x" in capsys.readouterr().out


def test_a_public_example_takes_the_layer_from_outside():
    before, after, rectangle = load("flax_mnist").main()
    assert before.shape == after.shape == (4, 10)
    # The layer is there, and starts nearly open.
    difference = np.abs(after - before).max()
    assert 0 < difference < 0.2 * np.abs(before).max()
    assert rectangle.center_x.shape == (4,)


def test_the_layer_behind_a_module_gates_that_module_only():
    module = load("flax_mnist")
    images = np.ones((1, 28, 28, 1), np.float32)
    attended = module.Attended(module.CNN(), after="Conv_0")
    init = functools.partial(jax.eval_shape, attended.init)
    tree = init(jax.random.key(0), images)["params"]
    assert set(tree) == {"attention", "network"}
    wrong = module.Attended(module.CNN(), after="Conv_9")
    with pytest.raises(ValueError, match="calls no module named 'Conv_9'"):
        jax.eval_shape(wrong.init, jax.random.key(0), images)
