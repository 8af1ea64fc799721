"""The decoder of segmentation: on every backbone, at any size, in any dtype."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cram_jax.attention.evidence import layer_evidence
from cram_jax.attention.positionwise import PositionwiseAttention
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.backbones import ConvNet, backbone
from cram_jax.backbones.alignment import evidence_on_image
from cram_jax.heads.segmentation import SegmentationDecoder, Segmenter
from cram_jax.heads.top_down import enlarge
from tests.checks import assert_close, assert_tree_finite
from tests.cram_jax.backbones.test_wrapped_weights import FAMILIES

CLASSES = 5
SMALL = functools.partial(ConvNet, 1, widths=(4, 6, 8), convolutions=(1, 1, 1))


def segmenter(encoder, **options):
    return Segmenter(encoder, SegmentationDecoder(CLASSES, width=8, **options))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_backbone_gives_float32_logits_of_the_images_size(name):
    network = segmenter(backbone(name)(1, dtype=jnp.bfloat16), dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 61, 75, 3), jnp.float32)
    logits, variables = jax.eval_shape(
        lambda images: network.init_with_output(jax.random.key(0), images), images
    )
    assert logits.shape == (2, 61, 75, CLASSES)
    assert logits.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {np.dtype("float32")}
    # The classifier is not asked, so there is none.
    assert "head" not in variables["params"]["backbone"]


@pytest.fixture(scope="module")
def small():
    network = segmenter(
        SMALL(attention=RectangularAttention, attention_stages=(1,)),
        attention=PositionwiseAttention,
        attention_stages=(2, 3),
    )
    images = jax.random.normal(jax.random.key(1), (2, 19, 26, 3))
    return network, network.init(jax.random.key(0), images), images


def test_layers_sit_in_the_encoder_and_on_the_skips_and_are_put_on_the_image(small):
    network, variables, images = small
    _, updates = network.apply(variables, images, mutable=["intermediates"])
    evidence = layer_evidence(updates["intermediates"])
    assert set(evidence) == {
        "backbone/attention1",
        "decoder/attention2",
        "decoder/attention3",
    }
    on_image = evidence_on_image(network, evidence, 19, 26)
    assert {layer["mask"].shape for layer in on_image.values()} == {(2, 19, 26)}
    # A layer on a skip gates the lateral map: its width, not the encoder's.
    kernel = variables["params"]["decoder"]["lateral2"]["kernel"]
    assert kernel.shape == (1, 1, 6, 8)


def test_gradients_reach_every_parameter_and_are_finite(small):
    network, variables, images = small

    @jax.jit
    def gradients(params):
        def loss(params):
            given = {**variables, "params": params}
            logits, _ = network.apply(
                given, images, train=True, mutable=["batch_stats", "intermediates"]
            )
            return jnp.mean(jax.nn.log_softmax(logits)[..., 0] ** 2)

        return jax.grad(loss)(params)

    found = gradients(variables["params"])
    assert_tree_finite(found)
    decoder = jax.tree_util.tree_leaves_with_path(found["decoder"])
    for path, leaf in decoder:
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    assert np.abs(found["backbone"]["stage1_conv1"]["conv"]["kernel"]).max() > 0


def test_batch_axes_and_jit_change_nothing_and_images_do_not_mix(small):
    network, variables, images = small
    apply = jax.jit(network.apply)
    together = apply(variables, images)
    assert_close(network.apply(variables, images), together, atol=1e-4)
    assert_close(apply(variables, images[:, None])[:, 0], together, atol=1e-4)
    assert_close(apply(variables, images[1]), together[1], atol=1e-4)


@pytest.mark.parametrize("size", [(5, 7), (10, 8), (13, 29)])
def test_enlarging_is_pillows_bilinear(size):
    map_ = np.random.default_rng(0).normal(size=(5, 7)).astype(np.float32)
    expected = Image.fromarray(map_).resize(size[::-1], Image.Resampling.BILINEAR)
    found = enlarge(jnp.asarray(map_)[..., None], *size)[..., 0]
    assert_close(found, np.asarray(expected), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12}, "multiple of 8.* got 12"),
        ({"num_classes": 0}, "num_classes"),
        (
            {"attention": PositionwiseAttention, "attention_stages": (0,)},
            r"attention_stages must be in 1 to 1.* got \(0,\)",
        ),
    ],
)
def test_mistakes_are_refused_with_the_rule(options, message):
    decoder = SegmentationDecoder(**{"num_classes": 2, "width": 8} | options)
    maps = [jnp.zeros((1, 3, 3, 4))]
    with pytest.raises(ValueError, match=message):
        decoder.init(jax.random.key(0), maps)
    with pytest.raises(ValueError, match="map of one stage at least"):
        SegmentationDecoder(2).init(jax.random.key(0), [])
