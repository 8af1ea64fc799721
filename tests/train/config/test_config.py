"""Configs: refused in one way, read back whole, whatever part of them it is."""

import dataclasses
import json
import math
import typing

import pytest

from train.config.attention import EquivarianceConfig
from train.config.data import DataConfig
from train.config.optimizer import OptimizerConfig
from train.config.output import CheckpointConfig, OutputConfig
from train.config.presets import PRESETS, preset
from train.config.run import FitConfig, to_dict
from train.run.workdir import load_config

SECTIONS = {
    item.name: item.default_factory
    for item in dataclasses.fields(FitConfig)
    if dataclasses.is_dataclass(item.default_factory)
}
WRONG = [
    (OptimizerConfig, "optimizer", {"learning_rate": -1.0}),
    (OptimizerConfig, "optimizer", {"learning_rate": math.nan}),
    (OptimizerConfig, "optimizer", {"momentum": 1.0}),
    (OptimizerConfig, "optimizer", {"step_points": (0.5, 1.5)}),
    (OptimizerConfig, "optimizer", {"scales": (("a", -1.0),)}),
    (OptimizerConfig, "optimizer", {"scales": (("(", 1.0),)}),
    (EquivarianceConfig, "equivariance", {"max_scale": 0.5}),
    (EquivarianceConfig, "equivariance", {"max_angle": -0.1}),
    (EquivarianceConfig, "equivariance", {"fill": 1.5}),
    (CheckpointConfig, "checkpoint", {"keep_latest": 0}),
    (CheckpointConfig, "checkpoint", {"every_steps": 0}),
    (OutputConfig, "output", {"pictures": -1}),
    (OutputConfig, "output", {"evaluate_every": 0.0}),
    (DataConfig, "data", {"threads": 0}),
    (DataConfig, "data", {"erasing": 1.1}),
    (DataConfig, "data", {"mixup": -0.2}),
    (DataConfig, "data", {"cutmix": math.inf}),
    (FitConfig, "", {"epochs": 0.0}),
    (FitConfig, "", {"epochs": math.inf}),
]


@pytest.mark.parametrize(("kind", "section", "given"), WRONG)
def test_a_wrong_value_is_refused_by_its_full_name(kind, section, given):
    (name,) = given
    with pytest.raises(ValueError, match=rf"^{section}\.?{name} must ") as refused:
        kind(**given)
    assert str(refused.value).count("\n") == 0


@pytest.mark.parametrize("section", ["", *SECTIONS])
def test_a_choice_that_there_is_not_is_refused_outside_of_the_command_line_too(section):
    kind = SECTIONS.get(section, FitConfig)
    hints = typing.get_type_hints(kind)
    choices = [name for name, hint in hints.items() if "Literal" in str(hint)]
    for name in choices:
        with pytest.raises(ValueError, match=f"{name} must be one of .*, got 'x'"):
            kind(**{name: "x"})


@pytest.mark.parametrize("name", PRESETS)
def test_a_config_comes_back_from_its_file(tmp_path, name):
    config = dataclasses.replace(preset(name), workdir=tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_dict(config)))
    assert load_config(tmp_path) == config
