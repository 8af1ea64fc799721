"""The page of `benchmarks.photographs`: tables, differences, targets and claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks import photographs_scores as scores
from benchmarks import photographs_verdicts as verdicts
from benchmarks.photographs_scores import COLUMNS, Row, Runs
from benchmarks.photographs_text import HOW_FOUND, INTRODUCTION, PICTURE
from benchmarks.photographs_verdicts import BARE, BEST, TRUNK
from benchmarks.tables import cell, table
from train.commands.intervals import mean_and_interval

_NO_LEARNING = (scores.WHOLE, scores.CENTER, scores.CONSTANT, scores.ORACLE)
_COMPARED = (
    scores.ACCURACY,
    scores.GAP,
    scores.BOX,
    scores.CORLOC,
    scores.IOU,
    scores.POINTING,
    scores.MASS,
)
_ASKED = {"both": "both", "budget": "budget only", "outside": "outside view only"}


def present_rows(runs: Runs) -> dict[str, Row]:
    """The rows of the table by what they are called, where there are runs."""
    rows = {arm: Row(arm) for arm in runs}
    first = BEST if BEST.arm in runs else Row(next(iter(runs), BARE.arm))
    rows |= {f"no learning: {name}": Row(first.arm, name) for name in _NO_LEARNING}
    for name in scores.MAPS:
        rows[f"{name}; bare network"] = Row(BARE.arm, name)
        rows[f"{name}; network of {BEST.arm}"] = Row(BEST.arm, name)
    return {name: row for name, row in rows.items() if row.arm in runs}


def score_table(runs: Runs) -> list[str]:
    """Mean and interval of every row."""
    rows = {
        name: scores.scores_of(runs, row) for name, row in present_rows(runs).items()
    }
    return table(rows, COLUMNS)


def seed_table(runs: Runs) -> list[str]:
    """The figures of each seed of each row."""
    rows = {}
    for name, row in present_rows(runs).items():
        found = scores.scores_of(runs, row)
        for place, seed in enumerate(scores.seeds_of(runs, row.arm)):
            rows[f"{name}, seed {seed}"] = {c: [v[place]] for c, v in found.items()}
    return table(rows, COLUMNS)


def difference_table(runs: Runs) -> list[str]:
    """The best rectangular arm minus others, paired by seed; empty without it."""
    others = {
        "position-wise, same trunk": TRUNK,
        "bare network": BARE,
        **{f"{name}, of the bare network": Row(BARE.arm, name) for name in scores.MAPS},
        f"{scores.CAM}, of the same network": Row(BEST.arm, scores.CAM),
    }
    lines = [
        "| minus | " + " | ".join(_COMPARED) + " | seeds |",
        "| --- |" + " ---: |" * (len(_COMPARED) + 1),
    ]
    for name, other in others.items():
        count = len(scores.shared(runs, BEST, other))
        if count:
            found = [scores.difference(runs, BEST, other, c) for c in _COMPARED]
            digits = [scores.DIGITS[c] for c in _COMPARED]
            cells = [
                cell(list(each), places, sign="+")
                for each, places in zip(found, digits, strict=True)
            ]
            lines.append(f"| {name} | " + " | ".join(cells) + f" | {count} |")
    return lines if len(lines) > 2 else ["No pair of runs is there yet."]


def target_table(runs: Runs, name: str) -> list[str]:
    """Every target with each seed's number."""
    seeds = scores.seeds_of(runs, BEST.arm)
    lines = [
        "| target | " + " | ".join(f"seed {seed}" for seed in seeds) + " | reached |",
        "| --- |" + " ---: |" * (len(seeds) + 1),
    ]
    for target in verdicts.TARGETS.get(name, ()):
        found = verdicts.judged(runs, target)
        cells = [_judged_cell(found["seeds"].get(seed)) for seed in seeds]
        lines.append(
            f"| {found['target']} | " + " | ".join(cells) + f" | {_reached(found)} |"
        )
    return (
        lines if len(lines) > 2 and seeds else ["This set has no targets, or no runs."]
    )


def _judged_cell(seed: Mapping[str, Any] | None) -> str:
    if seed is None:
        return ""
    return f"{seed['value']:.3f}" + ("" if seed["reached"] else " (no)")


