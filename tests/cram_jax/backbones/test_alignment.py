"""Where maps lie on the image: against the centres of the networks' own gradients."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cram_jax.attention.evidence import layer_evidence
from cram_jax.attention.rectangular import RectangularAttention
from cram_jax.backbones import BACKBONES, Stage, Step, alignment, backbone
from cram_jax.backbones.alignment import evidence_on_image
from cram_jax.backbones.inverted import BlockSpec, InvertedResidualNet
from cram_jax.geometry.rectangle import Rectangle
from tests.checks import assert_close
from tests.tiny_runs import tiny_config, tiny_experiment
from train.config.data import DataConfig
from train.learning.devices import JitParallel
from train.run.checkpoints.restore import Trained
from train.use import TrainedRun


def seen_center(network, stage, side, pixel):
    """Centre (y, x) of what a map's pixel sees, by the gradient to the image.

    All kernels are constant and all activations small and positive, so the gradient is
    symmetric about the centre wherever it does not touch the image's edge.
    """
    images = jnp.ones((1, side, side, 3))
    shapes = jax.eval_shape(network.init, jax.random.key(0), images)

    def constant(path, leaf):
        if leaf.ndim > 1:
            return jnp.full(leaf.shape, 1.0 / np.prod(leaf.shape[:-1]))
        names = ("scale", "var")
        return jnp.full(leaf.shape, float(path[-1].key in names))

    variables = jax.tree_util.tree_map_with_path(constant, shapes)

    def value(images):
        maps = network.apply(variables, images, method="features")
        return maps[stage - 1][0, pixel, pixel].sum()

    weight = np.abs(np.asarray(jax.jit(jax.grad(value))(images))[0]).sum(-1)
    centers = np.arange(side) + 0.5
    assert weight.sum() > 0
    return weight.sum(1) @ centers / weight.sum(), weight.sum(
        0
    ) @ centers / weight.sum()


@pytest.mark.parametrize(
    ("name", "stage", "side"),
    [
        ("efficientnet-lite0", 3, 128),
        ("efficientnet-lite0", 3, 129),
        ("efficientnet-lite0", 3, 130),
        # Without max pooling, whose gradient takes one side where all are equal.
        ("resnet18-small", 3, 64),
        ("resnet18-small", 3, 65),
        ("convnet", 3, 96),
    ],
)
def test_the_grid_is_where_the_gradient_is(name, stage, side):
    network = backbone(name)(2)
    grid = alignment.stage_grids(network, side)[stage - 1]
    middle = grid.pixels // 2
    expected = grid.first + grid.stride * middle
    assert_close(seen_center(network, stage, side, middle), [expected] * 2, atol=0.05)


@pytest.mark.parametrize("name", BACKBONES)
@pytest.mark.parametrize("side", [64, 75])
def test_the_grid_has_as_many_pixels_as_the_map(name, side):
    network = backbone(name)(2)
    images = jax.ShapeDtypeStruct((1, side, 64, 3), jnp.float32)
    init = functools.partial(network.init_with_output, method="features")
    maps, _ = jax.eval_shape(init, jax.random.key(0), images)
    grids = alignment.stage_grids(network, side)
    assert [grid.pixels for grid in grids] == [stage.shape[1] for stage in maps]


def test_half_a_stride_is_what_the_even_spread_would_miss():
    # Torch's padding looks to the left, TensorFlow's to the right, by (32 - 1) / 2.
    b0 = alignment.stage_grids(backbone("efficientnet-b0")(2), 128)[4]
    lite = alignment.stage_grids(backbone("efficientnet-lite0")(2), 128)[4]
    assert (b0.first, b0.stride) == (0.5, 32)
    assert (lite.first, lite.stride) == (31.5, 32)
    for name in ("convnet", "convnext-tiny"):
        for grid in alignment.stage_grids(backbone(name)(2), 96):
            assert grid.first == grid.stride / 2


def test_rectangles_and_masks_move_alike_and_back_to_pixels():
    grids = alignment.Grid(8, 16, 15.5), alignment.Grid(6, 16, 0.5)
    height, width = 128, 96
    # Pixels 2 to 4 (y) and 1 to 3 (x) of the map: edges 2, 5 and 1, 4.
    rectangle = Rectangle(
        center_x=jnp.array([(2.5 - 3) / 4]),
        center_y=jnp.array([(3.5 - 4) / 4]),
        half_width=jnp.array([1.5 / 4]),
        half_height=jnp.array([1.5 / 4]),
        angle=jnp.array([0.3]),
    )
    moved = alignment.rectangle_on_image(rectangle, grids, height, width)
    # Their centre is that of pixel (3, 2), three strides high and wide.
    assert_close(moved.center_y[0] * 64 + 64, 15.5 + 3 * 16)
    assert_close(moved.center_x[0] * 64 + 48, 0.5 + 2 * 16)
    assert_close(moved.half_width[0] * 64, 24)
    assert_close(moved.angle, rectangle.angle)
    mask = np.zeros((1, 8, 6), np.float32)
    mask[0, 2:5, 1:4] = 1
    seen = np.asarray(alignment.mask_on_image(jnp.asarray(mask), grids, height, width))
    assert seen.shape == (1, height, width)
    total = seen.sum()
    rows, columns = np.arange(height) + 0.5, np.arange(width) + 0.5
    assert_close(seen[0].sum(1) @ rows / total, 15.5 + 3 * 16, rtol=1e-3)
    assert_close(seen[0].sum(0) @ columns / total, 0.5 + 2 * 16, rtol=1e-3)


def test_a_full_mask_stays_full_up_to_the_edges():
    grids = alignment.Grid(4, 32, 31.5), alignment.Grid(4, 32, 0.5)
    full = alignment.mask_on_image(jnp.ones((1, 4, 4)), grids, 128, 128)
    assert_close(full, np.ones((1, 128, 128)))


@pytest.mark.parametrize("name", BACKBONES)
def test_the_declared_channels_are_those_of_the_maps(name):
    network = backbone(name)(2)
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = functools.partial(network.init_with_output, method="features")
    maps, _ = jax.eval_shape(init, jax.random.key(0), images)
    assert [stage.channels for stage in network.stages] == [m.shape[-1] for m in maps]


@pytest.mark.parametrize("name", BACKBONES)
def test_every_module_before_the_head_is_declared_once(name):
    network = backbone(name)(2, attention=RectangularAttention, attention_stages=(2,))
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    params = jax.eval_shape(network.init, jax.random.key(0), images)["params"]
    between = ("stem", "shrink", "head")
    for module in params:
        held = [n for n, stage in enumerate(network.stages, 1) if stage.holds(module)]
        if not module.startswith(between):
            assert len(held) == 1, module
        if module == "attention2":
            assert held == [2]


def test_a_module_belongs_to_a_stage_by_its_whole_name():
    stage = Stage((), 1, ("layer1", "trunk/block2_1"))
    for path in ("layer1", "layer1_0", "layer1/look", "layer1_0/look"):
        assert stage.holds(path)
    assert stage.holds("trunk/block2_1/look")
    assert stage.inside("net").holds("net/layer1_0/look")
    for path in ("layer10", "layer10_0", "layer", "net/layer1", "trunk/block2_10"):
        assert not stage.holds(path)


def test_layers_are_placed_by_the_declared_modules():
    layer = {"mask": jnp.ones((1, 8, 8))}
    evidence = {"layer2_0/attention": layer, "attention2": layer}
    moved = evidence_on_image(backbone("resnet18")(2), evidence, 64, 64)
    assert {value["mask"].shape for value in moved.values()} == {(1, 64, 64)}


@pytest.mark.parametrize(
    "path",
    ["attention0", "attention5", "attention1", "look3/attention2", "gate", "layer20_0"],
)
def test_a_layer_is_refused_that_no_stage_has_or_whose_mask_does_not_fit(path):
    # The stages' maps have 16, 8, 4 and 2 pixels.
    evidence = {path: {"mask": jnp.ones((1, 8, 8))}}
    with pytest.raises(ValueError, match=f"not known where .*'{path}'.*2: \\(8, 8\\)"):
        evidence_on_image(backbone("resnet18")(2), evidence, 64, 64)


class Seg(nn.Module):
    """A network of somebody else's, with one of ours in it."""

    backbone: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, images, *, train=False):
        maps = self.backbone.features(images, train=train)
        return self.head(RectangularAttention(name="gate")(maps[-1]))


