"""The running average of a generator's weights: what is sampled, judged and exported."""

import copy

import torch
from torch import nn


class Averaged:
    """Exponential moving average over parameters, measured in images (Karras et al. 2022).

    Weights that are `half_life` images old count half. While fewer than `half_life / ramp` images
    were seen the half-life is `ramp` times their number, so the start is forgotten quickly.
    """

    def __init__(self, network: nn.Module, half_life: float, ramp: float = 0.05) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False)
        self.half_life = half_life
        self.ramp = ramp

    @torch.no_grad()
    def update(self, network: nn.Module, batch: int, images_seen: int) -> None:
        """Moves the average towards `network` after a step of `batch` images.

        Raises ValueError when the networks' parameters differ in name.
        """
        half_life = max(min(self.half_life, self.ramp * images_seen), 1e-8)
        decay = 0.5 ** (batch / half_life)
        mine, theirs = dict(self.network.named_parameters()), dict(network.named_parameters())
        if mine.keys() != theirs.keys():
            raise ValueError(f"averaged parameters differ: {sorted(mine.keys() ^ theirs.keys())}")
        torch._foreach_lerp_(  # pyright: ignore[reportPrivateImportUsage]
            list(mine.values()), list(theirs.values()), 1.0 - decay
        )
        for name, buffer in network.named_buffers():
            self.network.get_buffer(name).copy_(buffer)
