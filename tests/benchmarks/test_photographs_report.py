"""The report on photographs, of evaluations that no run made."""

import itertools
import json
import math

import numpy as np
import pytest
from scipy import stats

from benchmarks import photographs_scores as scores
from benchmarks.photographs_report import markdown
from benchmarks.photographs_scores import Row
from benchmarks.photographs_verdicts import (
    BEST,
    TARGETS,
    TRUNK,
    Target,
    claims,
    findings,
    judged,
    seeds_needed,
    spread_ratio,
    spread_verdict,
)
from benchmarks.tables import table
from tests.benchmarks.made_up_photographs import evaluation, made_up

ARMS = ("none", BEST.arm, TRUNK.arm, "rectangular-labels", f"{BEST.arm}-stage3")


def test_scores_are_those_of_the_named_row():
    run = evaluation(0.9, 0.8, train=0.97, cam=0.3)
    of = {(row, c): scores.value(run, row, c) for row in ("layer", scores.CAM) for c in
          (scores.ACCURACY, scores.GAP, scores.AREA, scores.IOU)}  # fmt: skip
    assert of["layer", scores.IOU] == 0.8
    assert of["layer", scores.GAP] == pytest.approx(0.07)
    assert of["layer", scores.AREA] == pytest.approx(0.2)
    assert of[scores.CAM, scores.IOU] == 0.3
    # A map of a network has no accuracy of its own.
    assert of[scores.CAM, scores.ACCURACY] is None
    masked = evaluation(0.9, 0.8)
    rows = masked["yardsticks"]["rows"]
    rows["attention4: mask"] = rows.pop("attention4: rectangle")
    assert scores.value(masked, "layer", scores.IOU) == 0.8
    assert scores.value({}, "layer", scores.IOU) is None
    assert scores.value({"test": {"accuracy": 0.9}}, "layer", scores.GAP) is None
    rows["attention4: mask"]["iou"] = math.nan
    assert scores.value(masked, "layer", scores.IOU) is None


def test_differences_are_paired_by_the_name_of_the_seed():
    runs = made_up()
    first = {seed: runs[BEST.arm][seed] for seed in ("0", "3", "1")}
    other = {seed: runs[TRUNK.arm][seed] for seed in ("3", "4", "1")}
    found = scores.difference(
        {BEST.arm: first, TRUNK.arm: other}, BEST, TRUNK, scores.ACCURACY
    )
    expected = [
        first[seed]["test"]["accuracy"] - other[seed]["test"]["accuracy"]
        for seed in ("1", "3")
    ]
    assert found == expected
    assert scores.difference({BEST.arm: first}, BEST, TRUNK, scores.IOU) == []


def test_the_table_has_scipys_intervals():
    runs = made_up(seeds=4)
    rows = {"rectangle": scores.scores_of(runs, BEST)}
    line = table(rows, scores.COLUMNS)[-1]
    found = [run["test"]["accuracy"] for run in runs[BEST.arm].values()]
    low, high = stats.t.interval(0.95, 3, np.mean(found), stats.sem(found))
    assert f"{np.mean(found):.4f} ± {(high - low) / 2:.4f}" in line


@pytest.mark.parametrize("count", [3, 5, 8])
def test_the_ends_of_a_spread_interval_are_where_significance_ends(count):
    rng = np.random.default_rng(count)
    a = rng.normal(0, 1, count)
    b = 0.5 * a + rng.normal(0, 2, count)
    found = spread_ratio(a, b)
    assert found is not None
    ratio, low, high = found
    assert ratio == pytest.approx(np.std(a, ddof=1) / np.std(b, ddof=1))
    assert low < ratio < high
    for end in (low, high):
        _, p = stats.pearsonr(a + end * b, a - end * b)
        assert p == pytest.approx(0.05, rel=1e-6)


def test_a_spread_that_is_smaller_or_larger_is_told():
    rng = np.random.default_rng(0)
    a, b = rng.normal(0, 1, 40).tolist(), rng.normal(0, 5, 40).tolist()
    alike = [x + 0.02 * y for x, y in zip(a, b, strict=True)]
    assert spread_verdict(a, b).startswith("**holds**")
    assert spread_verdict(b, a).startswith("**fails**")
    assert spread_verdict(a, alike).startswith("**undecided**")
    for none in (([0.1, 0.2], [0.3, 0.1]), ([0.9832] * 5, [0.1, 0.2, 0.3, 0.1, 0.1])):
        assert spread_ratio(*none) is None
        assert spread_verdict(*none).startswith("undecided")


