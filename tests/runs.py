"""Training runs in processes of their own."""

from pathlib import Path
from typing import Any

from training.config import config_of
from training.data import open_prepared
from training.loop import fit
from training.run import Run


def train(settings: dict[str, Any], data: Path, folder: Path) -> None:
    """Trains in this process; in a module that imports little, so that it starts soon."""
    fit(Run(config_of(settings), open_prepared(data), folder, "cpu"))
