"""What a GPU has to do for each attention layer, read off the compiled program.

    python -m benchmarks.gpu_programs
    python -m benchmarks.gpu_programs --batch 32 --precision float32 --no-network

XLA compiles for a GPU that is not there: for the one described in `H200`, if the CUDA
plugin of JAX is installed (no GPU, no driver needed; `pip install --no-deps
jax-cuda13-plugin jax-cuda13-pjrt`, of jaxlib's version), else for the one that is.
Counted are the programs' launches, and the bytes they must move: every operand of a
launch read once, every result written once. That is no time: caches, launch latency and
the speed of what else runs are not in it. RESULTS.json and RESULTS.md are written.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from benchmarks.attention_cost import MAPS
from benchmarks.cost_layers import LAYERS, compile_and_describe, layer_functions
from benchmarks.cost_networks import NETWORKS, imagenet_step

# What XLA wants to know of the device; from NVIDIA's data sheet and programming guide.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 151397597184
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
device_description_str: "NVIDIA H200"
"""
# Instructions that name or regroup arrays and launch nothing.
_FREE = {"parameter", "constant", "bitcast", "get-tuple-element", "tuple", "after-all"}
_NESTED = {"while", "conditional", "call"}
_INSTRUCTION = re.compile(
    r"\s*(?:ROOT )?%?(?P<name>[\w.\-]+) = (?P<type>\(.*?\)|\S+) (?P<opcode>[\w\-]+)"
    r"\((?P<operands>.*?)\)(?:,|$)"
)
_ARRAY = re.compile(r"\b(pred|[a-z]+\d+)\[([\d,]*)\]")


@dataclass(frozen=True)
class Options:
    """What to compile."""

    layers: tuple[str, ...] = LAYERS
    """Attention layers by name."""
    precision: Literal["bf16", "float32"] = "bf16"
    """Dtype of the maps, and of the network's features."""
    batch: int = 128
    """Images of a batch."""
    no_network: bool = False
    """Only the feature maps of ResNet-50, not its training step."""
    results: Path = Path("results/gpu_programs")
    """Beginning of the names of the files."""


@dataclass(frozen=True)
class Launch:
    """One instruction of the compiled program, with the bytes it reads and writes."""

    name: str
    opcode: str
    read: int
    written: int


def _bytes_of(type_text: str) -> int:
    """The size of "f32[2,3]{1,0}" is 24; that of a tuple the sum."""
    total = 0
    for dtype, sides in _ARRAY.findall(type_text):
        bits = 8 if dtype == "pred" else int(re.sub(r"\D", "", dtype.split("e")[0]))
        total += math.prod(map(int, filter(None, sides.split(",")))) * bits // 8
    return total


def launches(program: str) -> list[Launch]:
    """The launches of an optimised HLO module's entry, in order.

    Raises:
      ValueError: for a loop or branch, whose launches cannot be counted.
    """
    sizes, found = {}, []
    for line in program[program.index("\nENTRY ") :].splitlines():
        match = _INSTRUCTION.match(line)
        if match is None:
            continue
        name, opcode = match["name"], match["opcode"]
        sizes[name] = _bytes_of(match["type"])
        if opcode in _NESTED:
            raise ValueError(f"The program has a {opcode}; its launches are unknown.")
        if opcode in _FREE:
            continue
        operands = dict.fromkeys(re.findall(r"%([\w.\-]+)", match["operands"]))
        read = sum(sizes[operand] for operand in operands)
        found.append(Launch(name, opcode, read, sizes[name]))
    return found


def target() -> tuple[str, Any]:
    """Words for the device to compile for, and the device."""
    if jax.default_backend() == "gpu":
        device = jax.devices()[0]
        return f"{device.device_kind}, at hand", device
    try:
        topology = topologies.get_topology_desc(
            platform="cuda", target_config=H200, topology="1x1x1"
        )
    except NotImplementedError:
        raise SystemExit(
            "There is no GPU, and no CUDA plugin to compile for one; install it with"
            " pip install --no-deps jax-cuda13-plugin jax-cuda13-pjrt, of the version"
            f" of jaxlib ({version('jaxlib')})."
        ) from None
    return "NVIDIA H200 as described, not at hand", topology.devices[0]


