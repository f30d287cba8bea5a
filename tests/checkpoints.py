"""Checkpoints with the names and shapes of the published ones, and random numbers."""

import csv
from pathlib import Path

import torch

NAMES = Path(__file__).parent / "data" / "lats_state_dict.tsv"


def published_state() -> dict[str, torch.Tensor]:
    """Every tensor of a published generator."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    with NAMES.open(newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            shape = tuple(int(n) for n in row["shape"].strip("()").split(",") if n.strip())
            state[row["name"]] = torch.randn(shape, generator=generator)
    return state
