"""The conditional discriminator of Lifespan: one logit per class."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import EqualConv2d, blur, pooled_convolution


def minibatch_deviation(x: Tensor, group: int = 4) -> Tensor:
    """One channel with the mean standard deviation over groups of samples (Karras et al. 2018).

    (N, C, H, W) -> (N, 1, H, W). The largest divisor of N up to `group` is the group's size; a
    group of one gives 0.
    """
    count, _, height, width = x.shape
    size = next(size for size in range(min(group, count), 0, -1) if count % size == 0)
    y = x.float().unflatten(0, (size, count // size))
    deviation = torch.sqrt(y.var(dim=0, unbiased=False) + 1e-8).mean(dim=(1, 2, 3))
    return deviation.repeat(size)[:, None, None, None].expand(-1, 1, height, width).to(x.dtype)


class Discriminator(nn.Module):
    """D: image (N, 3, R, R) in [-1, 1] -> logits (N, classes); R a power of two, 8 or more.

    Published sizes: width 64, so 512 channels at 4x4. The published code ends in a LeakyReLU
    on the logits; that is left out, since it only flattens the loss for negative ones.

    With `coarse` images of half the side are judged too: they enter one level later, by a
    projection of their own (as a growing discriminator's, Karras et al. 2018), and share the rest.
    """

    def __init__(
        self, resolution: int, classes: int, width: int = 64, coarse: bool = False
    ) -> None:
        super().__init__()
        levels = int(math.log2(resolution)) - 2
        if resolution != 4 * 2**levels or levels < 1:
            raise ValueError(f"resolution {resolution} is not a power of two of at least 8")
        channels = [min(width * 2**level, 8 * width) for level in range(levels + 1)]
        self.from_rgb = EqualConv2d(3, width, 1)
        self.pairs = nn.ModuleList(
            nn.ModuleList(
                [
                    EqualConv2d(inputs, outputs, 3, padding=1),
                    EqualConv2d(outputs, outputs, 3, padding=1),
                ]
            )
            for inputs, outputs in itertools.pairwise(channels)
        )
        self.last = EqualConv2d(channels[-1] + 1, channels[-1], 3, padding=1)
        self.head = EqualConv2d(channels[-1], classes, 4)
        self.resolution = resolution
        self.from_coarse_rgb = EqualConv2d(3, channels[1], 1) if coarse else None

    def forward(self, image: Tensor) -> Tensor:
        project, pairs = self.from_rgb, self.pairs
        if self.from_coarse_rgb is not None and image.shape[-1] == self.resolution // 2:
            project, pairs = self.from_coarse_rgb, self.pairs[1:]
        x = functional.leaky_relu(project(image), 0.2)
        for first, second in pairs:  # pyright: ignore[reportGeneralTypeIssues]
            x = blur(functional.leaky_relu(first(x), 0.2))
            x = pooled_convolution(x, second.weight * second.scale, second.bias)
            x = functional.leaky_relu(x, 0.2)
        x = torch.cat([x, minibatch_deviation(x)], dim=1)
        x = functional.leaky_relu(self.last(x), 0.2)
        return self.head(x).flatten(1)
