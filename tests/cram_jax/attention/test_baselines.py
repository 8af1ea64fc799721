"""Baselines against numpy and scipy with the same weights, and their contract."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import signal

import cram_jax
from cram_jax import Trunk
from cram_jax.attention import positionwise, predictors
from cram_jax.attention.registry import ATTENTIONS, attention_factory, shown_by
from tests.checks import assert_close, assert_tree_finite

LAYERS = {name: make for name, make in ATTENTIONS.items() if make is not None}
PLAIN = [name for name in LAYERS if not name.startswith("rectangular")]
SHAPE = (2, 11, 7, 40)


def features_of(shape=SHAPE, dtype=jnp.float32, seed=0):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def randomised(layer, features, seed=1):
    """Variables with no zero and no one among them, so that each one matters."""
    abstract = jax.eval_shape(layer.init, jax.random.key(0), features)
    rng = np.random.default_rng(seed)

    def draw(leaf):
        # Vectors stay positive: a variance is among them.
        size = rng.uniform(0.05, 0.4, leaf.shape)
        sign = rng.choice([-1, 1], leaf.shape) if len(leaf.shape) > 1 else 1
        return jnp.asarray(sign * size, jnp.float32)

    kept = {key: abstract[key] for key in abstract if key != "intermediates"}
    return jax.tree.map(draw, kept)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_declares_what_it_shows(name):
    layer, features = LAYERS[name](), jnp.zeros(SHAPE)

    def show(features):
        variables = layer.init(jax.random.key(0), features)
        return layer.apply(variables, features, mutable=["intermediates"])[1]

    sown = jax.eval_shape(show, features).get("intermediates", {})
    assert set(shown_by(LAYERS[name])) == {"rectangle", "mask"} & set(sown)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def dense(parameters, x):
    return x @ parameters["kernel"] + parameters["bias"]


def correlate(kernel, x):
    """`[H, W, C]` with a `[k, k, C, 1]` kernel, zero outside, as `[H, W]`."""
    return sum(
        signal.correlate2d(x[..., c], kernel[..., c, 0], "same", "fill", 0)
        for c in range(x.shape[-1])
    )


def oracle_positionwise(variables, x):
    parameters = variables["params"]["mask_predictor"]
    pooled = np.stack([x.mean(-1), x.max(-1)], -1)
    logits = np.stack([correlate(parameters["kernel"], one) for one in pooled])
    mask = sigmoid(logits + parameters["bias"] + np.log(0.95 / 0.05))
    return x * mask[..., None]


def oracle_squeeze_excite(variables, x):
    mlp = variables["params"]["mlp"]
    hidden = np.maximum(dense(mlp["reduce"], x.mean((1, 2))), 0)
    return x * sigmoid(dense(mlp["expand"], hidden))[:, None, None, :]


def oracle_scse(variables, x):
    spatial = dense(variables["params"]["spatial"], x)
    return oracle_squeeze_excite(variables, x) + x * sigmoid(spatial)


def oracle_cbam(variables, x):
    parameters = variables["params"]

    def perceptron(pooled):
        hidden = np.maximum(dense(parameters["channel"]["reduce"], pooled), 0)
        return dense(parameters["channel"]["expand"], hidden)

    channel = sigmoid(perceptron(x.mean((1, 2))) + perceptron(x.max((1, 2))))
    x = x * channel[:, None, None, :]
    pooled = np.stack([x.mean(-1), x.max(-1)], -1)
    kernel = parameters["spatial"]["kernel"]
    return x * sigmoid(np.stack([correlate(kernel, one) for one in pooled]))[..., None]


def oracle_efficient_channel(variables, x):
    kernel = variables["params"]["along_channels"]["kernel"][:, 0, 0]
    means = x.mean((1, 2))
    logits = np.stack([np.correlate(one, kernel, "same") for one in means])
    return x * sigmoid(logits)[:, None, None, :]


def oracle_coordinate(variables, x):
    parameters, height = variables["params"], x.shape[1]
    statistics = variables["batch_stats"]["norm"]
    profiles = np.concatenate([x.mean(2), x.mean(1)], axis=1)
    profiles = dense(parameters["reduce"], profiles) - statistics["mean"]
    profiles = profiles / np.sqrt(statistics["var"] + 1e-5)
    profiles = profiles * parameters["norm"]["scale"] + parameters["norm"]["bias"]
    profiles = profiles * np.clip(profiles + 3, 0, 6) / 6
    rows = sigmoid(dense(parameters["rows"], profiles[:, :height]))
    columns = sigmoid(dense(parameters["columns"], profiles[:, height:]))
    return x * rows[:, :, None, :] * columns[:, None, :, :]


ORACLES = {
    "positionwise-pooled": oracle_positionwise,
    "squeeze-excite": oracle_squeeze_excite,
    "scse": oracle_scse,
    "cbam": oracle_cbam,
    "efficient-channel": oracle_efficient_channel,
    "coordinate": oracle_coordinate,
}


@pytest.mark.parametrize("name", ORACLES)
@pytest.mark.parametrize("shape", [SHAPE, (1, 1, 1, 40)])
def test_layer_equals_its_numpy_twin(name, shape):
    layer, features = LAYERS[name](), features_of(shape)
    variables = randomised(layer, features)
    double = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables)
    expected = ORACLES[name](double, np.asarray(features, np.float64))
    actual = jax.jit(layer.apply)(variables, features)
    assert_close(actual, expected)
    assert not np.allclose(actual, features, atol=1e-2), "the layer did nothing"


def oracle_enlarge(grid, cell, height, width):
    """Bilinear at half-pixel centres, edges repeated, one pixel at a time."""
    result = np.empty((height, width))
    for y in range(height):
        for x in range(width):
            v = np.clip((y + 0.5) / cell - 0.5, 0, grid.shape[0] - 1)
            u = np.clip((x + 0.5) / cell - 0.5, 0, grid.shape[1] - 1)
            top, left = int(v), int(u)
            low, right = (
                min(top + 1, grid.shape[0] - 1),
                min(left + 1, grid.shape[1] - 1),
            )
            upper = grid[top, left] * (1 - u + left) + grid[top, right] * (u - left)
            lower = grid[low, left] * (1 - u + left) + grid[low, right] * (u - left)
            result[y, x] = upper * (1 - v + top) + lower * (v - top)
    return result


@pytest.mark.parametrize(("height", "width"), [(11, 7), (35, 18), (1, 1), (1, 33)])
def test_trunk_form_is_the_enlarged_map_of_the_moment_predictors_trunk(height, width):
    features = features_of((2, height, width, 6))
    layer = LAYERS["positionwise-trunk"](floor=0.2)
    variables = randomised(layer, features)
    moment = predictors.MomentPredictor()
    inner = {"params": {"trunk": variables["params"]["mask_predictor"]}}
    inner["params"]["log_factor"] = jnp.zeros(())
    # The moment predictor runs with these very parameters and sows its own heat map.
    apply = functools.partial(moment.apply, mutable=["intermediates"])
    _, sown = jax.jit(apply)(inner, features)
    heat = np.asarray(sown["intermediates"]["heat"][0], np.float64)
    cell = -(-max(height, width) // Trunk.max_grid)
    logits = np.stack([oracle_enlarge(one, cell, height, width) for one in heat])
    mask = 0.2 + 0.8 * sigmoid(logits + np.log(0.95 / 0.05))
    gated = jax.jit(layer.apply)(variables, features)
    assert_close(gated, features * mask[..., None])


def test_position_wise_layers_start_nearly_open_like_the_rectangular_one():
    features = features_of((2, 12, 12, 16))
    for name in ("positionwise-trunk", "positionwise-pooled", "rectangular"):
        layer = LAYERS[name]()
        init = functools.partial(layer.init_with_output, mutable=True)
        _, sown = jax.jit(init)(jax.random.key(0), features)
        mask = sown["intermediates"]["mask"][0]
        assert mask.shape == (2, 12, 12)
        assert mask.mean() > (0.85 if name == "positionwise-pooled" else 0.9)


def test_trunk_form_has_the_parameters_of_the_moment_predictor_less_its_factor():
    features = features_of((1, 8, 8, 16))

    def count(name):
        variables = jax.eval_shape(LAYERS[name]().init, jax.random.key(0), features)
        return sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))

    assert count("positionwise-trunk") == count("rectangular-moment") - 1


@pytest.mark.parametrize(
    ("channels", "size"), [(1, 1), (8, 3), (64, 3), (128, 5), (256, 5), (512, 5)]
)
def test_efficient_channel_kernel_adapts_as_the_authors_code_does(channels, size):
    layer = cram_jax.EfficientChannelAttention()
    features = features_of((2, 2, channels))
    variables = jax.eval_shape(layer.init, jax.random.key(0), features)
    assert variables["params"]["along_channels"]["kernel"].shape == (size, 1, 1)


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_shape_and_dtype_stay_and_statistics_are_precise(name, dtype):
    # Float16 cannot hold the sum of these, nor bfloat16 their mean's third digit.
    features = (10 + features_of((2, 37, 31, 24))).astype(dtype)
    layer = LAYERS[name]()
    variables = randomised(layer, features)
    actual = jax.jit(layer.apply)(variables, features)
    assert (actual.shape, actual.dtype) == (features.shape, dtype)
    expected = jax.jit(layer.apply)(variables, features.astype(jnp.float32))
    assert_close(actual, expected, rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("name", LAYERS)
def test_half_precision_fields_reach_the_parameters(name):
    layer = LAYERS[name](dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    features = features_of(dtype=jnp.bfloat16)
    abstract = jax.eval_shape(layer.init, jax.random.key(0), features)
    dtypes = {leaf.dtype for leaf in jax.tree.leaves(abstract["params"])}
    assert dtypes == {jnp.dtype(jnp.bfloat16)}
    assert jax.eval_shape(layer.apply, abstract, features).dtype == jnp.bfloat16


@pytest.mark.parametrize("name", LAYERS)
def test_an_empty_batch_stays_empty(name):
    features = features_of((2, 5, 6, 8))
    layer = LAYERS[name]()
    variables = randomised(layer, features)
    gated = jax.eval_shape(layer.apply, variables, features[:0])
    assert gated.shape == (0, 5, 6, 8)


@pytest.mark.parametrize("name", PLAIN)
def test_batch_axes_vmap_jit_and_remat_change_nothing(name):
    features = features_of((2, 3, 5, 4, 9))
    layer = LAYERS[name]()
    variables = randomised(layer, features)
    apply = functools.partial(layer.apply, variables)
    expected = np.stack([jax.jit(apply)(batch) for batch in features])
    assert_close(jax.jit(apply)(features[1, 2]), expected[1, 2])
    again = functools.partial(
        nn.remat(type(layer))(**fields_of(layer)).apply, variables
    )
    for transformed in (apply, again, jax.vmap(jax.vmap(apply))):
        assert_close(jax.jit(transformed)(features), expected)


def fields_of(layer):
    names = set(layer.__dataclass_fields__) - {"parent", "name"}
    return {name: getattr(layer, name) for name in names}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kind", ["random", "one pixel, all channels equal"])
def test_gradients_are_finite_and_reach_every_parameter(name, kind):
    shape = (3, 5, 4, 8) if kind == "random" else (3, 1, 1, 8)
    features = features_of(shape) if kind == "random" else jnp.ones(shape)
    layer = LAYERS[name]()
    variables = randomised(layer, features)
    statistics = {key: variables[key] for key in variables if key != "params"}

    def loss(params, features):
        gated, _ = layer.apply(
            {"params": params, **statistics},
            features,
            train=True,
            mutable=["batch_stats"],
        )
        return jnp.sum(gated * jnp.arange(shape[-1]))

    gradients = jax.jit(jax.grad(loss, (0, 1)))(variables["params"], features)
    assert_tree_finite(gradients)
    if kind == "random":
        # A bias before a BatchNorm has no effect by construction.
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients[0]):
            names = jax.tree_util.keystr(path)
            dead = name == "coordinate" and names == "['reduce']['bias']"
            assert dead or np.any(np.asarray(leaf) != 0), names


@pytest.mark.parametrize("name", PLAIN)
def test_gradient_of_the_features_equals_finite_differences(name, x64):
    features = jax.random.normal(jax.random.key(3), (3, 4, 6), jnp.float64)
    direction = jax.random.normal(jax.random.key(4), (3, 4, 6), jnp.float64)
    layer = LAYERS[name](param_dtype=jnp.float64)
    variables = randomised(layer, features)
    variables = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), variables)

    @jax.jit
    def loss(features):
        return jnp.sum(jnp.sin(jnp.asarray(layer.apply(variables, features))))

    step = 1e-5
    ahead, behind = loss(features + step * direction), loss(features - step * direction)
    slope = jnp.vdot(jax.jit(jax.grad(loss))(features), direction)
    assert_close(slope, (ahead - behind) / (2 * step), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "sown"),
    [
        ("positionwise-pooled", {"mask"}),
        ("positionwise-trunk", {"mask"}),
        ("cbam", {"mask", "channel_mask"}),
        ("squeeze-excite", {"channel_mask"}),
        ("efficient-channel", {"channel_mask"}),
        ("coordinate", {"mask"}),
    ],
)
def test_what_multiplies_is_sown(name, sown):
    features = jnp.ones((2, 5, 4, 6))
    layer = LAYERS[name]()
    variables = randomised(layer, features)
    apply = functools.partial(layer.apply, mutable=["intermediates"])
    gated, state = jax.jit(apply)(variables, features)
    masks = state["intermediates"]
    assert set(masks) == sown
    # On ones the output is the product of the masks.
    spatial = masks["mask"][0][..., None] if "mask" in sown else 1.0
    channel = masks["channel_mask"][0][:, None, None] if "channel_mask" in sown else 1.0
    if name == "coordinate":
        gated = gated.mean(-1, keepdims=True)
    assert_close(gated, jnp.broadcast_to(spatial * channel, gated.shape))


@pytest.mark.parametrize("name", ["positionwise-pooled", "positionwise-trunk"])
def test_the_part_that_predicts_the_mask_is_called_predictor(name):
    layer = LAYERS[name]()
    variables = jax.eval_shape(layer.init, jax.random.key(0), features_of())
    assert set(variables["params"]) == {"mask_predictor"}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    ("features", "message"),
    [
        (jnp.zeros((4, 4)), r"got shape \(4, 4\)"),
        (jnp.zeros((4, 4, 3), jnp.int32), "must be floating point, got int32"),
    ],
)
def test_wrong_features_are_refused(name, features, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(LAYERS[name]().init, jax.random.key(0), features)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "trunks"}, "form must be 'pooled' or 'trunk'; got 'trunks'"),
        ({"floor": 1.0}, "floor must be"),
        ({"initial_mask": 1.0}, "initial_mask must lie between 0 and 1"),
    ],
)
def test_wrong_fields_are_refused(options, message):
    layer = positionwise.PositionwiseAttention(**options)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(layer.init, jax.random.key(0), features_of())


def test_an_unknown_attention_is_answered_with_the_names_there_are():
    with pytest.raises(ValueError, match=r"Did you mean 'cbam'\?.*squeeze-excite"):
        attention_factory("cban")
    with pytest.raises(ValueError, match=r"'qqq'\. There are: none, rectangular,"):
        attention_factory("qqq")
    assert attention_factory("none") is None


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_fits_a_slot(name):
    factory = attention_factory(name)
    assert factory is not None
    layer = factory(dtype=None, param_dtype=jnp.float32, name="attention1")
    table = layer.tabulate(
        jax.random.key(0),
        features_of((1, 4, 4, 8)),
        console_kwargs={"width": 200, "force_terminal": False},
    )
    assert type(layer).__name__ in table