def abstractly_shown(network, side):
    """Shapes of what the layers show, put on images of that side."""

    def show(images):
        variables = network.init(jax.random.key(0), images)
        sown = network.apply(variables, images, mutable=["intermediates"])[1]
        return evidence_on_image(network, layer_evidence(sown), *images.shape[1:3])

    return jax.eval_shape(show, jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32))


@pytest.mark.parametrize("name", BACKBONES)
def test_a_wrapped_backbone_has_its_evidence_put_where_the_bare_one_has(name):
    # Flax calls a field's module by the field, whatever name it had.
    bare = backbone(name)(
        2, attention=RectangularAttention, attention_stages=(2, 3), name="trunk"
    )
    wrapped = Seg(bare, nn.Dense(3))
    shown = abstractly_shown(wrapped, 64)
    assert set(shown) == {"gate", "backbone/attention2", "backbone/attention3"}
    assert {layer["mask"].shape for layer in shown.values()} == {(1, 64, 64)}
    for stage, grid in enumerate(alignment.stage_grids(bare, 64), start=1):
        mask = jax.random.uniform(jax.random.key(stage), (1, grid.pixels, grid.pixels))
        path = f"attention{stage}"
        alone = evidence_on_image(bare, {path: {"mask": mask}}, 64, 64)[path]
        path = f"backbone/{path}"
        within = evidence_on_image(wrapped, {path: {"mask": mask}}, 64, 64)[path]
        assert_close(within["mask"], alone["mask"])
        assert alignment.stage_grids(wrapped, 64)[stage - 1] == grid


