"""The curve as a PNG: held-out accuracy against the masks' measured area."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from train.commands.budget.rule import Point
from train.commands.intervals import share_interval


def curve_picture(
    points: Sequence[Point], bare: float, images: int, chosen: float | None
) -> bytes:
    """The content of a PNG file.

    Args:
      points: in order of their areas.
      bare: accuracy of the bare network, drawn as a line across.
      images: how many are held out; they decide the 95% intervals.
      chosen: the target of the point to mark; None: none.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    _draw_bare(axes, bare, images)
    _draw_curve(axes, points, images)
    for point in points:
        if point.target == chosen:
            _mark(axes, point)
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean area of the masks, as a share of the map")
    axes.set_ylabel("accuracy on held-out training images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()


def _draw_bare(axes: Any, bare: float, images: int) -> None:
    axes.axhline(bare, color="C1", label="bare network")
    axes.axhspan(*share_interval(bare, images), color="C1", alpha=0.12, linewidth=0)


def _draw_curve(axes: Any, points: Sequence[Point], images: int) -> None:
    areas = [point.area for point in points]
    shares = [point.accuracy for point in points]
    ends = [share_interval(share, images) for share in shares]
    # Rounding may put an end beyond the share itself, and a length is not negative.
    below = [max(s - low, 0.0) for s, (low, _) in zip(shares, ends, strict=True)]
    above = [max(high - s, 0.0) for s, (_, high) in zip(shares, ends, strict=True)]
    label = f"with a budget (95% interval, {images} images)"
    style = {"color": "C0", "marker": "o", "capsize": 3, "label": label}
    axes.errorbar(areas, shares, [below, above], **style)
    for point in points:
        axes.annotate(
            f"{point.target:g}",
            (point.area, point.accuracy),
            textcoords="offset points",
            xytext=(6, 6),
            fontsize="small",
        )


def _mark(axes: Any, point: Point) -> None:
    """A ring round the chosen point."""
    ring = {"marker": "o", "markersize": 15, "fillstyle": "none", "linestyle": "none"}
    label = f"chosen: --budget.area {point.target:g}"
    axes.plot(point.area, point.accuracy, color="C3", label=label, **ring)