@pytest.mark.parametrize("ratio", [0.3, 1.0, 3.0])
def test_the_seeds_that_a_difference_needs_have_the_power(ratio):
    values = np.array([1.0, -1.0, 1.0, -1.0, 0.0]) * 0.005 * ratio
    deviation = np.std(values, ddof=1)
    count = seeds_needed(values, 0.005)
    assert count is not None

    def power(n):
        return stats.nct.sf(
            stats.t.ppf(0.975, n - 1), n - 1, 0.005 / deviation * math.sqrt(n)
        )

    exact = next(n for n in itertools.count(2) if power(n) >= 0.8)
    assert abs(count - exact) <= 1
    assert seeds_needed([0.1], 0.005) is None
    assert seeds_needed([0.1, 0.1, 0.1], 0.005) == 2


def test_a_claim_holds_where_scipys_paired_test_says_so():
    better = {seed: evaluation(0.95 + 0.001 * seed, 0.8) for seed in range(5)}
    worse = {seed: evaluation(0.90 + 0.002 * seed, 0.6) for seed in range(5)}
    runs = {
        arm: {str(seed): run for seed, run in of.items()}
        for arm, of in ((BEST.arm, better), (TRUNK.arm, worse))
    }
    ours, theirs = (
        [run["test"]["accuracy"] for run in of.values()] for of in (better, worse)
    )
    assert stats.ttest_rel(ours, theirs).pvalue < 0.05
    told = dict(claims(runs))
    assert told["It is more accurate"]["accuracy"].startswith("**holds**")
    gap = next(v for k, v in told.items() if k.startswith("It generalises"))
    assert gap["gap"].startswith("**holds**")
    turned = {BEST.arm: runs[TRUNK.arm], TRUNK.arm: runs[BEST.arm]}
    assert dict(claims(turned))["It is more accurate"]["accuracy"].startswith("**fails")


def test_targets_are_judged_seed_by_seed():
    runs = {
        "rectangular-both": {
            "0": evaluation(0.98, 0.7 + 0.2, cam=0.1),
            "1": evaluation(0.97, 0.89, cam=0.1),
        },
        "none": {"0": evaluation(0.985, cam=0.6), "2": evaluation(0.9, cam=0.5)},
    }
    box = judged(runs, Target(scores.BOX, 0.90))
    assert [seed["reached"] for seed in box["seeds"].values()] == [True, False]
    assert box["reached"] is False
    # The other's map is that of the bare network, in the seed that both have.
    above = judged(runs, Target(scores.BOX, 0.05, minus=Row("none", scores.CAM)))
    assert list(above["seeds"]) == ["0"]
    assert above["seeds"]["0"]["value"] == pytest.approx(0.3)
    area = judged(runs, Target(scores.AREA, 0.105, at_most=True))
    assert [seed["reached"] for seed in area["seeds"].values()] == [True, False]
    mean = judged(runs, Target(scores.BOX, 0.895, on_average=True))
    assert mean["reached"] is True
    assert "reached" not in judged({}, Target(scores.BOX, 0.9))


@pytest.mark.parametrize("name", [*TARGETS, "my own"])
@pytest.mark.parametrize("arms", [(), ("none",), (BEST.arm,), (BEST.arm, "none"),
                                  ARMS], ids=len)  # fmt: skip
def test_the_report_is_written_whatever_runs_are_missing(name, arms):
    runs = made_up(seeds=3, arms=arms)
    for arm in arms[1:]:
        del runs[arm]["1"]
    record = {"command": "c", "machine": "m", "picture": None, "runs": {name: runs}}
    text = markdown(record)
    for arm in arms:
        assert f"\n| {arm} |" in text
        assert f"| {arm}, seed 2 |" in text
    assert ("no learning: oracle rectangle" in text) == bool(arms)
    assert ("CAM, true class; bare network" in text) == ("none" in arms)
    json.dumps(findings(runs, name), allow_nan=False)


def test_the_budgets_price_is_paired_with_labels_only():
    arms = ("rectangular-labels", "rectangular-both", "none")
    text = markdown(
        {"command": "c", "machine": "m", "runs": {"pets3": made_up(3, arms)}}
    )
    runs = made_up(3, arms)
    found = scores.difference(runs, BEST, Row("rectangular-labels"), scores.ACCURACY)
    assert f"both minus labels only: {np.mean(found):+.4f}" in text
