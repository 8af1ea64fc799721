"""What the runs of `benchmarks.photographs` say of its targets and the paper's claims.

Everything is a rule, so that nobody words a result by taste: a target is reached by a
seed or not; a claim holds or fails where the 95% interval of differences paired by seed
lies on one side of 0, and is undecided elsewhere.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks import photographs_scores as scores
from benchmarks.photographs_scores import Row, Runs
from benchmarks.tables import verdict
from train.commands.intervals import mean_and_interval, student_point

BEST, TRUNK = Row("rectangular-both"), Row("positionwise-trunk-both")
BARE = Row("none")
POINT = 0.01  # of accuracy
_ROUNDING = 1e-9  # of shares: numbers that differ by less are equal


@dataclass(frozen=True)
class Target:
    """A number that every seed should reach, or the mean over them.

    Attributes:
      column: the score to read from the best rectangular arm.
      bound: the number.
      minus: the row whose score is subtracted first; None: none.
      at_most: the score should lie below the bound.
      on_average: the mean over seeds is asked for, not each of them.
    """

    column: str
    bound: float
    minus: Row | None = None
    at_most: bool = False
    on_average: bool = False

    def text(self) -> str:
        """What is asked, in words."""
        minus = "" if self.minus is None else f" minus that of {_named(self.minus)}"
        sign = "at most" if self.at_most else "at least"
        mean = ", on average" if self.on_average else ""
        return f"{self.column}{minus}, {sign} {self.bound:g}{mean}"

    def reached(self, value: float) -> bool:
        """Whether a number is good enough; rounding of shares does not decide."""
        if self.at_most:
            return value <= self.bound + _ROUNDING
        return value >= self.bound - _ROUNDING


def _named(row: Row) -> str:
    if row.answer == scores.LAYER:
        return "the bare network" if row == BARE else row.arm
    return f"{row.answer}, of the bare network" if row.arm == "none" else row.answer


def _above_maps(margin: float) -> tuple[Target, ...]:
    return tuple(
        Target(scores.BOX, margin, minus=Row("none", answer)) for answer in scores.MAPS
    )


_WITHIN_A_POINT = Target(scores.ACCURACY, -POINT, minus=BARE, on_average=True)
TARGETS: dict[str, tuple[Target, ...]] = {
    "pets3": (
        Target(scores.BOX, 0.90),
        *_above_maps(0.05),
        Target(scores.CORLOC, 0.60),
        Target(scores.POINTING, 0.92),
        Target(scores.AREA, 0.45, at_most=True),
        _WITHIN_A_POINT,
    ),
    "butterflies10": (
        Target(scores.BOX, 0.93),
        *_above_maps(0.03),
        Target(scores.POINTING, 0.97),
        Target(scores.IOU, 0.65),
        _WITHIN_A_POINT,
    ),
}


def judged(runs: Runs, target: Target) -> dict[str, Any]:
    """The target's number and whether it is reached, by seed, and of the mean."""
    found = {}
    others = scores.shared(runs, BEST, target.minus or BEST)
    for seed, (run, other) in others.items():
        number = scores.value(run, BEST.answer, target.column)
        if number is not None and target.minus is not None:
            less = scores.value(other, target.minus.answer, target.column)
            number = None if less is None else number - less
        if number is not None:
            found[seed] = number
    seeds = {
        seed: {"value": number, "reached": target.reached(number)}
        for seed, number in found.items()
    }
    record: dict[str, Any] = {"target": target.text(), "seeds": seeds}
    if found:
        mean, interval = mean_and_interval(list(found.values()))
        record |= {"mean": mean, "interval": interval}
        everyone = all(seed["reached"] for seed in seeds.values())
        record["reached"] = target.reached(mean) if target.on_average else everyone
    return record