class Own(nn.Module):
    """A network that somebody wrote, which declares what its maps are."""

    names: tuple[str, ...] = ("look1", "look2")

    @property
    def stages(self):
        first, second = Step(3, 2, 1), Step(4, 2, 0)
        names = [(name,) for name in self.names] or [(), ()]
        return Stage((first,), 4, names[0]), Stage((second,), 4, names[1])

    @nn.compact
    def __call__(self, images):
        x = nn.Conv(4, (3, 3), 2, padding=1)(images)
        x = RectangularAttention(name="look1")(x)
        x = nn.Conv(4, (4, 4), 2, padding=0)(x)
        return RectangularAttention(name="look2")(x).mean((-3, -2))


class Holder(nn.Module):
    parts: tuple[nn.Module, ...]

    def __call__(self, images):
        return [part(images) for part in self.parts]


@pytest.mark.parametrize("names", [("look1", "look2"), ()])
@pytest.mark.parametrize("wrap", [lambda net: net, lambda net: Holder((net,))])
def test_a_network_of_ones_own_declares_its_stages(names, wrap):
    network = wrap(Own(names))
    images = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    variables = jax.jit(network.init)(jax.random.key(0), images)
    sown = network.apply(variables, images, mutable=["intermediates"])[1]
    moved = evidence_on_image(network, layer_evidence(sown), 32, 32)
    # Centres of the first pixels: 0.5, then 0.5 + 2 * 1.5; strides 2 and 4.
    grids = alignment.stage_grids(network, 32)
    assert grids == (alignment.Grid(16, 2, 0.5), alignment.Grid(7, 4, 3.5))
    (first, second) = moved.values()
    assert first["mask"].shape == second["mask"].shape == (1, 32, 32)
    raw = list(layer_evidence(sown).values())[1]["rectangle"]
    expected = 3.5 + 4 * (raw.center_x * 3.5 + 3.5 - 0.5)
    assert_close(second["rectangle"].center_x * 16 + 16, expected)


