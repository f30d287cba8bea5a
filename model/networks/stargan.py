"""The networks of StarGAN (Choi et al., CVPR 2018), at any resolution."""

import itertools
import math

import torch
from torch import Tensor, nn
from torch.nn import functional


def normalised(convolution: nn.Module, channels: int) -> list[nn.Module]:
    """A convolution without bias, instance norm over its `channels` outputs, ReLU.

    The norm takes its statistics from the picture at hand always: the published code gathers
    running ones too, and its own test never uses them.
    """
    return [convolution, nn.InstanceNorm2d(channels, affine=True), nn.ReLU()]


def contracting(inputs: int, width: int) -> nn.Sequential:
    """7x7, then two 4x4 of stride 2: (N, inputs, R, R) -> (N, 4 width, R/4, R/4).

    Zeros are the padding: the authors report that labels spread over the picture have no effect
    with reflected pixels, since instance norm takes away what is the same everywhere.
    """
    layers = normalised(nn.Conv2d(inputs, width, 7, padding=3, bias=False), width)
    for outputs in (2 * width, 4 * width):
        down = nn.Conv2d(outputs // 2, outputs, 4, stride=2, padding=1, bias=False)
        layers += normalised(down, outputs)
    return nn.Sequential(*layers)


def expanding(width: int) -> nn.Sequential:
    """Two transposed 4x4 of stride 2, then 7x7, tanh: (N, 4 width, H, W) -> (N, 3, 4 H, 4 W)."""
    layers: list[nn.Module] = []
    for outputs in (2 * width, width):
        up = nn.ConvTranspose2d(2 * outputs, outputs, 4, stride=2, padding=1, bias=False)
        layers += normalised(up, outputs)
    return nn.Sequential(*layers, nn.Conv2d(width, 3, 7, padding=3, bias=False), nn.Tanh())


class ResidualBlock(nn.Module):
    """x + IN(conv(ReLU(IN(conv(x))))); nothing after the sum. The shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            *normalised(nn.Conv2d(channels, channels, 3, padding=1, bias=False), channels),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)


class StarganGenerator(nn.Module):
    """G: image (N, 3, R, R) in [-1, 1], one-hot label (N, anchors) -> image of the same shape.

    Published sizes: width 64, six residual blocks. R is a multiple of 4.
    """

    def __init__(self, anchors: int, width: int = 64, residuals: int = 6) -> None:
        super().__init__()
        self.contracting = contracting(3 + anchors, width)
        self.residuals = nn.Sequential(*(ResidualBlock(4 * width) for _ in range(residuals)))
        self.expanding = expanding(width)

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        everywhere = label[:, :, None, None].expand(-1, -1, *image.shape[2:])
        x = self.contracting(torch.cat([image, everywhere.to(image.dtype)], dim=1))
        return self.expanding(self.residuals(x))


class StarganDiscriminator(nn.Module):
    """D: image (N, 3, R, R) -> criticism (N, 1, 2, 2) of its patches, class logits (N, classes).

    4x4 convolutions of stride 2 down to 2x2, so R is a power of two, 8 or more: six at the
    published 128 px, whose 64 to 2048 channels are width * 2^i; that last number is not exceeded.
    """

    def __init__(self, resolution: int, classes: int, width: int = 64) -> None:
        super().__init__()
        levels = int(math.log2(resolution)) - 1
        if resolution != 2 ** (levels + 1) or levels < 2:
            raise ValueError(f"resolution {resolution} is not a power of two of at least 8")
        channels = [3] + [min(width * 2**level, 32 * width) for level in range(levels)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
            for inputs, outputs in itertools.pairwise(channels)
        )
        self.critic = nn.Conv2d(channels[-1], 1, 3, padding=1, bias=False)
        self.classifier = nn.Conv2d(channels[-1], classes, 2, bias=False)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x = image
        for convolution in self.convolutions:
            x = functional.leaky_relu(convolution(x), 0.01)
        return self.critic(x), self.classifier(x).flatten(1)
