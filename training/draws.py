"""Random numbers of a training step: the same for its batch however the batch is divided."""

import numpy as np
import torch
from torch import Tensor


class Draws:
    """Draws for one part of a step's batch: samples `part`, `part + parts`, ... of `batch`.

    Every number is drawn for the whole batch, from the run's seed and the step's number alone, and
    the part's share of it is returned. So processes and accumulated parts draw what one pass over
    the whole batch would, and a run that goes on needs no state of a generator.
    """

    def __init__(
        self,
        seed: int,
        step: int,
        batch: int,
        device: torch.device | str = "cpu",
        part: int = 0,
        parts: int = 1,
    ) -> None:
        if batch % parts:
            raise ValueError(f"a batch of {batch} does not divide into {parts} parts")
        seeds = np.random.SeedSequence((seed, step))
        (state,) = seeds.generate_state(1, np.uint64)
        self._coins = np.random.default_rng(seeds)
        generator = torch.Generator(device).manual_seed(int(state) >> 1)
        self._generator, self._device = generator, generator.device
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
        """True with a probability: one toss for the whole batch. Decided on the CPU."""
        return bool(self._coins.random() < probability)