def describe(device: Any, function: Callable, *arguments: Any) -> dict[str, int]:
    """Launches, bytes moved, and temporary bytes of a function for shapes."""
    sharding = SingleDeviceSharding(device)
    shapes = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        arguments,
    )
    compiled, facts = compile_and_describe(function, *shapes)
    program = launches(compiled.as_text())
    return {
        "launches": len(program),
        "bytes": sum(each.read + each.written for each in program),
        "temporary_bytes": facts["temporary_bytes"],
    }


def measure_maps(device: Any, options: Options) -> list[dict[str, Any]]:
    """Every layer on ResNet-50's maps, forward and with the gradient."""
    dtype = jnp.bfloat16 if options.precision == "bf16" else jnp.float32
    records = []
    for sides in MAPS["resnet50"]:
        x = jax.ShapeDtypeStruct((options.batch, *sides), dtype)
        for name in options.layers:
            forward, both, params = layer_functions(name, x)
            record = {"shape": list(x.shape), "layer": name}
            record["map_bytes"] = x.size * x.dtype.itemsize
            record["forward"] = describe(device, forward, params, x)
            record["both"] = describe(device, both, params, x, x)
            records.append(record)
        print(x.shape, flush=True)
    return records


def measure_steps(device: Any, options: Options) -> list[dict[str, Any]]:
    """ResNet-50's training step at 224 pixels, bare and with each layer."""
    stages, records = NETWORKS["resnet50"], []
    for name in ("none", *options.layers):
        step, arguments, _ = imagenet_step(
            "resnet50", name, stages, options.batch, 224, options.precision
        )
        records.append({"layer": name, **describe(device, step, *arguments)})
        print("step", name, flush=True)
    return records


def markdown(record: dict[str, Any]) -> str:
    """Tables of maps and steps."""
    lines = ["# What a GPU has to do, by the compiled program", ""]
    lines += [f"`{record['command']}`, compiled for: {record['device']}.", ""]
    lines += ["## ResNet-50's maps", "", "Moved: bytes over those of the map.", ""]
    phases = ("forward", "forward + backward")
    titles = [f"{phase}: {what}" for phase in phases for what in ("launches", "moved")]
    lines += [
        f"| map | layer | {' | '.join(titles)} |",
        "| --- | --- |" + " ---: |" * 4,
    ]
    for each in record["maps"]:
        cells = ["x".join(map(str, each["shape"])), each["layer"]]
        for phase in ("forward", "both"):
            moved = each[phase]["bytes"] / each["map_bytes"]
            cells += [str(each[phase]["launches"]), f"{moved:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    if record["steps"]:
        bare = record["steps"][0]
        lines += ["", "## ResNet-50's training step", ""]
        lines += ["| layer after all four stages | launches | GB moved | more |"]
        lines += ["| --- | ---: | ---: | ---: |"]
    for each in record["steps"]:
        more = 100 * (each["bytes"] / bare["bytes"] - 1)
        moved = f"{each['bytes'] / 1e9:.2f} | {more:+.2f}%"
        lines.append(f"| {each['layer']} | {each['launches']:,} | {moved} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> None:
    """Compiles, counts, and writes the results."""
    options = tyro.cli(
        Options, args=arguments, prog="python -m benchmarks.gpu_programs"
    )
    for name in options.layers:
        if name not in LAYERS:
            raise SystemExit(
                f"--layers has no {name!r}; there are: {', '.join(LAYERS)}."
            )
    if options.batch < 1:
        raise SystemExit(f"--batch must be at least 1; got {options.batch}.")
    words, device = target()
    record = {
        "command": shlex.join(["python", "-m", "benchmarks.gpu_programs", *arguments]),
        "device": words,
        "maps": measure_maps(device, options),
        "steps": [] if options.no_network else measure_steps(device, options),
    }
    options.results.parent.mkdir(parents=True, exist_ok=True)
    options.results.with_suffix(".json").write_text(json.dumps(record, indent=1) + "\n")
    options.results.with_suffix(".md").write_text(markdown(record))


if __name__ == "__main__":
    main(sys.argv[1:])
