import dataclasses
import json

import jax
import numpy as np
import pytest

from benchmarks import digits_further
from benchmarks.digits import STUDIES, Options, fit_arguments, planned_runs
from benchmarks.digits_further import BATCH, FILE, further_batches, further_scores
from benchmarks.digits_report import markdown, write
from benchmarks.tables import cell, run_all, score, verdict
from train.commands.options import parse_fit
from train.config.differences import differing_fields
from train.config.presets import preset
from train.config.run import to_dict
from train.data.facts import Facts
from train.data.sources.digits.cluttered import make_sample
from train.evidence.equivariance_error import MAX_ANGLE, MAX_SCALE, MAX_SHIFT
from train.learning.devices import JitParallel
from train.learning.experiment import make_experiment
from train.run.checkpoints.restore import Trained


def evaluation(accuracy, iou=None):
    scores = {"accuracy": accuracy}
    if iou is not None:
        names = ("iou", "mask_iou", "corloc", "center_error", "mass_on_object")
        scores |= {f"attention2/{name}": iou for name in names}
        scores["attention2/equivariance_iou"] = iou
    return {"test": scores, "train": {"accuracy": 1.0}}


@pytest.mark.parametrize("arm", STUDIES["layers"], ids=lambda arm: arm.name)
def test_every_arm_is_a_config_of_fit(arm):
    config = parse_fit(fit_arguments(arm, 3, 2.0))
    assert config.model.attention == arm.layer
    assert config.model.attention_stages == (2,)
    assert (config.seed, config.data.train_examples) == (3, 4000)
    # The loss is for some; the moved images are for all.
    assert (config.equivariance.weight > 0) == arm.loss
    assert config.equivariance.moves_images


def test_all_arms_of_the_comparison_take_the_same_steps():
    once = planned_runs(Options(epochs=6.0, seeds=1, more_seeds=1)).values()
    configs = [parse_fit(arguments) for _, arguments in once]
    images = {config.epochs * (config.data.train_examples or 0) for config in configs}
    assert images == {24_000}
    assert {config.batch_size for config in configs} == {Options().batch_size}
    # 7 layers of 5 seeds; two of them at two more stages, three with two more numbers
    # of images, 7 changes, and 2 heavier losses.
    assert len(planned_runs(Options())) == 7 * 5 + (2 * 2 + 3 * 2 + 7 + 2) * 3


def test_every_change_of_the_ablation_changes_one_thing():
    base, *changed = STUDIES["ablation"]
    configs = [to_dict(parse_fit(fit_arguments(arm, 0, 1.0))) for arm in changed]
    same = to_dict(parse_fit(fit_arguments(base, 0, 1.0)))
    for config in configs:
        assert len(differing_fields([config, same])) == 1


def test_heavier_losses_are_trained_on_what_is_evaluated():
    for arm, weight in zip(STUDIES["movement"][2:], (1, 10), strict=True):
        moving = parse_fit(fit_arguments(arm, 0, 1.0)).equivariance
        assert moving.weight == weight
        assert (moving.max_scale, moving.max_shift) == (MAX_SCALE, MAX_SHIFT)
        assert moving.max_angle == pytest.approx(MAX_ANGLE, abs=1e-4)


def test_score_of_the_layer_is_found_whatever_its_name():
    assert score(evaluation(0.9, iou=0.5), "test/L/iou") == 0.5
    assert score(evaluation(0.9), "test/L/iou") is None
    assert score(evaluation(0.9), "test/accuracy") == 0.9


def test_cells_show_mean_and_student_interval():
    # Student's t for 2 degrees of freedom: 4.303 * 0.1 / sqrt(3) = 0.248.
    assert cell([0.4, 0.5, 0.6], 3) == "0.500 ± 0.248"
    assert cell([0.5], 2) == "0.50"
    assert cell([0.5, None], 2) == ""