def test_the_size_tells_the_stage_only_where_it_can():
    # Stages 2 and 3 of an image of one pixel are of one size, but of two offsets.
    network = Seg(backbone("resnet18")(2), nn.Dense(3))
    grids = alignment.stage_grids(network, 1)
    assert len({grid.pixels for grid in grids}) == 1
    layer = {"mask": jnp.ones((1, 1, 1))}
    with pytest.raises(ValueError, match="not known where"):
        evidence_on_image(network, {"gate": layer}, 1, 1)
    path = "backbone/attention2"
    assert path in evidence_on_image(network, {path: layer}, 1, 1)


class Stages(nn.Module):
    """Its `stages` are something else."""

    stages: tuple[int, ...] = (2, 2)


def test_networks_that_declare_nothing_or_twice_are_told_what_to_do():
    layer = {"look": {"mask": jnp.ones((1, 8, 8))}}
    for network in (nn.Dense(1), Stages(), Holder((nn.Dense(1),))):
        message = f"{type(network).__name__} does not declare .*stages.*Stage.*Step"
        with pytest.raises(ValueError, match=message):
            alignment.stage_grids(network, 8)
        with pytest.raises(ValueError, match=message):
            evidence_on_image(network, layer, 64, 64)
    twins = Holder((backbone("resnet18")(2), backbone("convnet")(2)))
    with pytest.raises(ValueError, match=r"several .*\(parts_0, parts_1\)"):
        alignment.stage_grids(twins, 64)
    mask = {"mask": jnp.ones((1, 8, 8))}
    evidence = {"parts_0/attention2": mask, "parts_1/attention3": mask}
    assert evidence.keys() == evidence_on_image(twins, evidence, 64, 64).keys()


class Fixed(nn.Module):
    """Predicts the pixel in row 1 and column 2 of a 3 x 3 map."""

    dtype: object = None
    param_dtype: object = jnp.float32

    @nn.compact
    def __call__(self, features):
        numbers = jnp.array([2 / 3, 0.0, 1 / 3, 1 / 3, 0.0])
        return Rectangle.from_array(jnp.broadcast_to(numbers, (len(features), 5)))


def test_predict_finds_the_pixels_of_the_original_through_strides_crop_and_resize():
    # An EfficientNet-Lite of two stages: 12 x 12 pixels become a map of 3 x 3.
    network = InvertedResidualNet(
        3,
        attention=functools.partial(RectangularAttention, predictor=Fixed),
        attention_stages=(2,),
        stem_width=4,
        groups=((BlockSpec(kernel=3, strides=2, expanded=4, features=4),),),
        last_width=4,
        same_padding=True,
    )
    config = tiny_config(data=DataConfig(name="folder:unused", eval_crop=0.5))
    experiment = tiny_experiment(config, JitParallel(jax.devices()[:1]))
    experiment = dataclasses.replace(
        experiment, model=network, schedule=lambda step: {}
    )
    variables = jax.jit(network.init)(jax.random.key(0), jnp.zeros((1, 12, 12, 3)))
    variables = {name: variables[name] for name in ("params", "batch_stats")}
    run = TrainedRun(Trained(experiment, variables, jnp.zeros(())))
    (found,) = run.predict(np.zeros((60, 100, 3), np.uint8))
    pixels = found.rectangles["attention2"]["pixels"]
    # Both strided layers pad below and to the right: pixel (1, 2) of the map is
    # centred at 3.5 + 4 * (1, 2) of the view, and 4 pixels wide. The view is the
    # central 30 x 30 pixels, from (15, 35) on, at 2.5 pixels to one of its own.
    assert_close(pixels["center_x"], 35 + 2.5 * 11.5)
    assert_close(pixels["center_y"], 15 + 2.5 * 7.5)
    assert_close([pixels["half_width"], pixels["half_height"]], [5.0, 5.0])
