"""What the labels mean."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TaskConfig:
    """What the network learns to say about an image."""

    name: str = "classification"
    """Name of the task: classification (one class for each image)."""
