"""Tables and a plot of what benchmarks/attention_cost.py has measured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib import ticker

from benchmarks.tables import score
from train.commands.intervals import mean_and_interval

PHASES = {"forward": "forward", "both": "forward + backward"}


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _head(cells: list[str]) -> list[str]:
    return [_row(cells), _row(["---"] + ["---:"] * (len(cells) - 1))]


def _spread(quartiles: list[float], digits: int = 2) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in quartiles)
    return f"{middle} ({low}-{high})"


def _name(record: dict[str, Any]) -> str:
    return "x".join(map(str, record["shape"]))


def _layers(records: list[dict]) -> list[str]:
    return list(dict.fromkeys(name for r in records for name in r["layers"]))


def _ratio_table(records: list[dict], phase: str, key: str) -> list[str]:
    names = _layers(records)
    lines = _head(["map", "MB", "floor (ms)", *names])
    for record in records:
        floor = record["floor"][phase]["wall"][1] * 1e3
        cells = [_name(record), f"{record['megabytes']:.1f}", f"{floor:.2f}"]
        for name in names:
            layer = record["layers"].get(name)
            cells.append(_spread(layer[phase][key]) if layer else "")
        lines.append(_row(cells))
    return lines


def _static_table(records: list[dict]) -> list[str]:
    titles = ["parameters", "MFLOP", "temporary MB", "compile (s)"]
    lines = _head(["map", "layer", *titles])
    for record in records:
        for name, layer in record["layers"].items():
            both = layer["both"]
            temporary = both.get("temporary_bytes", float("nan")) / 1e6
            flops = (both["flops"] or float("nan")) / 1e6
            cells = [f"{layer['parameters']:,}", f"{flops:.1f}", f"{temporary:.2f}"]
            cells.append(f"{both['compile_seconds']:.1f}")
            lines.append(_row([_name(record), name, *cells]))
    return lines


def _network_table(record: dict[str, Any]) -> list[str]:
    titles = ["wall / none", "processor / none", "parameters", "FLOPs"]
    lines = _head(["layer", "stages", *titles])
    for run in record["runs"]:
        stages = ", ".join(map(str, run["stages"]))
        more = [f"{100 * run[key]:+.2f}%" for key in ("more_parameters", "more_flops")]
        cells = [_spread(run["to_none"], 3), _spread(run["cpu_to_none"], 3), *more]
        lines.append(_row([run["layer"], stages, *cells]))
    return lines


def tables(record: dict[str, Any]) -> str:
    """Markdown of everything measured: medians and quartiles."""
    lines = ["# Measured costs", "", "Median (lower-upper quartile) over rounds.", ""]
    commands = dict.fromkeys(r["command"] for r in record["maps"] + record["nets"])
    lines += [f"- `{command}`" for command in commands]
    machines = [r["machine"] for r in record["maps"] + record["nets"]]
    lines += ["", f"Machine at the end: {machines[-1]}." if machines else ""]
    for dtype in dict.fromkeys(r["dtype"] for r in record["maps"]):
        records = [r for r in record["maps"] if r["dtype"] == dtype]
        for phase, words in PHASES.items():
            for key, clock in (("to_floor", "wall"), ("cpu_to_floor", "processor")):
                lines += ["", f"## {dtype}, {words}: {clock} time over the floor's", ""]
                lines += _ratio_table(records, phase, key)
        lines += ["", f"## {dtype}: parameters; FLOPs, temporary memory and compile"]
        lines += ["time of forward + backward", "", *_static_table(records)]
    for net in record["nets"]:
        step = net["none"]["wall"][1]
        lines += ["", f"## Training step of {net['network']}, batch {net['batch']}"]
        lines += ["", f"{net['image_size']} pixels; without attention {step:.3f} s."]
        lines += ["", *_network_table(net)]
    return "\n".join(lines) + "\n"


def _draw_layer(axis: plt.Axes, records: list[dict], name: str, colour: str) -> None:
    """A layer's ratios, joined between maps of one network only."""
    ours = name.startswith("rectangular")
    label = name
    for network in dict.fromkeys(r["network"] for r in records):
        points = [
            (place, r["layers"][name]["both"]["cpu_to_floor"][1])
            for place, r in enumerate(records)
            if name in r["layers"] and r["network"] == network
        ]
        if not points:
            continue
        axis.plot(
            *zip(*points, strict=True),
            "o-" if ours else "s--",
            label=label,
            color=colour,
            linewidth=2 if ours else 1,
        )
        label = None


