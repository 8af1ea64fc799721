"""Does a learned rectangle show what decides? Pixels are hidden, and markers planted.

    python -m benchmarks.faithfulness --data data --runs runs/benchmark-photographs
    python -m benchmarks.faithfulness --data data --quick

Two tests of the networks that `benchmarks.photographs` trained. *Judges*, networks
trained apart on photographs behind random regions (`faithfulness_judge.py`), read test
photographs of which only the inside of a region is left, or only the outside: of the
learned rectangle, of a central square, of the class activation map and of the
position-wise mask, all of the same area in each photograph, and of the true box. And
the recipe is trained on photographs with a *planted marker* that gives the class away
(`faithfulness_marker.py`): do rectangle and map lie on it, and is it what the network
goes by?

Started again, it goes on where it stopped. Test images choose nothing. It writes
RESULTS.json, RESULTS.md and RESULTS.png.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import jax
import tyro

from benchmarks import faithfulness_judge as judging
from benchmarks import faithfulness_marker as marking
from benchmarks import faithfulness_report, photographs
from benchmarks.photographs import Arm
from benchmarks.tables import run_once, shown_command
from train.commands.options import parse_fit
from train.run import layout

# Judges' seeds are these and those after it: apart from the layers'.
FIRST_JUDGE = 100
# Arms whose regions are judged.
LAYER, BARE, TRUNK = "rectangular-both", "none", "positionwise-trunk-both"
MARKED_ARMS = (Arm("rectangular"), Arm("none"))


@dataclass(frozen=True)
class Options:
    """What to test."""

    data: Path = Path("data")
    """Folder in which the archives pets3.zip and butterflies10.zip were unpacked."""
    sets: tuple[str, ...] = ("pets3", "butterflies10")
    """Names of the folders in it whose networks are judged."""
    marked_sets: tuple[str, ...] = ("pets3",)
    """Names of the folders whose photographs get markers."""
    variants: tuple[Literal["beside", "alone"], ...] = ("beside", "alone")
    """beside: the marker goes with the class of the photograph. alone: photographs are
    dealt out to the classes at random, and the marker is all that tells."""
    parts: tuple[Literal["judge", "marker"], ...] = ("judge", "marker")
    """What to do: judges, markers, or both."""
    judges: int = 2
    """How many judges of each set are trained."""
    seeds: int = 5
    """Seeds 0, 1, ... of the networks that are judged, where they are there."""
    marker_seeds: int = 2
    """Seeds 0, 1, ... of the networks trained with markers."""
    marker_side: int = 12
    """Side of a marker in pixels of the network's input."""
    quick: bool = False
    """One judge, one seed, one epoch, 64 pixels: to see that everything works. All of
    it, results included, goes to WORKDIR/quick."""
    runs: Path = Path("runs/benchmark-photographs")
    """Directory of the runs of `benchmarks.photographs`."""
    workdir: Path = Path("runs/benchmark-faithfulness")
    """Directory of judges, marked photographs, and networks trained on them."""
    results: Path = Path("results/faithfulness")
    """RESULTS.json, .md and .png are written."""
    only_report: bool = False
    """Train and score nothing: write the results of what is there."""

    @property
    def size(self) -> int:
        """Side of the network's input in pixels."""
        return 64 if self.quick else 192


def kept(path: Path, only_report: bool, compute: Callable[[], Any]) -> Any:
    """What a file holds; where there is none, what is computed, which it holds then.

    None if nothing is to be computed, or nothing came of it.
    """
    if path.exists():
        return json.loads(path.read_text())
    found = None if only_report else compute()
    if found is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(found, indent=1))
    return found


def study_options(options: Options, data: Path) -> photographs.Options:
    """Those of `benchmarks.photographs` for one of our runs."""
    return photographs.Options(data=data, quick=options.quick)


def train_judge(options: Options, name: str, number: int) -> Path:
    """The work directory of a judge, trained if it was not."""
    place = options.workdir / "judges" / name / str(number)
    if not (place / layout.RESULT).exists():
        arguments = photographs.fit_arguments(
            study_options(options, options.data), name, Arm("none"), number
        )
        judging.train_judge(parse_fit([*arguments, "--workdir", str(place)]))
    return place


