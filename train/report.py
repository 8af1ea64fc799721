"""The subcommand `report`: runs compared in a Markdown table and in curves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.cli import ReportConfig
from train.config import to_dict
from train.errors import DONE, UserError
from train.records import METRICS_FILE, read_records
from train.workdir import differing_fields, load_config

# Two-sided 95% points of Student's t for 1 to 10 degrees of freedom; then normal.
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
_CURVES = ("accuracy", "cross_entropy", "iou", "mask_iou", "center_error")


class Run:
    """One run: its config and its records.

    Attributes:
      config: as a plain dict, without the seed.
      seed: of the run.
      train: records of training.
      eval: records of evaluation.
    """

    def __init__(self, workdir: Path):
        """Reads a work directory; raises UserError if it holds no evaluated run."""
        values = to_dict(load_config(workdir))
        self.workdir, self.seed = workdir, values.pop("seed")
        self.config = values
        records = read_records(workdir / METRICS_FILE)
        self.train = [record for record in records if record["kind"] == "train"]
        self.eval = [record for record in records if record["kind"] == "eval"]
        if not self.eval:
            raise UserError(f"{workdir} has not been evaluated yet.")


def mean_and_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and half width of its 95% confidence interval (Student's t).

    The half width of a single value is None: one run says nothing about spread.
    """
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return mean, None
    point = _T95[count - 2] if count - 2 < len(_T95) else 1.96
    return mean, point * float(np.std(values, ddof=1)) / count**0.5


def group_runs(runs: Sequence[Run]) -> dict[str, list[Run]]:
    """Runs by what makes their configs differ from one another, seeds aside."""
    fields = differing_fields([run.config for run in runs])
    groups: dict[str, list[Run]] = {}
    for run in runs:
        parts = [f"{name}={_value(run.config, name)}" for name in fields]
        groups.setdefault(", ".join(parts) or "all", []).append(run)
    return groups


def _value(config: dict[str, Any], name: str) -> str:
    value: Any = config
    for part in name.split("."):
        value = value[part]
    return json.dumps(value)


def _cell(values: Sequence[float]) -> str:
    mean, interval = mean_and_interval(values)
    return f"{mean:.4f}" if interval is None else f"{mean:.4f} ± {interval:.4f}"


def markdown_table(groups: dict[str, list[Run]]) -> str:
    """One row per group: mean ± 95% interval over seeds of the last evaluation."""
    about = ("kind", "step", "epoch", "seconds", "images")
    names: list[str] = []
    for runs in groups.values():
        for name in runs[0].eval[-1]:
            if name not in about and name not in names:
                names.append(name)
    lines = ["| runs | seeds | steps | " + " | ".join(names) + " |"]
    lines.append("| --- | ---: | ---: |" + " ---: |" * len(names))
    for label, runs in groups.items():
        last = [run.eval[-1] for run in runs]
        steps = ", ".join(str(step) for step in sorted({each["step"] for each in last}))
        cells = []
        for name in names:
            values = [each[name] for each in last if name in each]
            cells.append(_cell(values) if values else "")
        seeds = len({run.seed for run in runs})
        lines.append(f"| {label} | {seeds} | {steps} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _draw_curves(groups: dict[str, list[Run]], output: Path) -> list[Path]:
    """One PNG per score: each run thin, the mean of a group thick."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    files = []
    for score in _CURVES:
        figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
        for index, (label, runs) in enumerate(groups.items()):
            _draw_group(axes, score, label, runs, f"C{index % 10}")
        if axes.lines:
            axes.set_xlabel("epoch")
            axes.set_ylabel(score.replace("_", " "))
            axes.legend(fontsize="small")
            files.append(output / f"{score}.png")
            figure.savefig(files[-1], dpi=120)
        plt.close(figure)
    return files


def _draw_group(axes, score: str, label: str, runs: list[Run], color: str) -> None:
    curves: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for run in runs:
        keys = [key for key in run.eval[-1] if key.rpartition("/")[2] == score]
        for key in keys:
            points = [(r["epoch"], r[key]) for r in run.eval if key in r]
            epochs, values = np.array(points).T
            axes.plot(epochs, values, color=color, linewidth=0.7, alpha=0.5)
            curves.setdefault(key, []).append((epochs, values))
    for key, found in curves.items():
        shortest = min(len(epochs) for epochs, _ in found)
        mean = np.mean([values[:shortest] for _, values in found], axis=0)
        layer = key.rpartition("/")[0]
        name = f"{label} ({layer})" if layer else label
        axes.plot(found[0][0][:shortest], mean, color=color, linewidth=2, label=name)


def report(options: ReportConfig) -> int:
    """Writes report.md and the curves; prints the table.

    Raises:
      UserError: if a directory is no run, or has no evaluation.
    """
    if not options.runs:
        raise UserError("report needs at least one work directory.")
    groups = group_runs([Run(workdir) for workdir in options.runs])
    table = markdown_table(groups)
    options.output.mkdir(parents=True, exist_ok=True)
    files = _draw_curves(groups, options.output)
    pictures = "".join(f"\n![{file.stem}]({file.name})\n" for file in files)
    (options.output / "report.md").write_text(table + pictures)
    print(table)
    print(f"Written: {options.output / 'report.md'} and {len(files)} curves.")
    return DONE
