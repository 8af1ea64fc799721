"""The U-Net that our segmentation network is compared with has the same encoder."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks.cost_torch import import_torch
from benchmarks.segmentation_torch import FROZEN, make_unet
from cram_jax.backbones import backbone, weights
from cram_jax.backbones.weight_files import packaged_weights

pytestmark = pytest.mark.torch


def test_its_encoder_gives_our_maps():
    torch = import_torch()
    images = np.random.default_rng(0).normal(size=(2, 64, 96, 3)).astype(np.float32)
    network = make_unet(torch, 2).eval()
    with torch.no_grad():
        theirs = network.encoder(torch.from_numpy(images).permute(0, 3, 1, 2))
    ours = backbone("efficientnet-lite0")(num_classes=1000)
    variables = jax.jit(ours.init)(jax.random.key(0), jnp.asarray(images))
    file = packaged_weights("efficientnet-lite0")
    variables, _ = weights.load_torch_weights(file, variables)
    maps = ours.apply(variables, jnp.asarray(images), method="features")
    found = {each.shape[1:3]: each for each in map(np.asarray, maps)}
    compared = 0
    for each in theirs[1:]:
        each = each.permute(0, 2, 3, 1).numpy()
        same = found.get(each.shape[1:3])
        if same is not None and same.shape == each.shape:
            np.testing.assert_allclose(same, each, atol=2e-4, rtol=1e-3)
            compared += 1
    assert compared >= 3


def test_what_our_recipe_holds_still_is_frozen():
    names = [name for name, _ in make_unet(import_torch(), 2).named_parameters()]
    frozen = [name for name in names if FROZEN.search(name)]
    moving = set(names) - set(frozen)
    assert "encoder.model.blocks.5.0.conv_pw.weight" in moving
    assert "encoder.model.blocks.5.0.conv_dw.weight" in frozen
    assert "encoder.model.blocks.4.2.bn1.weight" in frozen
    assert not [name for name in frozen if name.startswith(("decoder", "segment"))]
