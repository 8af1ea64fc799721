"""What a failure to write a checkpoint is called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from train.errors import CannotWriteError, UserError, cause_of


@contextlib.contextmanager
def one_sentence(step: int) -> Iterator[None]:
    """Turns any failure to write into one sentence."""
    try:
        yield
    except (KeyboardInterrupt, UserError):
        raise
    except Exception as error:
        raise CannotWriteError(
            f"The checkpoint of step {step} could not be written ({cause_of(error)});"
            " earlier checkpoints are whole. Make room on the disk and start the same"
            " command again."
        ) from error
