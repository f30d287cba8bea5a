"""Random numbers of a training step: the same for its batch however the batch is divided."""

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Draws for one part of a step's batch: samples `part`, `part + parts`, ... of `batch`.

    Every number is drawn for the whole batch, from the run's seed and the step's number alone, and
    the part's share of it is returned. So processes and accumulated parts draw what one pass over
    the whole batch would, and a run that goes on needs no state of a generator. `generator`, on the
    device, is seeded anew and used where one is given: a recorded step knows but the one it saw.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        batch: int,
        device: torch.device | str = "cpu",
        part: int = 0,
        parts: int = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        if batch % parts:
            raise ValueError(f"a batch of {batch} does not divide into {parts} parts")
        self._seeds = np.random.SeedSequence((seed, step))
        (state,) = self._seeds.generate_state(1, np.uint64)
        generator = generator or torch.Generator(device)
        self._generator, self._device = generator.manual_seed(int(state) >> 1), generator.device
        self._batch, self._rows = batch, slice(part, None, parts)

    def uniform(self, *shape: int) -> Tensor:
        """Numbers in [0, 1), shape (part's samples, *shape)."""
        return torch.rand(self._batch, *shape, generator=self._generator, device=self._device)[
            self._rows
        ]

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, shape (part's samples, *shape)."""
        return torch.randn(self._batch, *shape, generator=self._generator, device=self._device)[
            self._rows
        ]

    def integers(self, bound: int, *shape: int) -> Tensor:
        """Whole numbers in [0, bound), shape (part's samples, *shape)."""
        return torch.randint(
            bound, (self._batch, *shape), generator=self._generator, device=self._device
        )[self._rows]

    def coin(self, probability: float) -> bool:
        """True with a probability: the step's one toss, for the whole batch, on the CPU."""
        return bool(np.random.default_rng(self._seeds).random() < probability)
