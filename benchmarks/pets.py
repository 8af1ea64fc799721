"""Attention layers in a pretrained network, fine-tuned on pets, seed by seed.

    python -m benchmarks.pets --data folder:data/pets3         # 7 rows, 3 seeds
    python -m benchmarks.pets --data folder:data/pets3 --seeds 10 --image-size 224

Every run is `python -m train fit --preset pets3` with another layer, stage and seed, in
a directory of its own; started again, the benchmark goes on where it stopped. It writes
RESULTS.json, RESULTS.md (mean and 95% interval over seeds, and the differences to the
bare network, paired by seed) and RESULTS.png: the same test photographs, a row of each
layer, with their rectangles and masks.
"""

from __future__ import annotations

import functools
import json
import os
import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import tyro

from benchmarks.tables import by_seed, differences, paired, run_all, score, table

COLUMNS = (
    ("test accuracy", "test/accuracy", 4),
    ("train accuracy", "train/accuracy", 4),
    ("mask mass on animal", "test/L/mass_on_object", 3),
    ("pointing", "test/L/pointing", 3),
    ("CorLoc", "test/L/mask_corloc", 3),
    ("mask area", "test/L/mask_area", 3),
)
GAP = ("train - test", "", 4)
SHOWN = (COLUMNS[0], COLUMNS[1], GAP, *COLUMNS[2:])
# Rows without a rectangle have no equivariance to score, and it takes as long as a run.
EVALUATION = ("--equivariance-images", "0")


@dataclass(frozen=True)
class Options:
    """What to compare."""

    data: str = "folder:data/pets3"
    """The data set, "folder:PATH" or "tfds:oxford_iiit_pet"."""
    pretrained: str = "efficientnet-lite0"
    """The installed package's weights, or a file of them."""
    layers: tuple[str, ...] = (
        "positionwise-pooled",
        "positionwise-trunk",
        "rectangular",
    )
    """Attention layers, compared with the bare network."""
    stages: tuple[int, ...] = (5, 4)
    """Stages after which each layer is put, one at a time: stage 5 has stride 32, and
    is the last before the network's last, pointwise, convolution."""
    seeds: int = 3
    """Seeds 0, 1, ... of each row."""
    epochs: float | None = None
    """Passes over the training images; none: 5."""
    image_size: int | None = None
    """Side of the network's input in pixels; none: 128."""
    train_everything: bool = False
    """Freeze no layer (a GPU has the time; BatchNorm keeps its statistics)."""
    jobs: int = 1
    """Runs side by side, each on its share of the CPU cores."""
    workdir: Path = Path("runs/benchmark-pets")
    """Directory of the runs."""
    results: Path = Path("results/pets3")
    """RESULTS.json, .md and .png are written."""


def rows(options: Options) -> list[tuple[str, str, int | None]]:
    """Name, layer and stage of each row; the bare network is the first."""
    attended = [
        (f"{layer}, stage {stage}", layer, stage)
        for stage in options.stages
        for layer in options.layers
    ]
    return [("none", "none", None), *attended]


# The preset as it was before masks had a budget: class labels only.
LABELS_ONLY = [
    "--budget.area=None",
    "--budget.outside=0",
    "--budget.mask-dropout=0",
    "--model.attention-fill=zero",
    "--data.image-size=128",
    "--data.validation=0",
    "--epochs=5",
    "--batch-size=30",
    "--optimizer.freeze=^(stem|block[012]_)",
    "--optimizer.predictor-scale=1",
]


def fit_arguments(
    options: Options, layer: str, stage: int | None, seed: int
) -> list[str]:
    """The arguments of one training run."""
    arguments = ["--preset", "pets3", *LABELS_ONLY, "--model.attention", layer]
    arguments += ["--seed", str(seed)]
    arguments += ["--data.name", options.data, "--model.pretrained", options.pretrained]
    for name, value in (
        ("--epochs", options.epochs),
        ("--model.attention-stages", stage),
        ("--data.image-size", options.image_size),
    ):
        if value is not None:
            arguments += [name, str(value)]
    if options.train_everything:
        arguments += ["--optimizer.freeze", "None"]
    # Scored once, at the end; the test images choose nothing.
    return [*arguments, "--output.evaluate-every", "1000"]


def scores(runs: list[dict]) -> dict[str, list[float | None]]:
    """Every column of one row, seed by seed."""
    values: dict[str, list[float | None]] = {
        name: [score(run, key) for run in runs] for name, key, _ in COLUMNS
    }
    gap = differences(values["train accuracy"], values["test accuracy"])
    values[GAP[0]] = list(gap)
    return values


