"""The networks of Lifespan Age Transformation Synthesis (Or-El et al., ECCV 2020)."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import EqualConv2d, EqualLinear, ModulatedConv2d, PixelNorm


@dataclass(frozen=True)
class LifespanShape:
    """Sizes of the generator; the defaults are the published ones. Any resolution fits them."""

    width: int = 64
    code: int = 300
    latent: int = 256
    style_gain: float = 1.0
    """How far styles scale channels: their root mean square around 1."""
    style_norm: bool = True
    """Whether every style has that length, as published, or the length that it learned."""


class IdentityEncoder(nn.Module):
    """E_id: image (N, 3, R, R) in [-1, 1] -> identity (N, 4 width, R/4, R/4).

    ReLU, not LeakyReLU: the authors report that the latter collapses training.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            [
                EqualConv2d(3, width, 7, padding=3),
                EqualConv2d(width, 2 * width, 3, stride=2, padding=1),
                EqualConv2d(2 * width, 4 * width, 3, stride=2, padding=1),
            ]
        )
        self.residuals = nn.ModuleList(ResidualBlock(4 * width) for _ in range(4))
        self.normalise = PixelNorm()

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for convolution in self.convolutions:
            x = functional.relu(self.normalise(convolution(x)))
        for residual in self.residuals:
            x = residual(x)
        return x


class ResidualBlock(nn.Module):
    """x + PixelNorm(conv(ReLU(PixelNorm(conv(x))))); nothing after the sum. The shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = EqualConv2d(channels, channels, 3, padding=1)
        self.second = EqualConv2d(channels, channels, 3, padding=1)
        self.normalise = PixelNorm()

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.normalise(self.first(x)))
        return x + self.normalise(self.second(y))


class AgeEncoder(nn.Module):
    """E_age: image (N, 3, R, R) in [-1, 1] -> estimated age code (N, code). Training only."""

    def __init__(self, width: int = 64, code: int = 300) -> None:
        super().__init__()
        channels = [width * 2**level for level in range(5)]
        self.convolutions = nn.ModuleList([EqualConv2d(3, width, 7, padding=3)])
        for inputs, outputs in itertools.pairwise(channels):
            self.convolutions.append(EqualConv2d(inputs, outputs, 3, stride=2, padding=1))
        self.head = EqualConv2d(channels[-1], code, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = image
        for convolution in self.convolutions:
            x = functional.leaky_relu(convolution(x), 0.2)
        return self.head(x).mean(dim=(2, 3))


class MappingNetwork(nn.Module):
    """M: age code z (N, code) -> latent w (N, latent).

    PixelNorm on the input and after every layer; LeakyReLU after all but the last.
    """

    def __init__(self, code: int = 300, latent: int = 256, layers: int = 8) -> None:
        super().__init__()
        sizes = [code] + [latent] * layers
        self.layers = nn.ModuleList(
            EqualLinear(inputs, outputs) for inputs, outputs in itertools.pairwise(sizes)
        )
        self.normalise = PixelNorm()

    def forward(self, code: Tensor) -> Tensor:
        *hidden, last = self.layers
        x = self.normalise(code)
        for layer in hidden:
            x = self.normalise(functional.leaky_relu(layer(x), 0.2))
        return self.normalise(last(x))


class StyledBlock(nn.Module):
    """Two modulated convolutions, LeakyReLU x sqrt 2 and PixelNorm after each."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        latent: int,
        upsample: bool = False,
        style_gain: float = 1.0,
        style_norm: bool = True,
    ) -> None:
        super().__init__()
        self.first = ModulatedConv2d(inputs, outputs, latent, upsample, style_gain, style_norm)
        self.second = ModulatedConv2d(outputs, outputs, latent, False, style_gain, style_norm)
        self.normalise = PixelNorm()

    def forward(self, x: Tensor, latent: Tensor) -> Tensor:
        for convolution in (self.first, self.second):
            x = functional.leaky_relu(convolution(x, latent), 0.2) * math.sqrt(2)
            x = self.normalise(x)
        return x


class Decoder(nn.Module):
    """F: identity (N, 4 width, R/4, R/4), latent w (N, latent) -> image (N, 3, R, R) in [-1, 1]."""

    def __init__(
        self,
        width: int = 64,
        latent: int = 256,
        style_gain: float = 1.0,
        style_norm: bool = True,
    ) -> None:
        super().__init__()
        sizes = [(4, 4, False)] * 4 + [(4, 2, True), (2, 1, True)]
        self.blocks = nn.ModuleList(
            StyledBlock(inputs * width, outputs * width, latent, upsample, style_gain, style_norm)
            for inputs, outputs, upsample in sizes
        )
        self.to_rgb = EqualConv2d(width, 3, 1)

    def styled(self) -> Iterator[ModulatedConv2d]:
        """The modulated convolutions, first to last."""
        yield from (module for module in self.modules() if isinstance(module, ModulatedConv2d))

    def draw_passing(self) -> None:
        """Draws the styled kernels so that each passes its input on; see `ModulatedConv2d`."""
        for convolution in self.styled():
            convolution.draw_passing()

    def forward(self, identity: Tensor, latent: Tensor) -> Tensor:
        x = identity
        for block in self.blocks:
            x = block(x, latent)
        return torch.tanh(self.to_rgb(x))


class LifespanGenerator(nn.Module):
    """G = F(E_id(image), M(z)), with the age encoder E_age that trains beside them.

    Image (N, 3, R, R) in [-1, 1], age code z (N, code) -> image of the same shape.
    """

    def __init__(self, shape: LifespanShape) -> None:
        super().__init__()
        self.shape = shape
        self.identity_encoder = IdentityEncoder(shape.width)
        self.age_encoder = AgeEncoder(shape.width, shape.code)
        self.mapping = MappingNetwork(shape.code, shape.latent)
        self.decoder = Decoder(shape.width, shape.latent, shape.style_gain, shape.style_norm)

    def forward(self, image: Tensor, code: Tensor) -> Tensor:
        return self.decoder(self.identity_encoder(image), self.mapping(code))

    def slow_parameters(self) -> Iterator[nn.Parameter]:
        """The mapping network's and the style affines': trained at a fraction of the rate."""
        yield from self.mapping.parameters()
        for convolution in self.decoder.styled():
            yield from convolution.affine.parameters()

    def fast_parameters(self) -> Iterator[nn.Parameter]:
        """All others."""
        slow = {id(parameter) for parameter in self.slow_parameters()}
        yield from (p for p in self.parameters() if id(p) not in slow)