def draw(record: dict[str, Any], path: Path) -> None:
    """Processor time of forward + backward over the floor's, map by map."""
    dtypes = list(dict.fromkeys(r["dtype"] for r in record["maps"]))
    if not dtypes:
        return
    colours = {name: f"C{i}" for i, name in enumerate(_layers(record["maps"]))}
    figure, axes = plt.subplots(
        len(dtypes), 1, figsize=(11, 3.6 * len(dtypes)), squeeze=False
    )
    for axis, dtype in zip(axes[:, 0], dtypes, strict=True):
        records = [r for r in record["maps"] if r["dtype"] == dtype]
        for name in _layers(records):
            _draw_layer(axis, records, name, colours[name])
        axis.set_xticks(range(len(records)), [_name(r) for r in records])
        axis.tick_params("x", rotation=30, labelsize=8)
        axis.axhline(1, color="black", linewidth=0.8)
        axis.set_yscale("log", base=2)
        axis.yaxis.set_major_formatter(ticker.ScalarFormatter())
        axis.set_ylabel("processor time / floor")
        axis.set_title(f"Forward + backward, {dtype}")
        axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def accuracies_and_costs(
    record: dict[str, Any], digits: dict[str, Any]
) -> dict[str, tuple[float, float, float]]:
    """Layers whose digits step and whose accuracy on the digits are both known.

    Args:
      record: this benchmark's.
      digits: the record of `benchmarks.digits`, with the study "layers".

    Returns:
      By layer the step's processor time over the bare network's, the mean test
      accuracy, and half its 95% interval (0 with a single seed).
    """
    costs: dict[tuple[str, tuple[int, ...]], float] = {("none", ()): 1.0}
    for net in record["nets"]:
        if net["network"] == "digits":
            for run in net["runs"]:
                costs[run["layer"], tuple(run["stages"])] = run["cpu_to_none"][1]
    points = {}
    for arm in digits["studies"].get("layers", ()):
        # "none-4000", "positionwise-trunk-stage2-4000"
        head, _ = arm.rsplit("-", 1)
        layer, _, stage = head.partition("-stage")
        # The costs know the moment predictor by its other name.
        name = layer.removesuffix("+loss").replace("-moment", "")
        cost = costs.get((name, tuple(map(int, stage))))
        found = [score(run, "test/accuracy") for run in digits["runs"][arm]]
        values = [value for value in found if value is not None]
        if cost is not None and values:
            mean, interval = mean_and_interval(values)
            points[layer] = (cost, mean, interval or 0.0)
    return points


def draw_accuracy(points: dict[str, tuple[float, float, float]], path: Path) -> None:
    """Test accuracy on the digits against the cost of the training step."""
    figure, axis = plt.subplots(figsize=(9, 4.5))
    for layer, (cost, mean, interval) in points.items():
        marker = "o" if layer.startswith("rectangular") else "s"
        axis.errorbar(cost, mean, interval, fmt=marker, capsize=3, label=layer)
    axis.set_xlabel("processor time of a training step / without attention")
    axis.set_ylabel("test accuracy, 95% interval over seeds")
    axis.set_title("Cluttered digits, 4,000 training images")
    axis.legend(fontsize=8, loc="upper left", bbox_to_anchor=(1, 1))
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
