"""The tasks by name: a new task is one file beside this one, and one line here."""

from __future__ import annotations

from collections.abc import Callable

from train.config.run import FitConfig
from train.errors import choose
from train.tasks.classification import Classification
from train.tasks.detection import Detection
from train.tasks.segmentation import Segmentation
from train.tasks.task import Task

TASKS: dict[str, Callable[[FitConfig], Task]] = {
    Classification.name: Classification.of,
    Segmentation.name: Segmentation.of,
    Detection.name: Detection.of,
}


def make_task(config: FitConfig) -> Task:
    """The task that a config names.

    Raises:
      UserError: for an unknown name, with the nearest and all names.
    """
    return TASKS[choose("task", config.task.name, TASKS)](config)
