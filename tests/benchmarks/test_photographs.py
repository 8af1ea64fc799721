"""The photographs benchmark: its arms, its files, its picture."""

import json

import numpy as np
import pytest

from benchmarks import photographs
from benchmarks.photographs import STUDIES, Arm, Options, fit_arguments, planned_runs
from benchmarks.photographs_picture import outlined, spread_indices
from benchmarks.photographs_verdicts import BEST
from benchmarks.tables import shown_command
from tests.benchmarks.made_up_photographs import evaluation
from train.commands.options import parse_fit

ARMS = {arm.name: arm for study in STUDIES.values() for arm in study}


@pytest.mark.parametrize("arm", ARMS.values(), ids=ARMS.keys())
def test_every_arm_is_a_config_of_fit_that_differs_in_the_layer_only(arm):
    config = parse_fit(fit_arguments(Options(), "pets3", arm, 3))
    best = parse_fit(fit_arguments(Options(), "pets3", Arm("rectangular"), 3))
    assert (config.seed, config.model.attention) == (3, arm.layer)
    assert (config.data, config.epochs) == (best.data, best.epochs)
    assert config.optimizer.freeze == best.optimizer.freeze
    assert config.budget.is_on == (arm.layer != "none" and arm.asked != "labels")
    assert (config.equivariance.weight > 0) == (arm.equivariance > 0)
    assert arm.layer == "none" or config.model.attention_stages == (arm.stage,)


def test_an_interrupted_study_has_whole_pairs():
    planned = list(planned_runs(Options(seeds=2)).values())
    claimed = [arm.name for arm in STUDIES["claims"]]
    first = [(name, arm, 0) for name in Options().sets for arm in claimed]
    assert planned[: len(first)] == first


def test_results_of_runs_that_are_there_are_written_without_training(tmp_path, capsys):
    for arm in (BEST.arm, "none"):
        for seed in range(2):
            place = tmp_path / "runs" / "pets3" / f"{arm}-{seed}"
            place.mkdir(parents=True)
            scored = evaluation(0.9, 0.8 if arm != "none" else None)
            (place / "evaluation.json").write_text(json.dumps(scored))
            lines = [{"kind": "train", "step": s, "seconds": 7.0 * s} for s in (1, 2)]
            text = "".join(json.dumps(line) + "\n" for line in lines)
            (place / "metrics.jsonl").write_text(text)
    results = tmp_path / "out" / "photographs"
    places = ["--workdir", str(tmp_path / "runs"), "--results", str(results)]
    photographs.main(["--only-report", "--sets", "pets3", *places])
    record = json.loads(results.with_suffix(".json").read_text())
    assert {arm: len(of) for arm, of in record["runs"]["pets3"].items()} == {
        "none": 2,
        BEST.arm: 2,
    }
    assert record["runs"]["pets3"]["none"]["1"]["cost"]["seconds"] == 14.0
    text = results.with_suffix(".md").read_text()
    assert str(tmp_path) not in text
    assert "--sets pets3" in text
    assert "box 0.5 0.800" in capsys.readouterr().out


def test_a_quick_try_leaves_the_studys_files_alone():
    options = photographs.quick_places(Options(quick=True))
    assert options.workdir == Options().workdir / "quick"
    assert options.results.parent == options.workdir
    assert photographs.quick_places(Options()) == Options()
    assert len(planned_runs(options)) == len(ARMS) * 2


def test_the_command_names_what_changes_results_and_no_places():
    options = Options(jobs=2, seeds=3, sets=("a b",), only_report=True)
    assert shown_command("m", options) == "python -m m --sets 'a b' --seeds 3"
    assert shown_command("m", Options(quick=True)) == "python -m m --quick"


def test_pictured_photographs_are_spread_over_the_list():
    assert spread_indices(4, 298).tolist() == [37, 111, 186, 260]
    assert spread_indices(4, 2).tolist() == [0, 1]


def test_an_outline_is_the_edge_of_the_object():
    mask = np.zeros((9, 9), bool)
    mask[2:7, 3:8] = True
    found = outlined(np.full((9, 9, 3), 100, np.uint8), mask)
    edge = np.zeros_like(mask)
    edge[2:7, 3:8] = True
    edge[3:6, 4:7] = False
    assert (found == 255).all(axis=-1).tolist() == edge.tolist()
    assert (found[3:6, 4:7] == 100).all()
