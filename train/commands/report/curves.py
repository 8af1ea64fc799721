"""Curves of several runs: each run thin, the mean of its group thick."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np

from cram_jax.drawing.fonts import font_file, has_font
from train.commands.report.groups import Group
from train.commands.report.runs import Run

_SCORES = ("accuracy", "mean_iou", "cross_entropy", "iou", "mask_iou", "center_error")
Points = dict[float, float]


def curve_pictures(groups: Sequence[Group]) -> dict[str, bytes]:
    """A PNG file's content for each score that a run has, by the score's name."""
    from matplotlib.figure import Figure

    pictures = {}
    for score in _SCORES:
        figure = Figure(figsize=(9, 4.5), layout="constrained")
        axes = figure.subplots()
        for index, group in enumerate(groups):
            _draw_group(axes, score, group.name, group.runs, f"C{index % 10}")
        if axes.lines:
            axes.set_xlabel("epoch")
            axes.set_ylabel(score.replace("_", " "))
            show_legend(axes)
            buffer = io.BytesIO()
            figure.savefig(buffer, format="png", dpi=120)
            pictures[score] = buffer.getvalue()
    return pictures


def show_legend(axes: Any) -> None:
    """A small legend beside the plot, whose texts are taken as they are."""
    place = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0}
    legend = axes.legend(fontsize="small", **place)
    for text in legend.get_texts():
        words = text.get_text()
        # A dollar sign in a folder's name is no formula.
        text.set_parse_math(False)
        if not has_font(words):
            text.set_text(words.encode("ascii", "backslashreplace").decode("ascii"))
        elif not words.isascii() and font_file(words) is not None:
            from matplotlib.font_manager import FontProperties

            text.set_fontproperties(
                FontProperties(fname=font_file(words), size="small")
            )


def _draw_group(
    axes: Any, score: str, label: str, runs: Sequence[Run], color: str
) -> None:
    curves: dict[str, list[Points]] = {}
    for run in runs:
        names = dict.fromkeys(
            name
            for record in run.eval
            for name in record
            if name.rpartition("/")[2] == score
        )
        for name in names:
            points = {
                record["epoch"]: record[name] for record in run.eval if name in record
            }
            axes.plot(*_sorted(points), color=color, linewidth=0.7, alpha=0.5)
            curves.setdefault(name, []).append(points)
    for name, found in curves.items():
        layer = name.rpartition("/")[0]
        title = f"{label} ({layer})" if layer else label
        axes.plot(*_sorted(_mean(found)), color=color, linewidth=2, label=title)


def _sorted(points: Points) -> tuple[list[float], list[float]]:
    epochs = sorted(points)
    return epochs, [points[epoch] for epoch in epochs]


def _mean(curves: Sequence[Points]) -> Points:
    """Means at the epochs that all curves have."""
    common = set(curves[0]).intersection(*curves[1:])
    return {
        epoch: float(np.mean([curve[epoch] for curve in curves])) for epoch in common
    }
