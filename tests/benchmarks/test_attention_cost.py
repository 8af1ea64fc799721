"""The cost benchmark at tiny sizes."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import attention_cost, cost_torch
from benchmarks.cost_layers import (
    LAYERS,
    floor_functions,
    layer_functions,
    measure_map,
)
from benchmarks.cost_networks import (
    NETWORKS,
    SINGLE_STAGES,
    make_step,
    measure_network,
)
from benchmarks.cost_report import accuracies_and_costs, draw_accuracy
from benchmarks.timing import interleaved, relative
from cram_jax.attention.registry import ATTENTIONS, attention_factory
from cram_jax.backbones import backbone
from train.config.presets import preset


def test_layers_are_all_of_the_package_but_none_and_a_second_name():
    assert set(ATTENTIONS) - set(LAYERS) == {"none", "rectangular-moment"}


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_is_differentiated_with_respect_to_parameters_and_map(name):
    x = jnp.ones((2, 8, 8, 16))
    forward, both, params = layer_functions(name, x)
    y, (gradient, dx) = jax.eval_shape(both, params, x, x)
    assert y.shape == dx.shape == x.shape == jax.eval_shape(forward, params, x).shape
    assert jax.tree.structure(gradient) == jax.tree.structure(params)


def test_floors_do_read_and_write_all_of_the_map():
    x = np.random.default_rng(0).normal(size=(2, 3, 3, 4)).astype(np.float32)
    for forward, both in floor_functions().values():
        y, dx = both(x, 2 * x)
        np.testing.assert_allclose(y, forward(x), rtol=1e-5)
        # Each depends on a statistic over many elements, so on two passes.
        for changed, old in ((forward(x + 1), y), (both(x + 1, 2 * x)[1], dx)):
            assert (np.asarray(changed) != np.asarray(old)).all()


def test_ratios_are_taken_within_a_round():
    assert relative([2.0, 30.0, 4.0], [1.0, 10.0, 1.0]) == [2.5, 3.0, 3.5]
    times = interleaved({"a": lambda: jnp.ones(3), "b": lambda: jnp.ones(2)}, 3)
    assert [len(times[n][c]) for n in "ab" for c in ("wall", "cpu")] == [3] * 4


def test_a_tiny_run_writes_tables_and_merges_with_what_was_there(tmp_path, monkeypatch):
    monkeypatch.setattr(attention_cost, "MAPS", {"tiny": ((4, 4, 8),)})
    results = tmp_path / "cost"
    common = ["--maps", "tiny", "--batch", "2", "--rounds", "2", "--no-networks"]
    common += ["--layers", "squeeze-excite", "--results", str(results), "--dtypes"]
    attention_cost.main([*common, "float32"])
    attention_cost.main([*common, "float32"])
    attention_cost.main([*common, "bfloat16"])
    record = json.loads(results.with_suffix(".json").read_text())
    assert [each["dtype"] for each in record["maps"]] == ["float32", "bfloat16"]
    layer = record["maps"][0]["layers"]["squeeze-excite"]
    # C = 8 to one hidden unit and back, both with biases.
    assert layer["parameters"] == 8 + 1 + 8 + 8
    assert layer["both"]["flops"] > layer["forward"]["flops"] > 0
    low, middle, high = layer["both"]["to_floor"]
    assert 0 < low <= middle <= high
    assert layer["both"]["temporary_bytes"] >= 0
    text = (tmp_path / "cost_tables.md").read_text()
    assert "2x4x4x8" in text
    assert results.with_suffix(".png").stat().st_size > 1000


def test_in_growing_maps_one_side_grows():
    for name, axis in (("batch", 0), ("size", 1), ("channels", 3)):
        shapes = attention_cost.shapes_of(f"growing-{name}", attention_cost.Options())
        assert all(len(shape) == 4 for shape in shapes)
        sides = [shape[axis] for shape in shapes]
        assert sides == sorted(set(sides))
        rest = {
            tuple(np.delete(shape, (1, 2) if axis == 1 else axis)) for shape in shapes
        }
        assert len(rest) == 1


@pytest.mark.parametrize("option", ["maps", "networks", "layers", "dtypes"])
def test_an_unknown_name_is_refused_before_anything_is_measured(option, tmp_path):
    results = str(tmp_path / "cost")
    with pytest.raises(SystemExit, match=f"--{option} has no 'resnet'; there are: "):
        attention_cost.main([f"--{option}", "resnet", "--results", results])
    assert not list(tmp_path.iterdir())


def test_torch_is_asked_for_before_anything_is_measured(tmp_path, monkeypatch):
    def missing(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(cost_torch.importlib, "import_module", missing)
    with pytest.raises(SystemExit, match="needs torch, torchvision and timm"):
        attention_cost.main(["--torch", "--results", str(tmp_path / "cost")])
    assert not list(tmp_path.iterdir())


@pytest.mark.torch
# torch warns of its own use of what it deprecates.
@pytest.mark.filterwarnings("default")
def test_timm_layers_are_measured_beside_ours():
    name = "timm squeeze-excite"
    record = measure_map((2, 4, 4, 16), "float32", ("squeeze-excite",), 2, (name,))
    theirs, ours = record["layers"][name], record["layers"]["squeeze-excite"]
    # 16 channels to 8 hidden units, timm's least, and back; with biases.
    assert theirs["parameters"] == 16 * 8 + 8 + 8 * 16 + 16
    for phase in ("forward", "both"):
        assert theirs[phase]["to_floor"][1] > 0
        assert set(theirs[phase]) < set(ours[phase])


def test_accuracy_is_set_against_the_cost_of_the_same_layer(tmp_path):
    # The accuracies are those of the layer after the second stage.
    costs = {2: [1.1, 1.2, 1.3], 1: [1.3, 1.4, 1.5], 3: [1.0, 1.1, 1.2]}
    measured = [
        {"layer": "rectangular", "stages": [stage], "cpu_to_none": cost}
        for stage, cost in costs.items()
    ]
    record = {"nets": [{"network": "digits", "runs": measured}]}
    arms = ["none-4000", "rectangular-moment+loss-stage2-4000", "other-stage2-4000"]
    runs = {
        arm: [{"test": {"accuracy": value}} for value in (0.7, 0.9)] for arm in arms
    }
    digits = {"studies": {"layers": arms}, "runs": runs}
    points = accuracies_and_costs(record, digits)
    assert list(points) == ["none", "rectangular-moment+loss"]
    assert [cost for cost, *_ in points.values()] == [1.0, 1.2]
    for _, mean, interval in points.values():
        assert mean == pytest.approx(0.8)
        # Student's t with one degree of freedom.
        assert interval == pytest.approx(12.706 * 0.1, rel=1e-3)
    draw_accuracy(points, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 1000


def test_a_network_is_measured_with_and_without_the_layer():
    record = measure_network("convnet", ("squeeze-excite",), [(3,)], 2, 16, 2)
    (run,) = record["runs"]
    assert run["more_parameters"] > 0
    assert run["more_flops"] > 0
    assert run["to_none"][1] > 0


def test_the_digits_step_is_that_of_the_preset():
    step, (state, batch), count = make_step("digits", "rectangular", (2,), 8, 48)
    after = jax.eval_shape(step, state, batch)
    assert jax.tree.structure(after) == jax.tree.structure(state)
    assert count == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert "attention2" in state.params


def test_four_layers_add_little_to_resnet50():
    def count(layer):
        model = backbone("resnet50")(
            1000,
            attention=attention_factory(layer),
            attention_stages=() if layer == "none" else (1, 2, 3, 4),
        )
        images = jnp.zeros((1, 64, 64, 3))
        params = jax.eval_shape(model.init, jax.random.key(0), images)["params"]
        return sum(leaf.size for leaf in jax.tree.leaves(params))

    bare = count("none")
    assert bare == 25_557_032  # torchvision's
    assert 0 < count("rectangular") - bare <= 0.002 * bare


@pytest.mark.parametrize("network", NETWORKS)
def test_networks_have_the_stages_that_layers_are_put_after(network):
    stages = tuple(sorted({*NETWORKS[network], *SINGLE_STAGES[network]}))
    name = preset("digits").model.backbone if network == "digits" else network
    model = backbone(name)(
        10, attention=attention_factory("squeeze-excite"), attention_stages=stages
    )
    images = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    layers = [key for key in shapes["params"] if key.startswith("attention")]
    assert len(layers) == len(stages)


def test_an_unknown_layer_is_refused():
    with pytest.raises(ValueError, match="Unknown attention 'cram'"):
        make_step("digits", "cram", (2,), 8, 48)
