"""What is exported says the same where this package is not known."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from cram_jax.backbones.weights import load_torch_weights
from tests.tiny_runs import PATIENCE, SIDE
from train.__main__ import main
from train.errors import DONE, WRONG_USE, UserError
from train.learning.devices import JitParallel
from train.run.checkpoints.restore import restore_trained
from train.use import load_run
from train.use.stablehlo import exported_program
from train.use.weights import read_weights, weights_file

SERVE = Path(__file__).parents[3] / "examples" / "serve.py"
# The example as a program, and then: does it know anything but jax?
ALONE = """
import runpy, sys
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
known = {name.partition(".")[0] for name in sys.modules}
assert not known & {"cram_jax", "train", "flax", "optax", "orbax"}, known
"""


@pytest.fixture(scope="module")
def trained(workdir):
    return restore_trained(workdir, "latest", JitParallel(jax.devices()[:1]))


def export(workdir, *words):
    return main(["export", f"--workdir={workdir}", *map(str, words)])


def served(program, images, tmp_path):
    np.save(tmp_path / "images.npy", images)
    words = [SERVE, program, tmp_path / "images.npy", tmp_path / "answers.npz"]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    subprocess.run(
        [sys.executable, "-c", ALONE, *map(str, words)],
        check=True,
        cwd=tmp_path,
        env=environment,
        timeout=PATIENCE,
    )
    return dict(np.load(tmp_path / "answers.npz"))


def moments(rectangle):
    """Centre and second moments of a rectangle: the same region, the same numbers.

    The angle itself is ill-conditioned where a rectangle is nearly square: the last
    digit of what it is made from, compiled in another way, moves it by more.
    """
    x, y, half_width, half_height, angle = np.asarray(rectangle, np.float64)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    spread = turn @ np.diag([half_width**2, half_height**2]) @ turn.T
    return np.array([x, y, *spread.ravel()])


def test_the_program_gives_the_same_numbers_in_a_process_that_knows_only_jax(
    workdir, tmp_path
):
    assert export(workdir, f"--output={tmp_path}", "--platforms", "cpu", "cuda") == DONE
    images = np.random.default_rng(0).integers(0, 256, (5, SIDE, SIDE, 3), np.uint8)
    answers = served(tmp_path / "network.stablehlo", images, tmp_path)
    assert set(answers) == {"outputs", "rectangles/attention1"}
    for row, found in enumerate(load_run(workdir).predict(images)):
        outputs, rectangle = (answers[name][row] for name in sorted(answers))
        np.testing.assert_allclose(outputs, found.outputs, rtol=0, atol=1e-6)
        expected = moments(found.sight.rectangles["attention1"])
        np.testing.assert_allclose(moments(rectangle), expected, rtol=1e-6, atol=1e-6)
    about = json.loads((tmp_path / "network.json").read_text())
    assert about["classes"] == ["blob", "cross", "edge"]
    assert about["input"]["shape"] == ["batch", SIDE, SIDE, 3]


def test_one_program_is_for_any_number_of_images_and_all_platforms(trained):
    program = exported_program(trained, ("cpu", "cuda", "tpu"))
    network = jax.export.deserialize(bytearray(program))
    assert network.platforms == ("cpu", "cuda", "tpu")
    images = np.random.default_rng(1).integers(0, 256, (3, SIDE, SIDE, 3), np.uint8)
    together = network.call(images)["outputs"]
    alone = [network.call(image[None])["outputs"][0] for image in images[:2]]
    np.testing.assert_allclose(together[:2], alone, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="shape"):
        network.call(np.zeros((1, SIDE + 1, SIDE, 3), np.uint8))


@pytest.mark.parametrize("platforms", [["gpu"], ["cpu", "cudda"]])
def test_an_unknown_platform_is_refused_before_anything_is_written(
    workdir, tmp_path, capsys, platforms
):
    code = export(workdir, f"--output={tmp_path / 'out'}", "--platforms", *platforms)
    assert code == WRONG_USE
    assert "Unknown platform" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_weights_come_back_with_what_they_are_of(workdir, trained, tmp_path):
    assert export(workdir, "--to=safetensors", f"--output={tmp_path}") == DONE
    file = tmp_path / "network.safetensors"
    blank = jax.tree.map(np.zeros_like, jax.device_get(trained.variables))
    found, about = read_weights(file, blank)
    jax.tree.map(np.testing.assert_array_equal, found, trained.variables)
    assert about["backbone"] == "convnet"
    assert about["classes"] == ["blob", "cross", "edge"]
    assert about["normalisation"]["mean"] == [0.485, 0.456, 0.406]
    assert about["input"]["resize"].startswith("bilinear")
    # What `--model.pretrained` reads.
    loaded, report = load_torch_weights(file, blank)
    jax.tree.map(np.testing.assert_array_equal, loaded, trained.variables)
    assert report.kept == ()


def test_what_stands_around_a_backbone_comes_back_too(trained, tmp_path):
    """As in a network of another task: the backbone within, a decoder behind."""
    decoder = {"conv": {"kernel": np.arange(12.0, dtype=np.float32).reshape(3, 4)}}
    norm = {"norm": {"mean": np.arange(4.0, dtype=np.float32)}}
    inner = jax.device_get(trained.variables)
    variables = {
        "params": {"inside": inner["params"], "decoder": decoder},
        "batch_stats": {"inside": inner["batch_stats"], "decoder": norm},
    }
    (tmp_path / "all.safetensors").write_bytes(
        weights_file(dataclasses.replace(trained, variables=variables))
    )
    blank = jax.tree.map(np.zeros_like, variables)
    found, _ = read_weights(tmp_path / "all.safetensors", blank)
    jax.tree.map(np.testing.assert_array_equal, found, variables)
    # The backbone alone takes its part of it.
    loaded, report = load_torch_weights(tmp_path / "all.safetensors", inner)
    jax.tree.map(np.testing.assert_array_equal, loaded, inner)
    assert sorted(report.unused) == [
        "around.batch_stats/decoder/norm/mean",
        "around.params/decoder/conv/kernel",
    ]


def test_a_network_that_is_no_backbone_has_no_weights_file(trained):
    variables = {"params": {"mine": {"kernel": np.ones(3)}}, "batch_stats": {}}
    with pytest.raises(UserError, match="belong to no backbone"):
        weights_file(dataclasses.replace(trained, variables=variables))
