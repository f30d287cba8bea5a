"""The networks of CycleGAN (Zhu et al., ICCV 2017): a residual translator and a patch judge."""

import itertools

from torch import Tensor, nn


def _draw(module: nn.Module) -> None:
    """Weights N(0, 0.02), biases 0, as published."""
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _convolution(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    """A convolution that keeps the size, over reflected borders."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, padding_mode="reflect")


def _normalised(convolution: nn.Module, channels: int) -> list[nn.Module]:
    return [convolution, nn.InstanceNorm2d(channels), nn.ReLU(inplace=True)]


class ResidualBlock(nn.Module):
    """x + norm(conv(ReLU(norm(conv(x))))), 3x3; nothing after the sum. The shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            *_normalised(_convolution(channels, channels, 3), channels),
            _convolution(channels, channels, 3),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class CycleganGenerator(nn.Module):
    """A translator: image (N, 3, R, R) in [-1, 1] -> image; R a multiple of 4, 16 or more.

    Published sizes: width 64, nine residual blocks at 256 px and six at 128 px. Instance
    normalisation has no weights and takes each picture's own statistics, in training and after.
    """

    def __init__(self, width: int = 64, blocks: int = 9) -> None:
        super().__init__()
        channels = (width, 2 * width, 4 * width)
        layers = _normalised(_convolution(3, width, 7), width)
        for inputs, outputs in itertools.pairwise(channels):
            layers += _normalised(nn.Conv2d(inputs, outputs, 3, 2, 1), outputs)
        layers += [ResidualBlock(4 * width) for _ in range(blocks)]
        for inputs, outputs in itertools.pairwise(channels[::-1]):
            up = nn.ConvTranspose2d(inputs, outputs, 3, 2, 1, output_padding=1)
            layers += _normalised(up, outputs)
        self.layers = nn.Sequential(*layers, _convolution(width, 3, 7), nn.Tanh())
        self.apply(_draw)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)


class PatchDiscriminator(nn.Module):
    """Image (N, 3, R, R) in [-1, 1] -> scores (N, 1, S, S) of overlapping patches (Isola et al.).

    `layers` convolutions of stride 2, then two of stride 1: three layers, as published, see 70x70
    pixels and give S = R / 8 - 2; two see 34x34, one 16x16.
    """

    def __init__(self, width: int = 64, layers: int = 3) -> None:
        super().__init__()
        channels = [width * min(2**layer, 8) for layer in range(layers + 1)]
        stages: list[nn.Module] = [nn.Conv2d(3, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)]
        for layer, (inputs, outputs) in enumerate(itertools.pairwise(channels), 1):
            stride = 2 if layer < layers else 1
            stages += [
                nn.Conv2d(inputs, outputs, 4, stride, 1),
                nn.InstanceNorm2d(outputs),
                nn.LeakyReLU(0.2, inplace=True),
            ]
        self.layers = nn.Sequential(*stages, nn.Conv2d(channels[-1], 1, 4, 1, 1))
        self.apply(_draw)

    def forward(self, image: Tensor) -> Tensor:
        return self.layers(image)
