"""CAM and Grad-CAM beside torch's package grad-cam; `make test-torch` installs it."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cram_jax
from benchmarks.cost_torch import import_torchvision
from tests import torch_reference as reference
from tests.cram_jax.backbones.test_torch_live import photographs

pytestmark = pytest.mark.torch

# Torch's module whose output is the map of our stage, and that stage.
LAYERS = {
    "resnet18": {3: "layer3", 4: "layer4"},
    "resnet50": {4: "layer4"},
    "mobilenetv3-small": {5: "features.11", 6: "features.12"},
    "efficientnet-b0": {4: "features.5", 6: "features.8"},
    "convnext-tiny": {3: "features.5", 4: "features.7"},
}


def pairs():
    return [(name, stage) for name, stages in LAYERS.items() for stage in stages]


def theirs(network, layer, image, label):
    """What the package returns, and its maps and gradients, channels last."""
    torch = importlib.import_module("torch")
    import_torchvision()
    package = importlib.import_module("pytorch_grad_cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets")
    given = torch.from_numpy(image.transpose(2, 0, 1)[None].copy())
    with package.GradCAM(network, [network.get_submodule(layer)]) as cam:
        target = None if label is None else [targets.ClassifierOutputTarget(label)]
        on_image = cam(given, target)[0]
        kept = cam.activations_and_grads
        maps, gradients = (
            np.asarray(part[0])[0].transpose(1, 2, 0)
            for part in (kept.activations, kept.gradients)
        )
    return on_image, maps, gradients


@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize(("name", "stage"), pairs())
def test_grad_cam_equals_that_of_the_package(name, stage):
    original = reference.torch_network(name)
    state = reference.draw_into(original)
    network, variables = reference.our_variables(name, state)
    find = jax.jit(
        lambda image, label: cram_jax.grad_cam(
            network, variables, image[None], label, stage=stage, spread="even"
        )
    )
    for image, label in zip(photographs(), (None, 3), strict=True):
        on_image, maps, gradients = theirs(original, LAYERS[name][stage], image, label)
        if label is None:
            label = int(np.argmax(reference.torch_logits(original, [image])[0]))
        ours = find(image, jnp.array([label]))
        raw = np.maximum((maps * gradients.mean((0, 1))).sum(-1), 0)
        # The package divides by the largest value plus 1e-7.
        assert raw.max() > 1e-2, "maps that small prove nothing"
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
