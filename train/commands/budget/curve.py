"""The subcommand `budget`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
from rich.console import Console
from rich.table import Table

from train.commands.budget.options import CurveConfig
from train.commands.budget.picture import curve_picture
from train.commands.budget.rule import (
    FEWEST_IMAGES,
    Choice,
    Point,
    choose_area,
    rule_sentences,
)
from train.commands.budget.runs import (
    PlannedRun,
    as_points,
    measured,
    planned_runs,
    train_all,
)
from train.commands.intervals import share_interval
from train.config.run import FitConfig
from train.data.loaders import Feed
from train.errors import DONE, UserError
from train.learning.devices import make_parallel
from train.learning.experiment import make_experiment
from train.learning.processes import start_hosts
from train.printing import printable, say
from train.run import layout
from train.run.outputs import Outputs
from train.tasks.registry import make_task


def draw_budget(options: CurveConfig) -> int:
    """Trains what is missing, writes the curve, prints what the rule chooses.

    Returns:
      The exit code; that of `fit` where a run was stopped.

    Raises:
      UserError: if there are no, or too few, held-out images; where a file of the
        user's would have to be written over; and where `fit` does.
    """
    start_hosts(options.hosts)
    if jax.process_count() > 1:
        raise UserError("budget runs in one process; leave the options of hosts out.")
    runs = planned_runs(options)
    outputs = Outputs(options.workdir, "budget", [options.workdir])
    outputs.check(layout.BUDGET, layout.BUDGET_PICTURE)
    feed = _feed_with_held_out(runs[1].config)
    images = len(feed.validation_source or ())
    # A layer without a mask, or a network that cannot be made, is refused at once.
    first = runs[1].config
    make_experiment(first, feed.inputs, make_parallel(first.parallel))
    if (code := train_all(runs, feed.inputs)) != DONE:
        return code
    return _conclude(options, runs, images, outputs)


def _conclude(
    options: CurveConfig, runs: Sequence[PlannedRun], images: int, outputs: Outputs
) -> int:
    records, bare = measured(runs)
    points = as_points(records)
    choice = choose_area(points, bare, images, options.within)
    sentences = list(rule_sentences(choice, points, bare, images))
    picture = curve_picture(points, bare, images, choice.target)
    outputs.write(layout.BUDGET_PICTURE, picture)
    record = {
        "held_out_images": images,
        "bare_accuracy": bare,
        "within": options.within,
        "allowed_loss": choice.allowed,
        "chosen_area": choice.target,
        "points": records,
        "notes": sentences,
    }
    path = outputs.write_json(layout.BUDGET, record)
    if not options.output.quiet:
        Console().print(_table(points, bare, images, choice))
    if choice.target is not None:
        run = f"area-{choice.target:g}-seed{options.seed}"
        place = printable(options.workdir / run)
        target = f"--budget.area {choice.target:g}"
        sentences.append(f"Chosen: {target} (trained already: {place}).")
    drawn = layout.BUDGET_PICTURE
    say("\n".join([*sentences, f"Written: {printable(path)} and {drawn}."]))
    return DONE


def _feed_with_held_out(config: FitConfig) -> Feed:
    """The images of all runs.

    Raises:
      UserError: if too few of them are held out to choose by.
    """
    if config.data.validation == 0:
        raise UserError(
            "The budget is chosen on held-out training images, and none are held out;"
            " give --data.validation 0.1 or more."
        )
    feed = Feed(config, make_task(config))
    count = len(feed.validation_source or ())
    if count < FEWEST_IMAGES:
        raise UserError(
            f"Too few training images are held out to choose a budget by: {count}, of"
            f" which one is worth {100 / max(count, 1):.1f} points of accuracy. Hold"
            f" out {FEWEST_IMAGES} or more: a larger --data.validation (it is"
            f" {config.data.validation:g})."
        )
    return feed


def _table(points: Sequence[Point], bare: float, images: int, choice: Choice) -> Table:
    """One row for the bare network, then one for each area."""
    table = Table(title=f"Accuracy on {images} held-out training images")
    for head in ("budget.area", "mask area", "accuracy", "95% interval", "lost", ""):
        table.add_column(head, justify="left" if not head else "right")

    def row(name: str, area: str, share: float, mark: str) -> None:
        low, high = share_interval(share, images)
        interval = f"{low:.3f} to {high:.3f}"
        lost = "" if name == "bare" else f"{bare - share:+.3f}"
        table.add_row(name, area, f"{share:.4f}", interval, lost, mark)

    row("bare", "", bare, "")
    for point in points:
        mark = "chosen" if point.target == choice.target else ""
        row(f"{point.target:g}", f"{point.area:.3f}", point.accuracy, mark)
    return table
