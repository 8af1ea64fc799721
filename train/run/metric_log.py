"""Metrics on disk: one JSON line per record, and TensorBoard files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.errors import CannotWriteError
from train.files import json_line, write_whole
from train.run import layout


def read_records(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics file; lines that a crash cut short are left out."""
    if not path.exists():
        return []
    records = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        if isinstance(record, dict) and {"kind", "step"} <= record.keys():
            records.append(record)
    return records


def forget_after(path: Path, step: int) -> None:
    """Drops the records of later steps, which a resumed run will write again."""
    if not path.exists():
        return
    kept = [record for record in read_records(path) if record["step"] <= step]
    write_whole(path, "".join(map(json_line, kept)).encode())


class Records:
    """Writes records of one run.

    A record has "kind" ("train", "eval" or "validation", for held-out training
    images), "step", "epoch", "seconds" (of training, over all starts) and metrics.
    """

    def __init__(self, workdir: Path, start_step: int, *, tensorboard: bool):
        """Opens the files; what was recorded after `start_step` is forgotten."""
        path = workdir / layout.METRICS
        forget_after(path, start_step)
        self._file = path.open("a", buffering=1)
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(
                str(workdir / layout.TENSORBOARD),
                purge_step=start_step + 1,
                flush_secs=20,
            )

    def write(
        self, kind: str, step: int, metrics: Mapping[str, float], **about: float
    ) -> None:
        """Appends one record.

        Raises:
          CannotWriteError: on a full disk.
        """
        record = {"kind": kind, "step": step, **about, **metrics}
        try:
            self._file.write(json_line(record))
            if self._board is not None:
                for name, value in metrics.items():
                    self._board.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise CannotWriteError(
                f"The metrics of step {step} could not be written"
                f" ({error.strerror or error}); the checkpoints are whole. Make room"
                " on the disk and start the same command again."
            ) from error

    def picture(self, step: int, picture: Any) -> None:
        """Shows a uint8 `[H, W, 3]` picture on TensorBoard."""
        if self._board is not None:
            self._board.add_image("looking", picture, step, dataformats="HWC")

    def close(self) -> None:
        """Flushes and closes."""
        self._file.close()
        if self._board is not None:
            self._board.close()
