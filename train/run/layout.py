"""Every name in a work directory, and every name of a command's results."""

from __future__ import annotations

import itertools

# What `fit` writes: the record of a run ...
CONFIG = "config.json"
INPUTS = "inputs.json"
METRICS = "metrics.jsonl"
RESULT = "result.json"
# ... its checkpoints ...
CHECKPOINTS = "checkpoints"
BROKEN_CHECKPOINTS = "checkpoints-broken"
CHECKPOINT_SCORES = "checkpoints-scores.json"
FIRST_CHECKPOINT = "checkpoints-first.json"
# ... and what a person looks at.
TENSORBOARD = "tensorboard"
PICTURES = "pictures"
FILM = "looking.gif"
PROFILE = "profile"

# Where one of these is, a run was.
OF_A_RUN = (
    CHECKPOINTS,
    BROKEN_CHECKPOINTS,
    CHECKPOINT_SCORES,
    FIRST_CHECKPOINT,
    INPUTS,
    METRICS,
    RESULT,
    TENSORBOARD,
    PICTURES,
    FILM,
    PROFILE,
)

# The file whose lock says that a start uses the directory.
LOCK = "in-use.json"

# What `evaluate` writes into the work directory.
EVALUATION = "evaluation.json"
EQUIVARIANCE_PICTURE = "equivariance.png"

# What `predict` writes: a folder in the work directory, and the files in it.
PREDICTIONS_FOLDER = "predictions"
PREDICTIONS = "predictions.json"
PREDICTION_ENDING = "-rectangle.png"

# What `report` writes beside its curves.
REPORT = "report.md"

# What `budget` writes beside its runs.
BUDGET = "budget.json"
BUDGET_PICTURE = "budget.png"

# What `data` writes.
DATA_REPORT = "data.json"
DATA_PICTURES = ("batch.png", "evaluation.png")

# What `export` writes: a folder in the work directory, and the files in it.
EXPORT_FOLDER = "export"
EXPORTED_PROGRAM = "network.stablehlo"
EXPORTED_FACTS = "network.json"
EXPORTED_WEIGHTS = "network.safetensors"

# Which files of a directory were written by which command; hidden.
NOTES = ".cram-jax-outputs.jsonl"


def step_picture(step: int) -> str:
    """The name, without its ending, of the picture of a step."""
    return f"step_{step:08d}"


STEP_PICTURES = "step_[0-9]*.png"


def step_of_picture(name: str) -> int:
    """The step in the file name of a step's picture, `step_00000123-2.png` too."""
    return int("".join(itertools.takewhile(str.isdigit, name.removeprefix("step_"))))
