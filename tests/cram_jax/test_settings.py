"""Everything public works under the settings that JAX users switch on."""

import contextlib
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cram_jax
from cram_jax.attention.registry import ATTENTIONS
from cram_jax.backbones import BACKBONES
from cram_jax.backbones.alignment import mask_on_image, rectangle_on_image, stage_grids
from tests.checks import assert_tree_finite


@contextlib.contextmanager
def no_promotion():
    with jax.numpy_rank_promotion("raise"), jax.numpy_dtype_promotion("strict"):
        yield


SETTINGS = {
    "no promotion": no_promotion,
    "leak checks": jax.checking_leaks,
    "no NaNs": lambda: jax.debug_nans(True),
    "float64": lambda: jax.enable_x64(True),
    "no jit": lambda: jax.disable_jit(True),
}
# What the others refuse, they refuse while a function is traced.
RUNS = ("no NaNs", "no jit")
# Operations that run one by one, and leak checks, are slow.
SLOW = ("leak checks", "no jit")
MARKED = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in SETTINGS
]
LAYERS = {name: make for name, make in ATTENTIONS.items() if make is not None}
LAYERS["rectangular-several"] = functools.partial(
    cram_jax.RectangularAttention, count=3
)
# One of each family.
NETWORKS = (
    "convnet",
    "resnet18",
    "convnext-tiny",
    "mobilenetv3-small",
    "efficientnet-lite0",
)
SMALL = {
    "convnet": {"widths": (2, 3), "strides": (2, 2), "convolutions": (1, 1)},
    "resnet18": {"depths": (1, 1)},
    "convnext-tiny": {"depths": (1, 1), "widths": (4, 4)},
}


def rectangles(seed=0, shape=(3,)):
    draw = np.random.default_rng(seed).uniform(0.2, 0.8, (*shape, 5))
    return cram_jax.Rectangle.from_array(jnp.asarray(draw, jnp.float32))


def similarities(shape=(3,)):
    return cram_jax.sample_similarity(
        jax.random.key(1), shape, max_angle=1.0, max_scale=1.5, max_shift=0.3
    )


def image(shape=(3, 6, 5, 2)):
    return jax.random.uniform(jax.random.key(2), shape)


(GRID, *_) = stage_grids(BACKBONES["convnet"](2), 32)
GRIDS = GRID, GRID
GEOMETRY = {
    "as_array": lambda: rectangles().as_array(),
    "numbers": lambda: cram_jax.Rectangle(0.1, 0.2, 0.3, np.float32(0.4), 1),
    "canonical": lambda: cram_jax.canonical_rectangle(rectangles()),
    "area": lambda: cram_jax.rectangle_area(rectangles()),
    "corners": lambda: cram_jax.rectangle_corners(rectangles()),
    "covariance": lambda: cram_jax.rectangle_covariance(rectangles()),
    "hull": lambda: cram_jax.rectangle_hull(rectangles()),
    "from raw": lambda: cram_jax.rectangle_from_raw(image((3, 5))),
    "to raw": lambda: cram_jax.rectangle_to_raw(rectangles()),
    "squared": lambda: cram_jax.gaussian_distance_squared(rectangles(), rectangles(1)),
    **{
        metric: functools.partial(
            lambda metric: cram_jax.rectangle_distance(
                rectangles(), rectangles(1, ()), metric=metric
            ),
            metric,
        )
        for metric in ("gaussian", "parameters", "corners")
    },
    "shared": lambda: cram_jax.rectangle_intersection_area(
        rectangles(0, (3, 1)), rectangles(1, (2,))
    ),
    "iou": lambda: cram_jax.rotated_iou(rectangles(), rectangles(1, ())),
    "mask iou": lambda: cram_jax.mask_iou(image()[..., 0], image()[0, ..., 0] > 0.5),
    "mask": lambda: cram_jax.render_mask(rectangles(), 4, 5, sharpness=9.0),
    "hard mask": lambda: cram_jax.render_hard_mask(rectangles(), 4, 5),
    "sharpness": lambda: cram_jax.relative_sharpness(rectangles(), image((3,))),
    "gate": lambda: cram_jax.gate(
        image(), rectangles(), sharpness=np.float32(9), floor=np.float32(0.5)
    ),
    "half gate": lambda: cram_jax.gate(
        image().astype(jnp.bfloat16), rectangles(), sharpness=9.0
    ),
    "apply": lambda: cram_jax.apply_mask(image(), image()[0, ..., 0]),
    "compose": lambda: similarities().compose(similarities(())).inverse(),
    "points": lambda: cram_jax.transform_points(similarities((3, 1)), image((3, 4, 2))),
    "rectangles": lambda: cram_jax.transform_rectangle(similarities(()), rectangles()),
    "warp": lambda: cram_jax.warp_image(similarities(), image(), fill=np.float32(1)),
    "warp one": lambda: cram_jax.warp_image(similarities(), image((6, 5, 2))),
    "half warp": lambda: cram_jax.warp_image(
        similarities(), image().astype(jnp.float16)
    ),
    "inside": lambda: cram_jax.inside_mask(similarities(), 4, 5),
    "on image": lambda: rectangle_on_image(rectangles(), GRIDS, 32, 32),
    "mask on image": lambda: mask_on_image(image((2, 16, 16)), GRIDS, 32, 32),
}


