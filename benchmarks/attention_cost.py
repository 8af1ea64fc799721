"""What every attention layer costs, alone and in a network.

    python -m benchmarks.attention_cost                       # maps and digits
    python -m benchmarks.attention_cost --batch 2 --rounds 5 --dtypes float32
    python -m benchmarks.attention_cost --no-maps --networks resnet50 --batch 16 \
        --layers none rectangular squeeze-excite

On feature maps: parameters, FLOPs, memory, compile time, and the times of forward and
forward with backward, as ratios to a measured floor (benchmarks/cost_layers.py). In
networks: the time of a training step relative to the bare network
(benchmarks/cost_networks.py). All functions of a map, and of a network, are measured in
turn in every round. Results are written after each map and each network, into what the
file already holds: RESULTS.json, RESULTS_tables.md and RESULTS.png; and
RESULTS_accuracy.png, accuracy on the digits against the cost of their step, where both
are known.
"""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from benchmarks.cost_layers import LAYERS, measure_map
from benchmarks.cost_networks import NETWORKS, SINGLE_STAGES, measure_network
from benchmarks.cost_report import (
    accuracies_and_costs,
    draw,
    draw_accuracy,
    tables,
)
from benchmarks.cost_torch import LAYERS as TORCH_LAYERS
from benchmarks.cost_torch import import_torch
from benchmarks.timing import machine
from cram_jax.attention.registry import ATTENTIONS

# Height, width and channels of the maps after the stages, at 224 pixels; batch, height,
# width and channels where one of them is varied.
MAPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "resnet50": ((56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048)),
    "efficientnet-b0": (
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 40),
        (14, 14, 80),
        (14, 14, 112),
        (7, 7, 192),
        (7, 7, 320),
    ),
    "large": ((256, 256, 64),),
    "growing-batch": tuple((batch, 28, 28, 256) for batch in (1, 2, 4, 8, 16, 32)),
    "growing-size": tuple((8, side, side, 128) for side in (7, 14, 28, 56, 112)),
    "growing-channels": tuple((8, 28, 28, count) for count in (16, 64, 256, 1024)),
}
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Options:
    """What to measure."""

    maps: tuple[str, ...] = ("resnet50", "efficientnet-b0", "large")
    """Networks whose feature maps are measured; "large" is 256 x 256 x 64; in
    "growing-batch", "growing-size" and "growing-channels" one side of a map grows."""
    no_maps: bool = False
    """Measure no maps, only networks."""
    networks: tuple[str, ...] = ("digits",)
    """Networks whose training step is measured."""
    no_networks: bool = False
    """Measure no networks, only maps."""
    layers: tuple[str, ...] = ("none", *LAYERS)
    """Attention layers by name."""
    torch: bool = False
    """On maps, measure timm's layers under torch.compile in the same rounds."""
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    """Dtypes of the maps."""
    batch: int = 8
    """Images of a batch."""
    large_batch: int = 2
    """Images of a batch of the large map."""
    image_size: int = 224
    """Side of the images of networks other than digits."""
    each_stage: bool = False
    """Put the layer also into each stage of a network by itself."""
    rounds: int = 7
    """Measurements of everything."""
    digits: Path = Path("results/digits.json")
    """Results of benchmarks.digits; where they are, accuracy is drawn against cost."""
    results: Path = Path("results/cost")
    """Beginning of the names of the files."""


def load(path: Path) -> dict[str, Any]:
    """Earlier results, or none."""
    return json.loads(path.read_text()) if path.exists() else {"maps": [], "nets": []}


def save(record: dict[str, Any], results: Path) -> None:
    """Writes the JSON, the tables and the plot."""
    results.parent.mkdir(parents=True, exist_ok=True)
    results.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    results.with_name(results.name + "_tables.md").write_text(tables(record))
    draw(record, results.with_suffix(".png"))


def put(records: list[dict], new: dict, keys: tuple[str, ...]) -> None:
    """Adds a record in place of the one that measured the same."""
    records[:] = [old for old in records if any(old[k] != new[k] for k in keys)]
    records.append(new)


def check_names(options: Options) -> None:
    """Exits in one sentence for a name that does not exist, before measuring."""
    known = {"maps": MAPS, "networks": NETWORKS, "layers": ATTENTIONS, "dtypes": DTYPES}
    for option, names in known.items():
        for name in getattr(options, option):
            if name not in names:
                raise SystemExit(
                    f"--{option} has no {name!r}; there are: {', '.join(names)}."
                )


def shapes_of(maps: str, options: Options) -> list[tuple[int, ...]]:
    """Batch, height, width and channels of the named maps."""
    batch = options.large_batch if maps == "large" else options.batch
    return [sides if len(sides) == 4 else (batch, *sides) for sides in MAPS[maps]]


def main(arguments: list[str]) -> None:
    """Measures and writes the results."""
    options = tyro.cli(
        Options, args=arguments, prog="python -m benchmarks.attention_cost"
    )
    check_names(options)
    command = shlex.join(["python", "-m", "benchmarks.attention_cost", *arguments])
    record = load(options.results.with_suffix(".json"))
    layers = tuple(name for name in options.layers if name != "none")
    about = {"command": command}
    torch_layers = tuple(TORCH_LAYERS) if options.torch else ()
    if options.torch:
        import_torch()  # What is missing should be said before hours of measuring.
    for dtype in () if options.no_maps else options.dtypes:
        for name in options.maps:
            for shape in shapes_of(name, options):
                new = measure_map(shape, dtype, layers, options.rounds, torch_layers)
                new |= {"network": name, "machine": machine(), **about}
                put(record["maps"], new, ("network", "shape", "dtype"))
                save(record, options.results)
                print(dtype, shape, flush=True)
    for name in () if options.no_networks else options.networks:
        stages = [NETWORKS[name]]
        if options.each_stage:
            single = [(stage,) for stage in SINGLE_STAGES[name]]
            stages += [stage for stage in single if stage not in stages]
        new = measure_network(
            name, layers, stages, options.batch, options.image_size, options.rounds
        )
        new |= {"machine": machine(), **about}
        put(record["nets"], new, ("network", "batch", "image_size"))
        save(record, options.results)
        print(name, flush=True)
    if options.digits.exists():
        points = accuracies_and_costs(record, json.loads(options.digits.read_text()))
        path = options.results.with_name(options.results.name + "_accuracy.png")
        draw_accuracy(points, path)


if __name__ == "__main__":
    main(sys.argv[1:])
