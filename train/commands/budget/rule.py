"""Which area to choose, from held-out accuracies alone; no box is looked at.

Ours. The rule: the smallest area whose accuracy on held-out training images stays
within one point of the bare network's, the same network without an attention layer.
Where one image is worth more than that, a loss of one image is allowed: fewer cannot
be told from none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

# Fewer held-out images are refused: one of 20 is worth 5 points.
FEWEST_IMAGES = 20
# Accuracies are means of a few hundred 0s and 1s: what differs by less is equal.
_EQUAL = 1e-9


class Point(NamedTuple):
    """What one budget gives on held-out images; means over seeds.

    Attributes:
      target: the area asked for, as a share of the map.
      area: the masks' measured mean area.
      accuracy: from 0 to 1.
    """

    target: float
    area: float
    accuracy: float


class Choice(NamedTuple):
    """What the rule says.

    Attributes:
      target: the area to ask for; None where no area passes.
      allowed: the loss of accuracy that counts as none.
      failing_wider: areas wider than the chosen one that lose more than that, which
        only chance explains.
    """

    target: float | None
    allowed: float
    failing_wider: tuple[float, ...] = ()


def allowed_loss(within: float, images: int) -> float:
    """The loss of accuracy that counts as none: `within`, or one image if it is more.

    Args:
      within: from 0 to 1; one point is 0.01.
      images: how many are held out.
    """
    return max(within, 1 / images)


def choose_area(
    points: Sequence[Point], bare: float, images: int, within: float = 0.01
) -> Choice:
    """The smallest area whose accuracy stays close to the bare network's.

    Args:
      points: one for each area, in any order.
      bare: accuracy of the bare network on the same images.
      images: how many are held out.
      within: see `allowed_loss`.
    """
    allowed = allowed_loss(within, images)
    passing = {p.target for p in points if bare - p.accuracy <= allowed + _EQUAL}
    if not passing:
        return Choice(None, allowed)
    target = min(passing)
    failing = sorted(
        p.target for p in points if p.target > target and p.target not in passing
    )
    return Choice(target, allowed, tuple(failing))


def rule_sentences(
    choice: Choice, points: Sequence[Point], bare: float, images: int
) -> Iterator[str]:
    """What was chosen and why, one sentence each, for the terminal."""
    worth, allowed = 100 / images, 100 * choice.allowed
    yield (
        "Rule: the smallest area whose accuracy on held-out training images stays"
        f" within {allowed:.1f} points of the bare network's."
    )
    if choice.allowed == 1 / images:
        yield (
            f"With {images} images held out one image is worth {worth:.1f} points, so"
            " smaller losses cannot be told from none; --data.validation holds out"
            " more."
        )
    if choice.target is None:
        widest = max(points)
        lost = 100 * (bare - widest.accuracy)
        yield (
            f"No area passes: the widest, {widest.target:g}, loses {lost:.1f} points."
            " Try wider --areas, more --epochs, or a larger --within."
        )
    if choice.failing_wider:
        wider = ", ".join(f"{target:g}" for target in choice.failing_wider)
        yield (
            f"Wider areas ({wider}) lose more than the chosen one, which only chance"
            " explains: more images held out, or --seeds 3, would tell."
        )
