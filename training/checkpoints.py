"""Checkpoints: one file with everything a run needs to go on, replaced whole or not at all."""

import os
import shutil
from pathlib import Path
from typing import Any

import torch

CHECKPOINT = "checkpoint.pt"
GOOD = "good.pt"
"""The last checkpoint of a healthy run."""
BEST = "best.pt"
"""The checkpoint with the highest selection score."""


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Writes `state` beside the old file, forces it to disk, and puts it in its place."""
    partial = folder / f"{CHECKPOINT}.partial"
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / CHECKPOINT)


def keep_checkpoint(folder: Path, name: str) -> None:
    """Keeps the present checkpoint under a name; the same bytes on disk, where it can link."""
    partial = folder / f"{name}.partial"
    partial.unlink(missing_ok=True)
    try:
        partial.hardlink_to(folder / CHECKPOINT)
    except OSError:
        shutil.copyfile(folder / CHECKPOINT, partial)
    partial.replace(folder / name)


def load_checkpoint(folder: Path, name: str = CHECKPOINT) -> dict[str, Any] | None:
    """The run's checkpoint on the CPU, or None where there is none yet."""
    path = folder / name
    if not path.exists():
        return None
    return torch.load(path, map_location="cpu", weights_only=True)
