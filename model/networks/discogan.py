"""The networks of DiscoGAN (Kim et al., ICML 2017), at any resolution."""

import itertools
import math

import torch
from torch import Tensor, nn


def _channels(resolution: int, width: int) -> list[int]:
    """Channels after each stage of stride 2, down to 4x4: doubled up to eight times the width."""
    stages = int(math.log2(resolution)) - 2
    if resolution != 4 * 2**stages or stages < 2:
        raise ValueError(f"resolution {resolution} is not a power of two of at least 16")
    return [width * min(2**stage, 8) for stage in range(stages)]


def _down(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)


class DiscoganGenerator(nn.Module):
    """A translator: image (N, 3, R, R) in [-1, 1] -> image; R a power of two, 16 or more.

    Published at 64 px, where four stages lead to 4x4; here larger and smaller pictures take more
    and fewer. `bottleneck` is the number of channels that a valid 4x4 convolution leaves of them,
    100 in the published variant with extra layers; 0 is the variant without. The published sigmoid
    gives [0, 1]; here it is spread over [-1, 1].

    Batch normalisation takes the batch's statistics in training, and its running ones after.
    """

    def __init__(self, resolution: int = 64, width: int = 64, bottleneck: int = 100) -> None:
        super().__init__()
        channels = _channels(resolution, width)
        layers: list[nn.Module] = [_down(3, width), nn.LeakyReLU(0.2, inplace=True)]

        def add(convolution: nn.Module, outputs: int, activation: nn.Module) -> None:
            layers.extend([convolution, nn.BatchNorm2d(outputs), activation])

        for inputs, outputs in itertools.pairwise(channels):
            add(_down(inputs, outputs), outputs, nn.LeakyReLU(0.2, inplace=True))
        if bottleneck:
            deepest = channels[-1]
            narrow = nn.Conv2d(deepest, bottleneck, 4, bias=False)
            add(narrow, bottleneck, nn.LeakyReLU(0.2, inplace=True))
            wide = nn.ConvTranspose2d(bottleneck, deepest, 4, bias=False)
            add(wide, deepest, nn.ReLU(inplace=True))
        for inputs, outputs in itertools.pairwise(channels[::-1]):
            up = nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False)
            add(up, outputs, nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False))

    def forward(self, image: Tensor) -> Tensor:
        return 2.0 * torch.sigmoid(self.layers(image)) - 1.0


class DiscoganDiscriminator(nn.Module):
    """Image (N, 3, R, R) in [-1, 1] -> logit (N,) and features of every stage but the first.

    The published one ends in a sigmoid, which belongs to the loss here. It always judges by its
    batch's own statistics, so it keeps no running ones.
    """

    def __init__(self, resolution: int = 64, width: int = 64) -> None:
        super().__init__()
        channels = _channels(resolution, width)
        self.first = nn.Sequential(_down(3, width), nn.LeakyReLU(0.2, inplace=True))
        self.stages = nn.ModuleList(
            nn.Sequential(
                _down(inputs, outputs),
                nn.BatchNorm2d(outputs, track_running_stats=False),
                nn.LeakyReLU(0.2, inplace=True),
            )
            for inputs, outputs in itertools.pairwise(channels)
        )
        self.last = nn.Conv2d(channels[-1], 1, 4, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        x, features = self.first(image), []
        for stage in self.stages:
            x = stage(x)
            features.append(x)
        return self.last(x).flatten(), features
