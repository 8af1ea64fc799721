"""A trained network from its work directory, without its data set."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from train.config.run import FitConfig
from train.errors import UserError
from train.learning.devices import JitParallel
from train.learning.experiment import Experiment, make_experiment
from train.printing import say
from train.run import layout
from train.run.checkpoints.reading import DamagedError
from train.run.checkpoints.store import Checkpoints
from train.run.workdir import load_config, load_inputs


@dataclass(frozen=True)
class Trained:
    """A restored network.

    Attributes:
      experiment: rebuilt from the run's config.
      variables: the placed variables to judge (the moving average where there is one).
      step: placed, of the checkpoint.
    """

    experiment: Experiment
    variables: Any
    step: Any

    @property
    def config(self) -> FitConfig:
        """The run's config."""
        return self.experiment.config


def _chosen_step(checkpoints: Checkpoints, name: str, validation: float) -> int | None:
    """The step of a named checkpoint; None for the latest that can be read."""
    if name == "latest":
        return None
    if name == "best":
        if validation == 0:
            raise UserError(
                "No checkpoint is best, for this run held no images out to choose by;"
                " use --checkpoint latest, or train with --data.validation 0.1."
            )
        best = checkpoints.best_step()
        if best is None:
            raise UserError(
                f"No checkpoint in {checkpoints.directory} has been scored yet; use"
                " --checkpoint latest."
            )
        return best
    steps = checkpoints.steps()
    if not name.isdigit() or int(name) not in steps:
        raise UserError(
            f"--checkpoint must be latest, best, or one of the steps {steps}; got"
            f" {name!r}."
        )
    return int(name)


def _no_checkpoint(workdir: Path) -> UserError:
    return UserError(
        f"{workdir} has no checkpoint yet. Train first: python -m train fit --workdir"
        f" {workdir}"
    )


def restore_trained(workdir: Path, checkpoint: str, parallel: JitParallel) -> Trained:
    """Restores a network from the work directory of its run.

    Args:
      workdir: the run's.
      checkpoint: "latest", "best", or the number of a step.
      parallel: the devices to put it on.

    Raises:
      UserError: if there is no run, no checkpoint, or none that can be read.
    """
    config, inputs = load_config(workdir), load_inputs(workdir)
    if not (workdir / layout.CHECKPOINTS).is_dir():
        raise _no_checkpoint(workdir)
    experiment = make_experiment(config, inputs, parallel)
    checkpoints = Checkpoints(workdir, config.checkpoint, read_only=True)
    try:
        like = _judged_parts(experiment)
        step = _chosen_step(checkpoints, checkpoint, config.data.validation)
        if step is None:
            found = checkpoints.restore_latest(like, say, parts=set(like))
            if found is None:
                raise _no_checkpoint(workdir)
            parts = found[1]
        else:
            parts = _restore_exactly(checkpoints, step, like)
    finally:
        checkpoints.close()
    parts = parallel.place(parts)
    number = parts.pop("step")
    return Trained(experiment, parts.get("average", parts), number)


def _judged_parts(experiment: Experiment) -> dict[str, Any]:
    """The parts of a state that a judgement needs, as shapes: no optimiser, no key."""
    variables = experiment.variables_shape()
    step = jax.ShapeDtypeStruct((), "int32")
    if experiment.config.optimizer.ema_decay is not None:
        return {"average": variables, "step": step}
    return {**variables, "step": step}


def _restore_exactly(checkpoints: Checkpoints, step: int, like: Any) -> Any:
    try:
        return checkpoints.restore(step, like, parts=set(like))[0]
    except DamagedError as error:
        raise UserError(
            f"The checkpoint of step {step} is damaged ({error}); try --checkpoint"
            " latest."
        ) from error