def run(function, *arguments, trace_only):
    if trace_only:
        return jax.eval_shape(jax.jit(function), *arguments)
    # Compiled, except where that is what is switched off.
    result = jax.jit(function)(*arguments)
    assert_tree_finite(result)
    return result


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("function", GEOMETRY)
def test_geometry(name, function):
    with SETTINGS[name]():
        result = run(GEOMETRY[function], trace_only=name not in RUNS)
        assert jax.tree.leaves(result)
        if name == "leak checks":
            return

        def total(factor):
            result = GEOMETRY[function]()
            floating = [
                jnp.sum(leaf.astype(jnp.float32))
                for leaf in jax.tree.leaves(result)
                if jnp.issubdtype(leaf.dtype, jnp.floating)
            ]
            return factor * sum(floating)

        assert jax.eval_shape(jax.grad(total), 1.0).shape == ()


def loss(apply, variables, x):
    out, _ = apply(variables, x, train=True, mutable=["batch_stats", "intermediates"])
    return jnp.sum(out.astype(jnp.float32) ** 2)


def shapes_of(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@pytest.mark.parametrize("name", MARKED)
@pytest.mark.parametrize("layer", LAYERS)
def test_layers_forward_and_backward(name, layer):
    if name in SLOW and layer.startswith("rectangular-"):
        pytest.skip("the operations are nearly those of the layer rectangular")
    x = jax.random.normal(jax.random.key(0), (2, 14, 13, 4))
    with SETTINGS[name]():
        module = LAYERS[layer]()
        variables = jax.jit(module.init)(jax.random.key(0), x)
        both = jax.value_and_grad(functools.partial(loss, module.apply), (0, 1))
        _, gradient = run(both, variables, x, trace_only=name not in RUNS)
    assert shapes_of(gradient) == shapes_of((variables, x))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("network", NETWORKS)
def test_networks_forward_and_backward(name, network):
    make = functools.partial(BACKBONES[network], **SMALL.get(network, {}))
    slow = network not in SMALL and name in ("leak checks", *RUNS)
    if slow or (name == "no jit" and network != "convnet"):
        pytest.skip("the operations are those of the other families")
    side = 32 if network not in SMALL else 16
    x = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    with SETTINGS[name]():
        module = make(5, attention=cram_jax.CBAM, attention_stages=(2,))
        trace_only = name not in RUNS
        variables = run(module.init, jax.random.key(0), x, trace_only=trace_only)
        both = jax.value_and_grad(functools.partial(loss, module.apply), 0)
        _, gradient = run(both, variables, x, trace_only=trace_only)
    assert shapes_of(gradient) == shapes_of(variables)
