"""The detector: on every backbone, in any dtype, and all its parameters learn."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.evidence import layer_evidence
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.backbones import ConvNet, backbone
from cram_jax.backbones.alignment import stage_grids
from cram_jax.geometry.cells import at_cells, cell_grid, rectangle_from_code
from cram_jax.heads.detection import DetectionHead, Detector
from cram_jax.heads.detection_targets import detection_targets
from cram_jax.losses.boxes import gaussian_box_loss
from cram_jax.losses.heat_maps import heat_map_loss
from tests.checks import assert_close, assert_tree_finite
from tests.cram_jax.backbones.test_wrapped_weights import FAMILIES

CATEGORIES = 5
SMALL = functools.partial(
    ConvNet, 1, widths=(4, 6), strides=(2, 2), convolutions=(1, 1)
)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_backbone_gives_float32_outputs_on_the_map_of_the_stage(name):
    encoder = backbone(name)(1, dtype=jnp.bfloat16)
    head = DetectionHead(CATEGORIES, stage=2, width=8, dtype=jnp.bfloat16)
    images = jax.ShapeDtypeStruct((2, 61, 75, 3), jnp.float32)
    outputs, variables = jax.eval_shape(
        lambda images: Detector(encoder, head).init_with_output(
            jax.random.key(0), images
        ),
        images,
    )
    size = tuple(stage_grids(encoder, side)[1].pixels for side in (61, 75))
    assert outputs["heat"].shape == (2, *size, CATEGORIES)
    assert outputs["boxes"].shape == (2, *size, 6)
    leaves = jax.tree.leaves((outputs, variables))
    assert {leaf.dtype for leaf in leaves} == {np.dtype("float32")}
    # The classifier is not asked, so there is none.
    assert "head" not in variables["params"]["backbone"]


@pytest.fixture(scope="module")
def small():
    network = Detector(
        SMALL(attention=RectangularAttention, attention_stages=(2,)),
        DetectionHead(CATEGORIES, width=8),
    )
    noise = np.random.default_rng(1).normal(size=(2, 19, 26, 3))
    images = noise.astype(np.float32)
    return network, jax.jit(network.init)(jax.random.key(0), images), images


@pytest.fixture(scope="module")
def seen(small):
    """Outputs, and what layers show."""
    network, variables, images = small
    apply = jax.jit(functools.partial(network.apply, mutable=["intermediates"]))
    return apply(variables, images)


def test_it_starts_from_the_prior_and_boxes_that_are_not_turned(seen):
    outputs, _ = seen
    probabilities = jax.nn.sigmoid(outputs["heat"])
    assert 0.008 < probabilities.min() < probabilities.max() < 0.0125
    neutral = np.broadcast_to([0, 0, 0, 0, 1, 0], outputs["boxes"].shape)
    assert_close(outputs["boxes"], neutral, atol=0.2, rtol=0)
    other = DetectionHead(2, width=8, prior=0.2)
    maps = [jnp.zeros((3, 4, 4))]
    heat = jax.jit(other.init_with_output)(jax.random.key(0), maps)[0]["heat"]
    assert_close(jax.nn.sigmoid(heat), np.full((3, 4, 2), 0.2), atol=1e-6)


def test_attention_stays_in_the_encoder(seen):
    evidence = layer_evidence(seen[1]["intermediates"])
    assert set(evidence) == {"backbone/attention2"}
    assert evidence["backbone/attention2"]["mask"].shape == (2, 4, 6)


def test_gradients_reach_every_parameter_and_are_finite(small):
    network, variables, images = small
    rectangles = jnp.array([[0.2, 0.1, 0.5, 0.2, 0.7], [-0.5, -0.3, 0.1, 0.1, 0]])

    @jax.jit
    def gradients(params):
        def loss(params):
            given = {**variables, "params": params}
            outputs, _ = network.apply(
                given, images, train=True, mutable=["batch_stats", "intermediates"]
            )
            height, width = outputs["heat"].shape[1:3]
            truth = detection_targets(
                jnp.stack([rectangles, rectangles]),
                jnp.array([[0, 4], [2, -1]]),
                None,
                height,
                width,
                num_categories=CATEGORIES,
            )
            found = rectangle_from_code(
                at_cells(outputs["boxes"], truth.cell),
                truth.cell,
                cell_grid(height, width),
            )
            boxes = gaussian_box_loss(found, truth.rectangle)
            boxes = jnp.sum(jnp.where(truth.positive, boxes, 0))
            return boxes + jnp.sum(heat_map_loss(outputs["heat"], truth.heat))

        return jax.grad(loss)(params)

    found = gradients(variables["params"])
    assert_tree_finite(found)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found["head"]):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)
    assert np.abs(found["backbone"]["stage1_conv1"]["conv"]["kernel"]).max() > 0


def test_an_image_without_batch_axes_is_as_in_a_batch(small, seen):
    network, variables, images = small
    alone = jax.jit(network.apply)(variables, images[1])
    for name, values in seen[0].items():
        assert_close(alone[name], values[1], atol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 12}, "multiple of 8.* got 12"),
        ({"num_categories": 0}, "num_categories"),
        ({"stage": 2}, "stage must be in 1 to 1.* got 2"),
        ({"prior": 1.0}, r"prior must be in 0 to 1, got 1\.0"),
    ],
)
def test_mistakes_are_refused_with_the_rule(options, message):
    head = DetectionHead(**{"num_categories": 2, "width": 8} | options)
    with pytest.raises(ValueError, match=message):
        head.init(jax.random.key(0), [jnp.zeros((1, 3, 3, 4))])
