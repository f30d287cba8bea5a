"""The networks of the first GAN (Goodfellow et al. 2014): perceptrons between noise and portraits.

Sizes are those of its code for MNIST: two rectified layers of 1200 for G; for D two maxout layers
(Goodfellow et al. 2013) of 240 units with 5 pieces each, with dropout.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class NoiseGenerator(nn.Module):
    """G: noise (N, noise) -> image (N, 3, R, R) in [-1, 1]; the publication's sigmoid, rescaled."""

    def __init__(self, resolution: int, hidden: int = 1200, noise: int = 100) -> None:
        super().__init__()
        self.shape = (3, resolution, resolution)
        self.noise = noise
        self.layers = nn.Sequential(
            nn.Linear(noise, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, 3 * resolution**2),
        )

    def forward(self, noise: Tensor) -> Tensor:
        return (2 * torch.sigmoid(self.layers(noise)) - 1).unflatten(1, self.shape)


class MaxoutDiscriminator(nn.Module):
    """D: image (N, 3, R, R) in [-1, 1] -> logits (N,).

    `masks` are dropout's, one factor for each input of a layer: (N, inputs), (N, units),
    (N, units); None leaves everything as it is. They are given, not drawn, so that whoever trains
    knows where they come from.
    """

    def __init__(self, resolution: int, units: int = 240, pieces: int = 5) -> None:
        super().__init__()
        inputs = 3 * resolution**2
        self.pieces = pieces
        self.sizes = (inputs, units, units)
        self.first = nn.Linear(inputs, units * pieces)
        self.second = nn.Linear(units, units * pieces)
        self.last = nn.Linear(units, 1)

    def forward(self, image: Tensor, masks: Sequence[Tensor] | None = None) -> Tensor:
        x = image.flatten(1)
        for place, layer in enumerate((self.first, self.second, self.last)):
            if masks is not None:
                x = x * masks[place]
            x = layer(x)
            if layer is not self.last:
                x = x.unflatten(1, (-1, self.pieces)).amax(2)
        return x.squeeze(1)
