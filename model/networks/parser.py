"""The face parser: a small U-Net from a portrait to 19 CelebAMask-HQ classes."""

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.portraits.classes import CLASSES

WIDTHS = (24, 48, 96, 160)


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class Residual(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2016); the shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = _convolution(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.second(self.first(x)))


class FaceParser(nn.Module):
    """Image (N, 3, R, R) in [-1, 1] -> class logits (N, 19, R, R); R a multiple of 16.

    It works at half the size and below; the head is a pixel shuffle (Shi et al. 2016), so thin
    classes such as brows and lips keep the full resolution at the cost of a 1x1 convolution.
    """

    def __init__(self, widths: tuple[int, ...] = WIDTHS) -> None:
        super().__init__()
        self.stem = _convolution(3, widths[0], stride=2)
        self.levels = nn.ModuleList([Residual(widths[0])])
        self.downs = nn.ModuleList()
        for inputs, outputs in itertools.pairwise(widths):
            self.downs.append(_convolution(inputs, outputs, stride=2))
            deepest = outputs == widths[-1]
            self.levels.append(
                nn.Sequential(*(Residual(outputs) for _ in range(2 if deepest else 1)))
            )
        self.context = nn.Conv2d(widths[-1], widths[-1], 1)
        self.ups = nn.ModuleList()
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.ups.append(
                nn.Sequential(
                    _convolution(inputs + outputs, outputs), _convolution(outputs, outputs)
                )
            )
        self.head = nn.Conv2d(widths[0], len(CLASSES) * 4, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.levels[0](self.stem(image))
        skips = []
        for down, level in zip(self.downs, self.levels[1:], strict=True):
            skips.append(x)
            x = level(down(x))
        x = x * torch.sigmoid(self.context(x.mean(dim=(2, 3), keepdim=True)))
        for up in self.ups:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            x = up(torch.cat([x, skips.pop()], dim=1))
        return functional.pixel_shuffle(self.head(x), 2)


class FaceParserShell(nn.Module):
    """What is exported: image uint8 (N, R, R, 3) -> probability uint8 (N, 19, R, R) of 255."""

    def __init__(self, parser: FaceParser) -> None:
        super().__init__()
        self.parser = parser

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 127.5 - 1.0
        # A softmax in its parts: ONNX Runtime's own transposes for any axis but the last.
        logits = self.parser(x)
        powers = torch.exp(logits - logits.amax(dim=1, keepdim=True))
        probability = powers / powers.sum(dim=1, keepdim=True)
        return torch.round(probability * 255.0).to(torch.uint8)
