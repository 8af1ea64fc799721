"""The cost of one attention layer on one feature map, and the floor it stands on.

Floor, forward: every layer must read the map to decide, read it again to gate it, and
write the result: three transfers. Floor, forward and backward: then the cotangent
must be read with the map for the gate's own gradient (two), and once more to be gated
(one), and the map's gradient written (one): seven transfers. Both floors are programs
that do just that, written in several ways; the fastest counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.cost_torch import torch_functions
from benchmarks.timing import interleaved, quartiles, relative
from cram_jax.attention.registry import ATTENTIONS
from cram_jax.numerics import read_apart

# "rectangular-moment" is "rectangular" by its other name.
LAYERS = tuple(n for n in ATTENTIONS if n not in ("none", "rectangular-moment"))
Tree = Any


def example_values(shapes: Tree) -> Tree:
    """Arrays of the given shapes: fan-in scaled kernels, ones for scales, else zeros.

    What an initialiser would give, but without compiling one for every shape.
    """
    generator = np.random.default_rng(0)

    def value(path, leaf):
        name = path[-1].key
        if name == "kernel":
            scale = 1 / np.sqrt(np.prod(leaf.shape[:-1]))
            array = generator.normal(0, scale, leaf.shape)
        else:
            array = np.full(leaf.shape, 1.0 if name in ("scale", "var") else 0.0)
        return jnp.asarray(array, leaf.dtype)

    return jax.tree_util.tree_map_with_path(value, shapes)


def layer_functions(
    name: str, features: jax.Array | jax.ShapeDtypeStruct
) -> tuple[Callable, Callable, Tree]:
    """`forward(params, x)`, `both(params, x, cotangent)` and parameters of a layer."""
    make = ATTENTIONS[name]
    if make is None:
        raise ValueError(f"There is no layer to measure behind {name!r}.")
    layer = make(name="layer")
    shapes = jax.eval_shape(layer.init, jax.random.key(0), features)
    params = example_values(shapes["params"])
    rest = example_values({k: v for k, v in shapes.items() if k == "batch_stats"})

    def forward(params, x):
        variables = {"params": params, **rest}
        if not rest:
            return layer.apply(variables, x, train=True)
        return layer.apply(variables, x, train=True, mutable=["batch_stats"])[0]

    def both(params, x, cotangent):
        y, pullback = jax.vjp(forward, params, x)
        return y, pullback(cotangent)

    return forward, both, params


def _scale_by(x: jax.Array, statistic: jax.Array) -> jax.Array:
    return x * (1 + statistic).astype(x.dtype)


def _precise(x: jax.Array) -> jax.Array:
    return read_apart(x).astype(jnp.float32)


def _sum_native(x: jax.Array) -> jax.Array:
    zero = jnp.zeros((), x.dtype)
    return jax.lax.reduce(x, zero, jax.lax.add, (1, 2))[:, None, None]


_STATISTICS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "all": lambda x: _precise(x).mean((1, 2, 3), keepdims=True),
    "positions": lambda x: _precise(x).mean((1, 2), keepdims=True),
    "channels": lambda x: _precise(x).mean(3, keepdims=True),
    "native": _sum_native,
}


def floor_functions() -> dict[str, tuple[Callable, Callable]]:
    """By name `forward(x)` and `both(x, cotangent)` that move what must be moved."""

    def make(statistic):
        def forward(x):
            return _scale_by(x, statistic(x))

        def both(x, cotangent):
            return forward(x), _scale_by(cotangent, statistic(x * cotangent))

        return forward, both

    return {name: make(statistic) for name, statistic in _STATISTICS.items()}


def compile_and_describe(function: Callable, *arguments: Any) -> tuple[Any, dict]:
    """The compiled function with its FLOPs, memory and compile time."""
    lowered = jax.jit(function).lower(*arguments)
    start = time.perf_counter()
    compiled = lowered.compile()
    taken = time.perf_counter() - start
    memory, cost = compiled.memory_analysis(), lowered.cost_analysis() or {}
    facts = {"compile_seconds": taken, "flops": cost.get("flops")}
    if memory is not None:
        facts["temporary_bytes"] = memory.temp_size_in_bytes
        facts["peak_bytes"] = (
            memory.temp_size_in_bytes
            + memory.output_size_in_bytes
            + memory.argument_size_in_bytes
        )
    return compiled, facts


def _floors(x: jax.Array, cotangent: jax.Array, runs: dict) -> None:
    for name, (forward, both) in floor_functions().items():
        first = jax.jit(forward).lower(x).compile()
        second = jax.jit(both).lower(x, cotangent).compile()
        runs[f"floor {name}", "forward"] = lambda run=first: run(x)
        runs[f"floor {name}", "both"] = lambda run=second: run(x, cotangent)


def _fastest_floor(times: dict, phase: str) -> str:
    names = [f"floor {name}" for name in _STATISTICS]
    return min(names, key=lambda name: quartiles(times[name, phase]["wall"])[1])


def measure_map(
    shape: tuple[int, ...],
    dtype: str,
    layers: tuple[str, ...],
    rounds: int,
    torch_layers: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Every layer and the floors on one map, interleaved.

    Args:
      shape: `(batch, height, width, channels)`.
      dtype: the features' dtype.
      layers: names in `ATTENTIONS`.
      rounds: measurements of each.
      torch_layers: names in `cost_torch.LAYERS`, measured in the same rounds.

    Returns:
      A record for JSON: of each layer and phase ("forward", "both") the static facts,
      quartiles of wall and processor seconds, and of their ratios to the floor.
    """
    generator = np.random.default_rng(0)
    x, cotangent = (
        jnp.asarray(generator.normal(size=shape), jnp.dtype(dtype)) for _ in range(2)
    )
    runs, facts, parameters = {}, {}, {}
    _floors(x, cotangent, runs)
    for name in layers:
        forward, both, params = layer_functions(name, x)
        parameters[name] = sum(leaf.size for leaf in jax.tree.leaves(params))
        first, facts[name, "forward"] = compile_and_describe(forward, params, x)
        second, facts[name, "both"] = compile_and_describe(both, params, x, cotangent)
        runs[name, "forward"] = lambda run=first, p=params: run(p, x)
        runs[name, "both"] = lambda run=second, p=params: run(p, x, cotangent)
    for name in torch_layers:
        run, run_both, known = torch_functions(name, shape, dtype)
        runs[name, "forward"], runs[name, "both"] = run, run_both
        parameters[name] = known["parameters"]
        for phase in ("forward", "both"):
            seconds = known[f"{phase}_compile_seconds"]
            facts[name, phase] = {"compile_seconds": seconds, "flops": None}
    record = {"shape": list(shape), "dtype": dtype, "megabytes": x.nbytes / 1e6}
    return record | _ratios(interleaved(runs, rounds), facts, parameters)


def _ratios(
    times: dict, facts: dict[tuple[str, str], dict], parameters: dict[str, int]
) -> dict[str, Any]:
    """The floor of a record, and each layer beside it."""
    found: dict[str, Any] = {
        "floor": {},
        "layers": {name: {"parameters": count} for name, count in parameters.items()},
    }
    for phase in ("forward", "both"):
        floor = _fastest_floor(times, phase)
        base = times[floor, phase]
        found["floor"][phase] = {"program": floor, "wall": quartiles(base["wall"])}
        for name in parameters:
            time_of = times[name, phase]
            found["layers"][name][phase] = facts[name, phase] | {
                "wall": quartiles(time_of["wall"]),
                "cpu": quartiles(time_of["cpu"]),
                "to_floor": relative(time_of["wall"], base["wall"]),
                "cpu_to_floor": relative(time_of["cpu"], base["cpu"]),
            }
    return found