def _reached(found: Mapping[str, Any]) -> str:
    if "reached" not in found:
        return "not known"
    spread = "" if found["interval"] is None else f" ± {found['interval']:.3f}"
    count = sum(seed["reached"] for seed in found["seeds"].values())
    word = "**yes**" if found["reached"] else "**no**"
    return f"{word} ({count} of {len(found['seeds'])}; {found['mean']:.3f}{spread})"


def claim_lines(runs: Runs) -> Iterator[str]:
    """The paper's claims, numbered."""
    for number, (text, found) in enumerate(verdicts.claims(runs), 1):
        yield f"{number}. {text}:"
        yield from (f"   - {what}: {verdict}" for what, verdict in found.items())


def price_lines(runs: Runs) -> Iterator[str]:
    """What each way of closing a layer's mask costs in accuracy."""
    layers = [arm.removesuffix("-labels") for arm in runs if arm.endswith("-labels")]
    for layer in layers:
        for asked, words in _ASKED.items():
            row, other = Row(f"{layer}-{asked}"), Row(f"{layer}-labels")
            found = scores.difference(runs, row, other, scores.ACCURACY)
            if found:
                yield f"- {layer}, {words} minus labels only: {_mean(found)}"
    for row in (BEST, TRUNK):
        found = scores.difference(runs, row, BARE, scores.ACCURACY)
        if found:
            yield f"- {row.arm} minus the bare network: {_mean(found)}"


def _mean(found: list[float]) -> str:
    return f"{cell(list(found), 4, sign='+')} ({len(found)} seeds)"


def seeds_line(runs: Runs) -> str:
    """How many seeds half a point of accuracy would need."""
    parts = []
    for name, other in (("position-wise trunk", TRUNK), ("bare network", BARE)):
        found = scores.difference(runs, BEST, other, scores.ACCURACY)
        count = verdicts.seeds_needed(found, 0.005)
        if count is not None:
            parts.append(f"against the {name} {count:,}")
    if not parts:
        return "How many seeds a difference needs is not known from fewer than two."
    return (
        "To show a difference of 0.5 points of accuracy (95% level, 80% probability)"
        f" the paired spread asks for this many seeds: {', '.join(parts)}. Test images"
        " are the same in all seeds, so this is about these images only."
    )


def section(runs: Runs, name: str) -> list[str]:
    """All of one data set."""
    return [
        *(f"## {name}", "", *score_table(runs), ""),
        *(
            f"`{BEST.arm}` minus others, paired by seed:",
            "",
            *difference_table(runs),
            "",
        ),
        *("### Targets", "", *target_table(runs, name), ""),
        *("### The paper's claims, against the position-wise trunk", ""),
        *(*claim_lines(runs), ""),
        *("### What the budget costs in accuracy", "", *price_lines(runs), ""),
        *(seeds_line(runs), ""),
    ]


def markdown(record: Mapping[str, Any]) -> str:
    """The whole page."""
    lines = [
        "# Photographs: where layers look, with a budget and without",
        "",
        f"`{record['command']}` on {record['machine']}; {INTRODUCTION}",
        "",
        *_pictured(record),
    ]
    for name, runs in record["runs"].items():
        lines += section(runs, name)
    lines += [HOW_FOUND]
    for name, runs in record["runs"].items():
        lines += [f"## Every seed, {name}", "", *seed_table(runs), ""]
    return "\n".join(lines)


def _pictured(record: Mapping[str, Any]) -> list[str]:
    if not record.get("picture"):
        return []
    return [
        f"![test photographs, one column each]({record['picture']})",
        "",
        PICTURE,
        "",
    ]


def summary(runs: Runs, name: str) -> str:
    """One line for the terminal."""
    found = scores.values(runs, BEST, scores.BOX)
    present = [value for value in found if value is not None]
    if not present:
        return f"{name}: no run of {BEST.arm} yet"
    mean, interval = mean_and_interval(present)
    spread = "" if interval is None else f" ± {interval:.3f}"
    return f"{name}: {BEST.arm}, box 0.5 {mean:.3f}{spread}, {len(present)} seeds"


def write(record: Mapping[str, Any], results: Path) -> str:
    """Writes RESULTS.md; returns its text."""
    text = markdown(record)
    results.with_suffix(".md").write_text(text)
    return text
