"""The curve as a PNG: held-out accuracy against the masks' measured area."""

from __future__ import annotations

import io
from collections.abc import Sequence

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
    low, high = share_interval(bare, images)
    axes.axhline(bare, color="C1", label="bare network")
    axes.axhspan(low, high, color="C1", alpha=0.12, linewidth=0)
    areas = [point.area for point in points]
    shares = [point.accuracy for point in points]
    ends = [share_interval(share, images) for share in shares]
    errors = [
        [share - low for share, (low, _) in zip(shares, ends, strict=True)],
        [high - share for share, (_, high) in zip(shares, ends, strict=True)],
    ]
    label = f"with a budget (95% interval, {images} images)"
    axes.errorbar(areas, shares, errors, color="C0", marker="o", capsize=3, label=label)
    for point in points:
        axes.annotate(
            f"{point.target:g}",
            (point.area, point.accuracy),
            textcoords="offset points",
            xytext=(6, 6),
            fontsize="small",
        )
        if point.target == chosen:
            axes.plot(
                point.area,
                point.accuracy,
                linestyle="none",
                marker="o",
                markersize=15,
                fillstyle="none",
                color="C3",
                label=f"chosen: --budget.area {chosen:g}",
            )
    axes.set_xlim(0, 1)
    axes.set_xlabel("mean area of the masks, as a share of the map")
    axes.set_ylabel("accuracy on held-out training images")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="lower right")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    return buffer.getvalue()
