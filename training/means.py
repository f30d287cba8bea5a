"""Running means of scalars that stay on the device until somebody asks."""

from collections.abc import Mapping

import torch
from torch import Tensor

from training.processes import Processes

State = Mapping[str, tuple[float, int]]


class Means:
    """Sums of scalars by name in double precision, and how often each came.

    Reading a scalar waits for the accelerator; adding it does not.
    """

    def __init__(self, state: State | None = None) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        for name, (total, count) in (state or {}).items():
            self._sums[name] = torch.tensor(total, dtype=torch.float64)
            self._counts[name] = count

    def add(self, scalars: Mapping[str, Tensor]) -> None:
        for name, scalar in scalars.items():
            value = scalar.detach().double()
            before = self._sums.get(name)
            self._sums[name] = value if before is None else before.to(value.device) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def of(self, processes: Processes) -> dict[str, float]:
        """The means over all processes, which added the same names equally often."""
        return {name: total / count for name, (total, count) in self.state(processes).items()}

    def state(self, processes: Processes) -> dict[str, tuple[float, int]]:
        """What makes the same means elsewhere: sums, averaged over all processes, and counts."""
        sums = processes.averaged(self._sums)
        return {name: (total, self._counts[name]) for name, total in sums.items()}