def test_a_verdict_needs_the_interval_on_one_side_of_zero():
    assert verdict([0.01, 0.011, 0.012]).startswith("**holds**")
    assert verdict([0.01, 0.011, 0.012], better=-1).startswith("**fails**")
    assert verdict([-0.01, 0.011, 0.012]).startswith("**undecided**")
    assert verdict([0.01]).startswith("undecided")


def record(studies):
    arms = {study: [arm.name for arm in STUDIES[study]] for study in studies}
    runs = {}
    for names in arms.values():
        for index, name in enumerate(names):
            iou = None if name.startswith("none") else 0.5
            accuracies = (0.90 + index / 100, 0.92 + index / 100)
            runs[name] = [evaluation(accuracy, iou) for accuracy in accuracies]
    return {"command": "c", "machine": "m", "studies": arms, "runs": runs}


def test_page_pairs_the_seeds_and_shows_each():
    text = markdown(record(["preset"]))
    assert "- rectangular-moment+loss-stage2-16000: +0.0100 ± 0.0000; above" in text
    assert "| none-16000, seed 1 | 0.9200 | 1.0000 | 0.0800 |" in text


def test_the_whole_page_and_its_curves(tmp_path):
    write(record(["layers", "stages", "examples", "ablation"]), tmp_path / "digits")
    text = (tmp_path / "digits.md").read_text()
    assert text.count("**holds**") + text.count("**fails**") >= 5
    assert (tmp_path / "digits_curves.png").stat().st_size > 10_000


def test_further_images_have_a_column_and_pairs_of_their_own():
    measured = record(["preset"])
    for index, runs in enumerate(measured["runs"].values()):
        for run in runs:
            run["further"] = {"accuracy": 0.9 + index / 50, "images": 10_000.0}
    text = markdown(measured)
    assert "The same on 10,000 further test images" in text
    assert "- rectangular-moment+loss-stage2-16000: +0.0200 ± 0.0000; above" in text
    # Studies without them do not show an empty column.
    assert "further" not in markdown(record(["layers"]))


def test_further_images_are_new_and_have_their_truth():
    (batch,) = further_batches(BATCH)
    assert batch["image"].shape == (BATCH, 48, 48, 1)
    first = make_sample("test", 2_000)
    np.testing.assert_array_equal(batch["image"][0, ..., 0], first.image)
    np.testing.assert_array_equal(batch["rectangle"][0], first.rectangle)
    assert batch["label"][0] == first.label
    last = make_sample("test", 1_999).image
    assert not (batch["image"][..., 0] == last).all((1, 2)).any()


def test_further_scores_of_a_run_are_kept_in_its_directory(tmp_path, monkeypatch):
    config = preset("digits")
    model = dataclasses.replace(config.model, widths=(4, 4, 8))
    names = tuple("0123456789")
    inputs = Facts((48, 48, 1), names, num_examples=64, truth="rotated")
    parallel = JitParallel(jax.devices()[:1])
    config = dataclasses.replace(config, model=model)
    experiment = make_experiment(config, inputs, parallel)
    state = experiment.initial_state()
    trained = Trained(experiment, state.evaluated_variables(), state.step)
    monkeypatch.setattr(digits_further, "restore_trained", lambda *_: trained)
    scores = further_scores(tmp_path, BATCH)
    assert scores["images"] == BATCH
    # Untrained: a rectangle larger than the map.
    assert 0 < scores["attention2/iou"] < 0.3
    kept = json.loads((tmp_path / FILE).read_text())
    assert kept == scores
    (tmp_path / FILE).write_text(json.dumps(scores | {"accuracy": 2.0}))
    assert further_scores(tmp_path, BATCH)["accuracy"] == 2.0


def test_runs_that_are_done_are_not_started_again(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "evaluation.json").write_text(f'{{"of": "{name}"}}')
    runs = {tmp_path / name: ["--preset", "unknown"] for name in "ab"}
    for jobs in (1, 2):
        assert run_all(runs, jobs) == [{"of": "a"}, {"of": "b"}]