def markdown(runs: dict[str, list[dict]], command: str) -> str:
    """The table of means, the paired differences, and every seed's figures."""
    found = {name: scores(each) for name, each in runs.items()}
    first, count = next(iter(runs)), len(next(iter(runs.values())))
    lines = [
        "# Pets: a pretrained network, fine-tuned with and without attention",
        "",
        f"`{command}` on {platform.machine()}, {os.cpu_count()} cores; mean ± 95%"
        f" interval over {count} seeds. Class labels only, the same recipe in all rows"
        " (`benchmarks/pets.py`). Localisation is scored on the test photographs'"
        " trimaps: mask mass on the animal; whether the mask's largest value (a"
        " rectangle's centre) lies on it; CorLoc is the share of photographs where the"
        " mask, cut half way between its least and largest value, and the animal"
        " overlap by half or more (IoU).",
        "",
        *table(found, SHOWN),
    ]
    for column in (COLUMNS[0], GAP):
        title = column[0][0].upper() + column[0][1:]
        lines += ["", f"{title}, minus that of `{first}`, paired by seed:", ""]
        lines += paired(found, column, first=first)
    for name in runs:
        rival = name.replace("rectangular", "positionwise-trunk")
        if name != rival and rival in found:
            lines += ["", f"{name} minus {rival}, paired by seed:", ""]
            pair = {rival: found[rival], name: found[name]}
            for column in (COLUMNS[0], GAP, *COLUMNS[2:5]):
                (line,) = paired(pair, column, first=rival)
                lines.append(line.replace(name, column[0], 1))
    return "\n".join([*lines, "", "Every seed:", "", *table(by_seed(found), SHOWN)])


def main(arguments: list[str]) -> None:
    """Runs what is missing and writes the results."""
    options = tyro.cli(Options, args=arguments, prog="python -m benchmarks.pets")
    runs: dict[str, list[dict]] = {}
    # Seed by seed, so that an interrupted benchmark has whole pairs.
    for seed in range(options.seeds):
        planned = {
            options.workdir / f"{layer}-{stage or 0}-{seed}": fit_arguments(
                options, layer, stage, seed
            )
            for _, layer, stage in rows(options)
        }
        results = run_all(planned, options.jobs, evaluation=EVALUATION)
        for (name, *_), result in zip(rows(options), results, strict=True):
            runs.setdefault(name, []).append(result)
        write_results(options, runs, arguments)
    attended = [row for row in rows(options) if row[2] is not None]
    workdirs = [options.workdir / f"{row[1]}-{row[2]}-0" for row in attended]
    picture_rows(workdirs, options.results.with_suffix(".png"))


def write_results(
    options: Options, runs: dict[str, list[dict]], arguments: list[str]
) -> None:
    """RESULTS.md and RESULTS.json of the seeds done so far."""
    command = shlex.join(["python", "-m", "benchmarks.pets", *arguments])
    options.results.parent.mkdir(parents=True, exist_ok=True)
    text = markdown(runs, command) + "\n"
    options.results.with_suffix(".md").write_text(text)
    record = {"command": command, "machine": platform.machine(), "runs": runs}
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1))
    print(text)


def picture_rows(workdirs: list[Path], path: Path, count: int = 6) -> None:
    """Test photographs spread over the classes, one row for each trained network."""
    import jax
    import numpy as np
    from PIL import Image

    from cram_jax.drawing import image_grid
    from train.data.loaders import Feed
    from train.evidence.pictures import picture_of
    from train.learning.devices import JitParallel
    from train.learning.evaluator import observe
    from train.run.checkpoints.restore import restore_trained

    pictures = []
    for workdir in workdirs:
        trained = restore_trained(workdir, "latest", JitParallel(jax.devices()[:1]))
        experiment = trained.experiment
        feed = Feed(trained.config, experiment.task, experiment.inputs)
        images = len(feed.eval_source)
        whole = feed.fixed_batch(images)
        chosen = (np.arange(count) * images // count) + images // (2 * count)
        batch = {name: values[chosen] for name, values in whole.items()}
        look = jax.jit(functools.partial(observe, trained.experiment))
        evidence = look(trained.variables, trained.step, batch["image"])[1]
        for index in range(count):
            truth = batch["rectangle"][index]
            pictures.append(picture_of(batch["image"][index], evidence, index, truth))
    Image.fromarray(image_grid(pictures, columns=count)).save(path)


if __name__ == "__main__":
    main(sys.argv[1:])
