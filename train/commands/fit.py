"""The subcommand `fit`."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from train.commands.models import network_table
from train.config.differences import extended
from train.config.places import folder_of, moved_from, with_absolute_places
from train.config.run import FitConfig
from train.data.loaders import Feed
from train.learning.devices import check_batch, make_parallel
from train.learning.experiment import make_experiment
from train.learning.losses.terms import Term
from train.learning.network import check_freeze_norm, parameter_paths
from train.learning.optimizer import check_patterns
from train.learning.processes import start_hosts
from train.run.claim import (
    check_config,
    check_inputs,
    claimed,
    earlier_start,
    note_config,
)
from train.run.interrupts import Interrupts
from train.run.loop import Loop
from train.run.progress import Display
from train.tasks.registry import make_task


def fit(config: FitConfig, *, terms: Sequence[Term] = ()) -> int:
    """Trains, or goes on training; returns the exit code (see `train.errors`).

    Args:
      config: what was typed.
      terms: losses beside those of the task and of the config.

    Raises:
      UserError: and its kinds, each with one sentence.
    """
    start_hosts(config.hosts)
    writes = jax.process_index() == 0
    config = with_absolute_places(config)
    with Interrupts() as interrupts:
        parallel, parts = make_parallel(config.parallel), config.optimizer.accumulate
        check_batch(config.batch_size, parallel.device_count, parts)
        check_config(config)
        before = earlier_start(config.workdir)
        config = extended(before.config, config) if before else config
        feed = Feed(config, make_task(config), before and before.inputs)
        check_inputs(config, feed.inputs)
        experiment = make_experiment(config, feed.inputs, parallel, terms=terms)
        if before is None:  # an older run may go on
            paths = parameter_paths(experiment.model, feed.inputs.image_shape)
            check_patterns(config.optimizer, paths)
            check_freeze_norm(config)
        display = Display(
            experiment.total_steps, quiet=config.output.quiet or not writes
        )
        model, shape = experiment.model, feed.inputs.image_shape
        with claimed(config, feed.inputs):
            display.console.print(network_table(model, shape))
            loop = Loop(experiment, feed, display)
            if before is not None and writes:
                _report_move(before.config, config, display)
                _report_extension(before.config, config, display)
                note_config(config)
            return loop.run(interrupts)


def _report_move(before: FitConfig, now: FitConfig, display: Display) -> None:
    if moved := moved_from(before, now):
        display.warning(
            f"The images were in {moved} before; the classes and the number of training"
            " images are the same, so the run goes on with those in"
            f" {folder_of(now.data.name)}."
        )


def _report_extension(before: FitConfig, now: FitConfig, display: Display) -> None:
    if now.epochs > before.epochs:
        display.warning(
            f"The run was to have {before.epochs:g} epochs, and now goes on to"
            f" {now.epochs:g}: from there the learning rate begins its course anew"
            f" ({now.optimizer.schedule}), while sharpness and the weights of losses"
            f" stay as they ended. The checkpoint of epoch {before.epochs:g} is kept."
        )