def judged(options: Options, name: str, number: int, seed: int) -> dict | None:
    """The scores by one judge of the networks of one seed; None where they are not."""
    places = [options.runs / name / f"{arm}-{seed}" for arm in (LAYER, BARE, TRUNK)]
    if not all((place / layout.EVALUATION).exists() for place in places):
        return None
    judge = judging.restored(train_judge(options, name, number))
    batch, regions = _regions(tuple(places), f"folder:{options.data / name}")
    return judging.judge_scores(judge, batch, regions)


@functools.lru_cache(maxsize=1)
def _regions(places: tuple[Path, ...], data: str):
    layer, bare, trunk = map(judging.restored, places)
    batch = judging.evaluation_images(layer, data)
    return batch, judging.regions_to_judge(layer, bare, trunk, batch)


def run_judges(options: Options) -> dict[str, dict[str, dict[str, dict]]]:
    """Scores by set, seed and judge; as many as there are."""
    found: dict[str, dict[str, dict[str, dict]]] = {}
    for seed in range(1 if options.quick else options.seeds):
        for name in options.sets:
            for number in range(1 if options.quick else options.judges):
                judge = FIRST_JUDGE + number
                path = options.workdir / "judged" / name / f"{seed}-{judge}.json"
                compute = functools.partial(judged, options, name, judge, seed)
                scores = kept(path, options.only_report, compute)
                if scores is not None:
                    of_seed = found.setdefault(name, {}).setdefault(str(seed), {})
                    of_seed[str(judge)] = scores
    return found


def marker_place(options: Options, name: str, variant: str) -> Path:
    """Where the photographs with markers lie, and the networks trained on them."""
    return options.workdir / "markers" / variant / name


def marked(options: Options, name: str, variant: str, arm: Arm, seed: int) -> dict:
    """The scores of one network trained on photographs with markers."""
    root = marker_place(options, name, variant)
    folders = marking.make_folders(
        options.data / name,
        root / "photographs",
        variant,
        size=options.size,
        side=options.marker_side,
    )
    study = study_options(options, root)
    arguments = photographs.fit_arguments(study, name, arm, seed)
    arguments += ["--data.name", f"folder:{folders[marking.MARKED]}"]
    place = root / f"{arm.name}-{seed}"
    run_once(place, arguments)
    return marking.marker_scores(
        judging.restored(place), folders, reach=16 * options.size / 192, share=1 / 3
    )


def run_markers(options: Options) -> dict[str, dict[str, dict[str, dict]]]:
    """Scores by "set, variant", arm and seed; as many as there are."""
    found: dict[str, dict[str, dict[str, dict]]] = {}
    for seed in range(1 if options.quick else options.marker_seeds):
        for name in options.marked_sets:
            for variant in options.variants:
                for arm in MARKED_ARMS:
                    place = marker_place(options, name, variant)
                    path = place / f"{arm.name}-{seed}.json"
                    compute = functools.partial(
                        marked, options, name, variant, arm, seed
                    )
                    scores = kept(path, options.only_report, compute)
                    if scores is not None:
                        of_set = found.setdefault(f"{name}, {variant}", {})
                        of_set.setdefault(arm.name, {})[str(seed)] = scores
    return found


def pictured(options: Options) -> dict[str, Path]:
    """Work directories of the picture's rows by caption: the first seed's networks."""
    captions = {"rectangular-both": "rectangle", "none": "CAM, bare network"}
    return {
        f"{captions[arm.name]}; {variant}": marker_place(options, name, variant)
        / f"{arm.name}-0"
        for name in options.marked_sets[:1]
        for variant in options.variants
        for arm in MARKED_ARMS
    }


def main(arguments: list[str]) -> None:
    """Does what is missing and writes the results."""
    options = tyro.cli(
        Options, args=arguments, prog="python -m benchmarks.faithfulness"
    )
    options = photographs.quick_places(options)
    if not options.only_report:
        # The same networks are looked at again and again.
        cache = options.workdir.resolve() / "cache"
        jax.config.update("jax_compilation_cache_dir", str(cache))
    record = {
        "command": shown_command("benchmarks.faithfulness", options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "marker_side": options.marker_side,
        "judged": run_judges(options) if "judge" in options.parts else {},
        "marked": run_markers(options) if "marker" in options.parts else {},
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    picture = options.results.with_suffix(".png")
    drawn = faithfulness_report.draw(pictured(options), picture)
    print(faithfulness_report.write(record, options.results, drawn=drawn))


if __name__ == "__main__":
    main(sys.argv[1:])
