"""Evaluations of photographs that no run made."""

import numpy as np

from benchmarks import photographs_scores as scores
from benchmarks.photographs_verdicts import BARE, BEST, TRUNK

KEYS = [key for _, key, _ in scores.COLUMNS if key and "/" not in key]


def evaluation(accuracy, where=None, *, train=1.0, cam=0.5, seconds=100.0):
    """Every score of the layer is `where`, and `cam` of the other rows."""
    rows = {"attention4: rectangle": dict.fromkeys(KEYS, where)} if where else {}
    others = (scores.WHOLE, scores.CONSTANT, scores.ORACLE, *scores.MAPS)
    rows |= {name: dict.fromkeys(KEYS, cam) for name in others}
    rows[scores.CENTER] = {"pointing": cam}
    test = {"accuracy": accuracy}
    if where:
        test["attention4/mask_area"] = 1 - where
    return {
        "test": test,
        "train": {"accuracy": train},
        "yardsticks": {"rows": rows},
        "cost": {"seconds": seconds},
    }


def made_up(seeds=5, arms=(BEST.arm, TRUNK.arm, BARE.arm), seed=0):
    rng = np.random.default_rng(seed)
    return {
        arm: {
            str(number): evaluation(
                float(rng.uniform(0.9, 1)),
                None if arm == "none" else float(rng.uniform(0.6, 0.9)),
                cam=float(rng.uniform(0.4, 0.7)),
            )
            for number in range(seeds)
        }
        for arm in arms
    }
