"""The subcommand `fit`."""

from __future__ import annotations

import jax

from train.config import FitConfig
from train.describe import network_table
from train.experiment import make_experiment
from train.feed import Feed
from train.hosts import start_hosts
from train.interrupts import Interrupts
from train.loop import Loop
from train.models import parameter_paths
from train.optimizer import check_patterns
from train.parallel import check_batch, make_parallel
from train.pretrained import check_freeze_norm
from train.progress import Display
from train.workdir import CONFIG_FILE, claim


def fit(config: FitConfig) -> int:
    """Trains, or goes on training; returns the exit code (see `train.errors`).

    Raises:
      UserError: and its kinds, each with one sentence.
    """
    start_hosts(config.hosts)
    writes = jax.process_index() == 0
    with Interrupts() as interrupts:
        parallel, parts = make_parallel(config.parallel), config.optimizer.accumulate
        check_batch(config.batch_size, parallel.device_count, parts)
        feed = Feed(config)
        experiment = make_experiment(config, feed.inputs, parallel)
        if not (config.workdir / CONFIG_FILE).exists():  # an older run may go on
            paths = parameter_paths(experiment.task.model, feed.inputs.image_shape)
            check_patterns(config.optimizer, paths)
            check_freeze_norm(config)
        claim(config, feed.inputs, write=writes)
        display = Display(
            experiment.total_steps, quiet=config.output.quiet or not writes
        )
        model, shape = experiment.task.model, feed.inputs.image_shape
        display.console.print(network_table(model, shape))
        return Loop(experiment, feed, display).run(interrupts)
