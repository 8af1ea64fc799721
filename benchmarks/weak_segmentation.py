"""Segmentation learnt from class labels alone: do rectangles stand in for masks?

    python -m benchmarks.weak_segmentation --data data --seeds 3

The networks of `benchmarks.photographs`, which know class labels only, look at the
training photographs. What they show becomes masks: the *rectangle* of the layer with a
budget, or as many pixels where the *class activation map* of the bare network is
highest. The network of `benchmarks.segmentation` is then trained on these masks, and
scored on the true ones of the test photographs. The true masks of the training
photographs only tell how good the made ones are; they choose nothing.

Started again, it goes on where it stopped. It writes RESULTS.json and RESULTS.md (mean
and 95% interval over seeds, differences to the true masks paired by seed), and
RESULTS_SET.png: test images, true regions left, found ones right; a row each.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks import photographs, segmentation
from benchmarks.photographs import BARE, BEST
from benchmarks.segmentation_report import MEAN_IOU, picture_rows
from benchmarks.tables import by_seed, paired, run_once, score, shown_command, table
from benchmarks.weak_segmentation_masks import MAP, MASKS, RECTANGLE, make_folders
from train.data.sources.regions import OBJECT_REGIONS
from train.use import load_run

TRUE = "true masks"
COLUMNS = (
    MEAN_IOU,
    ("IoU of the object", "test/iou_object", 4),
    ("outlines (F)", "test/boundary_f", 3),
    ("IoU of the masks it learnt from", "made/iou_object", 4),
)


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: Path = Path("data")
    """Folder in which the archives butterflies10.zip and pets3.zip were unpacked."""
    sets: tuple[str, ...] = ("butterflies10", "pets3")
    """Names of the folders in it."""
    seeds: int = 3
    """Seeds 0, 1, ... of all networks."""
    runs: Path = photographs.Options.workdir
    """Runs of benchmarks.photographs; what is missing is trained."""
    segmentation_runs: Path = segmentation.Options.workdir
    """Runs of benchmarks.segmentation; what is missing is trained."""
    workdir: Path = Path("runs/benchmark-weak-segmentation")
    """Directory of the made masks and of the runs on them."""
    results: Path = Path("results/weak_segmentation")
    """RESULTS.json, RESULTS.md and RESULTS_SET.png are written."""


def made_folder(options: Options, name: str, kind: str, seed: int) -> Path:
    """Where the photographs with these masks are."""
    return options.workdir / "data" / f"{name}-{kind.replace(' ', '-')}-{seed}"


def made_masks(options: Options, name: str, seed: int) -> dict[str, float]:
    """Makes the folders of one seed; how good their masks are, by source."""
    record = options.workdir / f"{name}-{seed}.json"
    if not record.exists():
        places = {
            kind: made_folder(options, name, kind, seed) for kind in (RECTANGLE, MAP)
        }
        for place in places.values():
            # Half of one, if it was interrupted.
            shutil.rmtree(place, ignore_errors=True)
        layered, bare = (
            load_run(options.runs / name / f"{arm.name}-{seed}") for arm in (BEST, BARE)
        )
        found = make_folders(options.data / name, places, layered, bare)
        record.write_text(json.dumps(found))
    return json.loads(record.read_text())


def fit_folder(made: Path) -> list[str]:
    """Arguments of `fit` for a folder with made masks."""
    regions = ["--data.regions", *OBJECT_REGIONS]
    return ["--data.name", f"folder:{made}", "--data.masks", MASKS, *regions]


def train_all(options: Options, name: str, seed: int) -> dict[str, dict]:
    """Evaluations by source of masks."""
    looks = photographs.Options(data=options.data, workdir=options.runs)
    for arm in (BEST, BARE):
        run_once(
            options.runs / name / f"{arm.name}-{seed}",
            photographs.fit_arguments(looks, name, arm, seed),
            evaluation=photographs.EVALUATION,
        )
    quality = made_masks(options, name, seed)
    supervised = segmentation.Options(
        data=options.data, workdir=options.segmentation_runs
    )
    usual = segmentation.fit_arguments(supervised, name, "none", seed)
    place = segmentation.place_of(supervised, name, "none", seed)
    evaluations = {TRUE: run_once(place, usual, evaluation=segmentation.EVALUATION)}
    for kind, value in quality.items():
        made = made_folder(options, name, kind, seed)
        place, arguments = options.workdir / made.name, [*usual, *fit_folder(made)]
        found = run_once(place, arguments, evaluation=segmentation.EVALUATION)
        evaluations[kind] = found | {"made": {"iou_object": value}}
    return evaluations


def markdown(record: dict) -> str:
    """For each set the table of means, paired differences, and every seed's figures."""
    lines = [
        "# Segmentation learnt from class labels alone",
        "",
        f"`{record['command']}` on {record['machine']}; mean ± 95% interval over seeds."
        " One network, recipe and number of steps (those of results/segmentation.md,"
        " without attention); rows differ in the masks of the training photographs. A"
        " rectangle is that of a layer trained by class labels and a budget"
        " (results/photographs.md); a class activation map, of the bare network, gives"
        " as many pixels as the rectangle of the same seed has. Nobody chose anything"
        " by true masks; the last column only says how good the made ones are.",
    ]
    for name, rows in record["runs"].items():
        found = {
            kind: {
                column: [score(run, key) for run in each] for column, key, _ in COLUMNS
            }
            for kind, each in rows.items()
        }
        lines += ["", f"## {name}", "", *table(found, COLUMNS), ""]
        for first, others in ((TRUE, (RECTANGLE, MAP)), (MAP, (RECTANGLE,))):
            lines += [f"Mean IoU, minus that of the {first}, paired by seed:", ""]
            some = {kind: found[kind] for kind in (first, *others)}
            lines += [*paired(some, MEAN_IOU, first=first), ""]
        lines += ["Every seed:", "", *table(by_seed(found), COLUMNS)]
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    program = "python -m benchmarks.weak_segmentation"
    options = tyro.cli(Options, args=arguments, prog=program)
    options.workdir.mkdir(parents=True, exist_ok=True)
    options.results.parent.mkdir(parents=True, exist_ok=True)
    runs: dict[str, dict[str, list[dict]]] = {name: {} for name in options.sets}
    for seed in range(options.seeds):
        for name in options.sets:
            for kind, found in train_all(options, name, seed).items():
                runs[name].setdefault(kind, []).append(found)
    record = {
        "command": shown_command("benchmarks.weak_segmentation", options),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "runs": runs,
    }
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    options.results.with_suffix(".md").write_text(markdown(record))
    print(markdown(record))
    for name in options.sets:
        kinds = (RECTANGLE, MAP)
        places = [
            options.workdir / made_folder(options, name, kind, 0).name for kind in kinds
        ]
        picture = options.results.with_name(f"{options.results.name}_{name}.png")
        picture_rows(places, picture)


if __name__ == "__main__":
    main(sys.argv[1:])
