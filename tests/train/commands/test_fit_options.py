"""The config of `fit`: from a preset, from the run itself, and what does not fit."""

import dataclasses
import subprocess
import sys

import jax
import pytest

from tests.tiny_runs import INPUTS, PATIENCE, tiny_config
from train.commands.options import parse_fit
from train.config.attention import BudgetConfig
from train.config.output import HostsConfig
from train.config.presets import preset
from train.errors import UserError
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.run.claim import claimed
from train.run.workdir import load_config


def switched_off(capsys):
    (line,) = [x for x in capsys.readouterr().out.splitlines() if "Switched off" in x]
    return line


def test_the_baseline_of_a_preset_is_one_option_away(capsys):
    config = parse_fit(["--preset", "digits", "--model.attention", "none"])
    said = switched_off(capsys)
    assert "for model.attention none cannot do what the preset asks" in said
    assert said.endswith(": equivariance.weight 0.3, budget.area 0.12.")
    whole = preset("digits")
    # Both networks see the same images, moved ones included.
    moving = dataclasses.replace(whole.equivariance, weight=0.0)
    model = dataclasses.replace(whole.model, attention="none")
    assert config == dataclasses.replace(
        whole, equivariance=moving, model=model, budget=BudgetConfig()
    )
    inputs = dataclasses.replace(INPUTS, image_shape=(48, 48, 1), truth="none")
    experiment = make_experiment(config, inputs, JitParallel(jax.devices()[:1]))
    assert experiment.layers == {}


@pytest.mark.parametrize(
    ("attention", "gone"),
    [
        ("none", {"budget.area", "budget.outside", "budget.mask_dropout", "fill"}),
        ("squeeze-excite", {"budget.area", "budget.outside", "budget.mask_dropout"}),
        ("positionwise-trunk", set()),
        ("rectangular-regression", set()),
    ],
)
def test_what_a_layer_can_do_of_a_preset_stays(capsys, attention, gone):
    words = ["--preset=photographs", f"--model.attention={attention}"]
    config = parse_fit(words)
    off = BudgetConfig()
    for name in ("area", "outside", "mask_dropout"):
        is_off = getattr(config.budget, name) == getattr(off, name)
        assert is_off == (f"budget.{name}" in gone)
    if gone:
        said = switched_off(capsys)
        assert all(name in said for name in gone)
    else:
        assert "Switched off" not in capsys.readouterr().out
        assert config.model.attention_fill == "mean"


def test_a_mask_without_a_rectangle_has_no_equivariance(capsys):
    config = parse_fit(["--preset=digits", "--model.attention=positionwise-trunk"])
    assert config.equivariance.weight == 0
    assert "equivariance.weight 0.3" in switched_off(capsys)


@pytest.mark.parametrize("base", [[], ["--preset", "digits"]])
@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--equivariance.weight=0.2"], "--equivariance.weight needs a layer with a"),
        (["--budget.area", "0.3"], "--budget.area needs a layer with a spatial mask"),
        (["--budget.mask_dropout", "0.3"], "--budget.mask-dropout needs a layer"),
        (["--model.attention-fill=mean"], "--model.attention-fill needs a layer"),
        (["--model.attention-count=2"], "--model.attention-count needs a layer with"),
    ],
)
def test_what_was_typed_is_refused(base, words, named):
    with pytest.raises(UserError, match=r"model.attention is 'none'") as error:
        parse_fit([*base, "--model.attention", "none", *words])
    assert str(error.value).startswith(named)


@pytest.fixture
def run(tmp_path):
    """A run that was killed before its first checkpoint."""
    workdir = tmp_path / "run"
    hosts = HostsConfig(coordinator="here:1", count=2, index=1)
    with claimed(tiny_config(workdir, seed=7, hosts=hosts), INPUTS):
        pass
    return workdir


def test_a_run_alone_goes_on_with_its_own_config(run):
    config = parse_fit(["--workdir", str(run)])
    # With whom work is shared is a matter of each start.
    own = dataclasses.replace(load_config(run), hosts=HostsConfig())
    assert config == own
    assert config.seed == 7


def test_options_that_are_typed_count_and_the_others_are_the_runs_own(run):
    typed = [f"--workdir={run}", "--epochs", "9"]
    assert parse_fit(typed).seed == 0  # It has no checkpoint: one may begin anew.
    (run / "checkpoints" / "3").mkdir(parents=True)
    config = parse_fit(typed)
    assert config.seed == 7
    assert config.epochs == 9
    assert parse_fit(["--preset=digits", *typed]).seed == 0


def test_reading_options_starts_no_devices_for_hosts_are_not_joined_yet(run):
    (run / "checkpoints" / "3").mkdir(parents=True)
    preset = ["--preset", "photographs", "--model.attention", "cbam"]
    program = f"""
from train.commands.options import parse_fit
parse_fit(["--workdir", {str(run)!r}])
parse_fit({preset})
parse_fit(["--equivariance.weight=0.1", "--model.attention=rectangular"])
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=PATIENCE)