def spread_ratio(
    values: Sequence[float], others: Sequence[float]
) -> tuple[float, float, float] | None:
    """Ratio of two paired standard deviations, and the ends of its 95% interval.

    Where a + c b and a - c b correlate, c is not the ratio of the deviations of a and b
    (Pitman 1939, Biometrika 31; Morgan 1939): the interval is every c for which that
    correlation is not significant.

    Returns:
      None for fewer than three pairs, and where one of them does not vary.
    """
    count = len(values)
    if count < 3 or len(others) != count:
        return None
    deviations = float(np.std(values)), float(np.std(others))
    if min(deviations) < _ROUNDING:
        return None
    ratio = float(deviations[0] / deviations[1])
    alike = float(np.corrcoef(values, others)[0, 1])
    point = student_point(count - 2)
    k = 1 + 2 * point**2 * max(1 - alike**2, 0.0) / (count - 2)
    factor = math.sqrt(k + math.sqrt(k**2 - 1))
    return ratio, ratio / factor, ratio * factor


def spread_verdict(values: Sequence[float], others: Sequence[float]) -> str:
    """Whether `values` vary less than `others`, paired by seed."""
    found = spread_ratio(values, others)
    if found is None:
        return "undecided (too few seeds, or one of them does not vary)"
    ratio, low, high = found
    word = "holds" if high < 1 else "fails" if low > 1 else "undecided"
    numbers = f"{ratio:.2f}, interval {low:.2f} to {high:.2f}, {len(values)} seeds"
    return f"**{word}** (ratio {numbers})"


def claims(runs: Runs) -> list[tuple[str, dict[str, str]]]:
    """The paper's five claims against the position-wise trunk, each with verdicts."""

    def above(column: str, row=BEST, other=TRUNK, better=1) -> str:
        found = scores.difference(runs, row, other, column)
        return verdict(found, better=better, digits=max(scores.DIGITS[column], 1))

    def steadier(column: str) -> str:
        pairs = zip(*scores.paired_values(runs, BEST, TRUNK, column), strict=True)
        known = [(a, b) for a, b in pairs if a is not None and b is not None]
        return spread_verdict([a for a, _ in known], [b for _, b in known])

    stages = {
        f"accuracy after stage {stage}": above(
            scores.ACCURACY,
            Row(f"{BEST.arm}-stage{stage}"),
            Row(f"{TRUNK.arm}-stage{stage}"),
        )
        for stage in (3, 5)
        if scores.seeds_of(runs, f"{BEST.arm}-stage{stage}")
    }
    look = (scores.IOU, scores.BOX, scores.POINTING, scores.MASS)
    spread = (scores.ACCURACY, scores.IOU, scores.BOX, scores.POINTING)
    steady = {f"spread of {column}": steadier(column) for column in spread}
    return [
        ("It is more accurate", {"accuracy": above(scores.ACCURACY)}),
        (
            "It generalises better (train minus test accuracy is smaller)",
            {"gap": above(scores.GAP, better=-1)},
        ),
        (
            "It is more stable (its standard deviation over seeds is smaller, and it is"
            " better wherever it is put)",
            steady | stages,
        ),
        ("It shows where the network looks", {name: above(name) for name in look}),
        (
            "It costs less (seconds of training, on a machine that did other things"
            " meanwhile)",
            {"seconds": above(scores.SECONDS, better=-1)},
        ),
    ]


def seeds_needed(values: Sequence[float], difference: float) -> int | None:
    """How many pairs show a difference with 80% probability at the 95% level.

    The usual approximation by two points of Student's t, with the standard deviation of
    the paired differences in `values`. None for fewer than two of them.
    """
    if len(values) < 2:
        return None
    deviation = float(np.std(values, ddof=1))

    def is_enough(count: int) -> bool:
        # Both tails outside 60% are 20% each: one-sided 80%.
        points = student_point(count - 1) + student_point(count - 1, 0.6)
        return points * deviation <= difference * math.sqrt(count)

    most = 2
    while not is_enough(most):
        most *= 2
    # Points fall and the root grows with the count: what is enough stays enough.
    return bisect.bisect_left(range(most + 1), True, lo=2, key=is_enough)


def findings(runs: Runs, name: str) -> dict[str, Any]:
    """What goes into the JSON: targets and claims of one data set."""
    found = scores.difference(runs, BEST, TRUNK, scores.ACCURACY)
    return {
        "targets": [judged(runs, target) for target in TARGETS.get(name, ())],
        "claims": dict(claims(runs)),
        "seeds_for_half_a_point_of_accuracy": seeds_needed(found, 0.005),
    }
