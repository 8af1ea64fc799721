"""The page and the picture of `benchmarks.faithfulness`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import faithfulness_judge as judging
from benchmarks.photographs_picture import pictures_of, save_sheet
from benchmarks.tables import cell, verdict

_OTHERS = (judging.CAM, judging.MASK, judging.CENTRAL)
# Accuracy that another class's marker costs a network that goes by it, ours.
_USED = 0.2
_POINTS = ("on", "near", "near, chance", "inside", "inside, chance", "area")
_JUDGE = (
    "Judges are networks of the same kind without a layer, trained apart on"
    " photographs of which random regions were hidden. They read the test"
    " photographs with all pixels but those inside (or outside) of a region in the"
    " mean colour. Regions of one photograph have the same area, that of its"
    " learned rectangle (hard, at the network's pixels); the true box has its own."
    " Maps are cut to that area in each photograph; CAM is that of the predicted"
    " class. Judges' mean first, then mean ± 95% interval over the judged"
    " networks' seeds."
)
_MARKER = (
    "Markers are squares of {side} x {side} pixels of the network's 192 x 192"
    " input, at random places, one kind a class; the layer's map has a position"
    ' every 16 pixels. In "beside" the marker goes with the class of the'
    ' photograph, in "alone" it is all that tells the class. on: centre of the'
    " rectangle, or peak of the map (CAM of the predicted class), lies on the"
    " marker; near: within 16 pixels of it; inside: the marker's middle lies"
    " inside the rectangle, or inside the map's highest part of the same area (of"
    " a third, where there is no rectangle); chance: the same with the markers of"
    " other photographs."
)
Scores = Mapping[str, Any]


def by_seed(of_set: Mapping[str, Mapping[str, Scores]], *keys: str) -> dict[str, float]:
    """One number, the mean over judges, by the seeds that have it."""
    found = {}
    for seed, judges in of_set.items():
        numbers = [_inner(scores, keys) for scores in judges.values()]
        known = [number for number in numbers if number is not None]
        if known:
            found[seed] = float(np.mean(known))
    return found


def _inner(scores: Any, keys: Sequence[str]) -> float | None:
    for key in keys:
        scores = None if scores is None else scores.get(key)
    return scores


def judge_lines(of_set: Mapping[str, Mapping[str, Scores]], name: str) -> Iterator[str]:
    """The judges' table of one data set, and differences paired by seed."""
    counts = sorted({len(judges) for judges in of_set.values()})
    judges = " or ".join(map(str, counts))
    whole = cell(list(by_seed(of_set, "whole").values()), 4)
    yield from (f"### {name}", "")
    yield (
        f"{len(of_set)} seeds of networks, each with {judges} judges; whole"
        f" photographs: {whole}."
    )
    yield from ("", "| region | area | inside only | outside only |")
    yield "| --- | ---: | ---: | ---: |"
    for region in (judging.RECTANGLE, *_OTHERS, judging.BOX):
        cells = [
            cell(list(by_seed(of_set, key, region).values()), digits)
            for key, digits in (("area", 3), ("inside", 4), ("outside", 4))
        ]
        yield f"| {region} | " + " | ".join(cells) + " |"
    yield from ("", "Accuracy with the rectangle minus that with another region:", "")
    for side, better, what in (
        ("inside", 1, "more is left inside"),
        ("outside", -1, "less is left outside"),
    ):
        for other in _OTHERS:
            ours = by_seed(of_set, side, judging.RECTANGLE)
            theirs = by_seed(of_set, side, other)
            pairs = [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
            found = verdict(pairs, better=better)
            yield f"- {what} than with the {other}: {found}"
    yield ""


def marker_lines(
    of_set: Mapping[str, Mapping[str, Scores]], name: str
) -> Iterator[str]:
    """The tables of one set of photographs with markers."""
    yield from (f"### {name}", "")
    yield "| network | seeds | as trained | without marker | another's marker |"
    yield "| --- | ---: | ---: | ---: | ---: |"
    for arm, seeds in of_set.items():
        cells = [
            cell([scores["accuracy"][shown] for scores in seeds.values()], 3)
            for shown in ("marked", "plain", "swapped")
        ]
        yield f"| {_called(arm)} | {len(seeds)} | " + " | ".join(cells) + " |"
    yield ""
    yield from (used_line(arm, seeds) for arm, seeds in of_set.items())
    yield "- Where a network does not go by the marker, it need not be looked at."
    yield from ("", "| where is it? | " + " | ".join(_POINTS) + " |")
    yield "| --- |" + " ---: |" * len(_POINTS)
    for arm, seeds in of_set.items():
        for look in next(iter(seeds.values()))["looks"]:
            cells = [
                cell([scores["looks"][look].get(key) for scores in seeds.values()], 3)
                for key in _POINTS
            ]
            yield f"| {look}; {_called(arm)} | " + " | ".join(cells) + " |"
    yield ""


def used_line(arm: str, seeds: Mapping[str, Scores]) -> str:
    """Whether a network goes by the marker at all."""
    drops = [
        scores["accuracy"]["marked"] - scores["accuracy"]["swapped"]
        for scores in seeds.values()
    ]
    lost = float(np.mean(drops))
    word = "goes by the marker" if lost >= _USED else "hardly goes by the marker"
    return (
        f"- {_called(arm)}: another class's marker costs {cell(list(drops), 3)} of"
        f" accuracy; it {word}."
    )


def _called(arm: str) -> str:
    return "bare network" if arm == "none" else arm


def markdown(record: Mapping[str, Any], *, picture: str | None = None) -> str:
    """The whole page."""
    lines = [
        "# Faithfulness: is what decides inside the rectangle?",
        "",
        f"`{record['command']}` on {record['machine']}.",
        "",
    ]
    if record["judged"]:
        lines += ["## Hidden pixels", "", _JUDGE, ""]
        for name, of_set in record["judged"].items():
            lines += judge_lines(of_set, name)
    if record["marked"]:
        text = _MARKER.format(side=record["marker_side"])
        lines += ["## A planted marker", "", text, ""]
        for name, of_set in record["marked"].items():
            lines += marker_lines(of_set, name)
    if picture is not None:
        lines += [
            f"![photographs with markers]({picture})",
            "",
            "Test photographs with markers (boxed in white): the learned rectangle, and"
            " below it the class activation map of the bare network.",
            "",
        ]
    return "\n".join(lines)


def draw(places: Mapping[str, Path], path: Path, *, count: int = 6) -> bool:
    """Draws photographs with markers; whether there was anything to draw.

    Args:
      places: by caption, the work directories of networks trained on them.
      path: where the picture is written.
      count: photographs of each network.
    """
    pictures, captions = [], []
    for caption, place in places.items():
        found = pictures_of(place, count)
        if found:
            pictures += found
            captions += [caption] * len(found)
    if not pictures:
        return False
    save_sheet(pictures, captions, count, path)
    return True


def write(record: Mapping[str, Any], results: Path, *, drawn: bool) -> str:
    """Writes RESULTS.md; returns its text."""
    picture = f"{results.name}.png" if drawn else None
    text = markdown(record, picture=picture)
    results.with_suffix(".md").write_text(text)
    return text
