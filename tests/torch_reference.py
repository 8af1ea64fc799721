"""Weights drawn from names, images, and the logits that torch makes of both.

`python -m tests.torch_reference` (with torch, torchvision and the package
efficientnet-lite-pytorch installed) writes the recorded logits anew.
"""

import importlib
import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost_torch import import_torchvision
from cram_jax.backbones import backbone, weights

RECORD = pathlib.Path(__file__).parent / "data" / "torch_logits.json"
CLASSES = 5
# Odd and even, not square.
SIZES = ((64, 97), (75, 66))
RECORDED = (
    "resnet18",
    "resnet50",
    "mobilenetv3-small",
    "efficientnet-b0",
    "efficientnet-lite0",
    "convnext-tiny",
)
TORCHVISION = {
    "resnet18": "resnet18",
    "resnet34": "resnet34",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "mobilenetv3-small": "mobilenet_v3_small",
    "mobilenetv3-large": "mobilenet_v3_large",
    "efficientnet-b0": "efficientnet_b0",
    "efficientnet-b1": "efficientnet_b1",
    "efficientnet-b2": "efficientnet_b2",
    "convnext-tiny": "convnext_tiny",
}


def draw_array(name, shape):
    """An array that depends on nothing but its name in the state dict and shape."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    if name.endswith("num_batches_tracked"):
        return np.zeros(shape, np.int64)
    if len(shape) == 3 or name.endswith("gamma"):
        array = rng.uniform(0.1, 0.3, shape)  # ConvNeXt's layer scale.
    elif len(shape) > 1:
        array = rng.standard_normal(shape, np.float32) / np.sqrt(np.prod(shape[1:]))
    elif name.endswith(("running_var", "weight")):
        array = rng.uniform(0.6, 1.4, shape)
    else:
        array = rng.normal(0.0, 0.1, shape)
    return array.astype(np.float32)


def synthetic_images():
    """Smooth patterns, one for each size, that no decoder has touched."""
    images = []
    for height, width in SIZES:
        y, x = np.mgrid[:height, :width] / 20.0
        channels = [np.sin(x + c) * np.cos(y * (c + 1)) + 0.3 * c for c in range(3)]
        images.append(np.stack(channels, -1).astype(np.float32))
    return images


def our_variables(name, state=None):
    """Our variables with the drawn weights, or those of a state dict."""
    network = backbone(name)(CLASSES)
    image = jnp.zeros((1, 64, 64, 3))
    abstract = jax.eval_shape(network.init, jax.random.key(0), image)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), abstract)
    if state is None:
        shapes = weights.torch_state(zeros)
        if "lite" in name:
            shapes = lite_names(shapes, zeros)
        state = {key: draw_array(key, value.shape) for key, value in shapes.items()}
    variables, _ = weights.load_state(state, zeros)
    return network, variables


def lite_names(shapes, variables):
    """The Lite networks are not torchvision's: their recorded names are others."""
    from cram_jax.backbones import inverted_names, leaf_names

    paths = [path for path, _ in leaf_names.leaves_of(variables)]
    modules = {path[:-1] for path in paths}
    return {
        inverted_names.lite_name(path, modules): shapes[
            inverted_names.torchvision_name(path, modules)
        ]
        for path in paths
    }


def our_logits(network, variables, images):
    apply = jax.jit(network.apply)
    return [np.asarray(apply(variables, image)) for image in images]


def torch_network(name):
    """The torch original with `CLASSES` logits, in evaluation mode."""
    if "lite" in name:
        package = importlib.import_module("efficientnet_lite_pytorch")
        # With an image size the package would fix the padding for that size.
        options = {"image_size": None, "num_classes": CLASSES}
        network = package.EfficientNet.from_name(name, **options)
    else:
        models = import_torchvision().models
        network = getattr(models, TORCHVISION[name])(num_classes=CLASSES)
    return network.eval()


def draw_into(network):
    """Fills a torch network with the drawn weights and returns its state dict."""
    torch = importlib.import_module("torch")
    state = {
        key: torch.from_numpy(np.asarray(draw_array(key, tuple(value.shape))))
        for key, value in network.state_dict().items()
    }
    network.load_state_dict(state)
    return {key: value.numpy() for key, value in state.items()}


def torch_logits(network, images):
    torch = importlib.import_module("torch")
    with torch.no_grad():
        return [
            network(torch.from_numpy(image.transpose(2, 0, 1)[None].copy()))[0].numpy()
            for image in images
        ]


def record():
    """Writes the logits of the torch originals on the synthetic images."""
    logits = {}
    for name in RECORDED:
        network = torch_network(name)
        draw_into(network)
        outputs = torch_logits(network, synthetic_images())
        logits[name] = [[round(float(v), 7) for v in row] for row in outputs]
    RECORD.parent.mkdir(exist_ok=True)
    RECORD.write_text(json.dumps(logits, indent=1) + "\n")


if __name__ == "__main__":
    record()
