"""The networks of Lifespan Age Transformation Synthesis (Or-El et al., ECCV 2020)."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.age_encoder import AgeEncoder
from model.networks.layers import EqualConv2d, EqualLinear, ModulatedConv2d, PixelNorm, resized
from model.networks.overlay import Features, Overlay
from model.networks.reader import Reader, Reading


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
    overlay: bool = False
    """Whether G draws over the bent portrait, or, as published, all of a picture."""
    detail: int = 1
    """Pixels of a picture, across, for each that is drawn; above 1 only with `overlay`."""
    softness: int = 0
    """With `overlay`, how soft what it lays over the portrait is; see `Overlay`."""
    prototypes: tuple[int, int] = (0, 0)
    """With `overlay`, groups and clusters of the mean faces that it goes by; see `Atlas`."""


class IdentityEncoder(nn.Module):
    """E_id: image (N, 3, R, R) in [-1, 1] -> identity (N, 4 width, R/4, R/4).

    ReLU, not LeakyReLU: the authors report that the latter collapses training.
    With a `detail` d the features are of the image shrunk to R/d, (N, 4 width, R/4d, R/4d). With
    `carries` the identity holds the image too: its pixels, 48 d^2 channels, after the features;
    then, where there are `prototypes`, what a `Reader` says of it. That one no loss moves through
    an identity.
    """

    def __init__(
        self,
        width: int = 64,
        carries: bool = False,
        detail: int = 1,
        prototypes: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.features = 4 * width
        people = math.prod(prototypes)
        self.reader = Reader(people, prototypes[1]) if people else None
        self.carries, self.detail = carries, detail
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
        x = functional.avg_pool2d(image, self.detail) if self.detail > 1 else image
        for convolution in self.convolutions:
            x = functional.relu(self.normalise(convolution(x)))
        for residual in self.residuals:
            x = residual(x)
        if self.carries:
            x = torch.cat([x, functional.pixel_unshuffle(image, 4 * self.detail)], 1)
        if self.reader is not None:
            reading = self.reader(resized(image, Reader.SIDE)).packed(x.shape[-1])
            x = torch.cat([x, reading.detach().to(x.dtype)], 1)
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


class Layers(NamedTuple):
    """What a decoder makes, images in [-1, 1]."""

    image: Tensor
    """(N, 3, R, R)"""
    drawn: Tensor
    """(N, 3, S, S), all of the image where there is no overlay; R / S is the detail"""
    bent: Tensor | None
    """(N, 3, R, R), with `overlay` the portrait under what is drawn, its detail scaled"""
    flow: Tensor | None
    """(N, 2, S, S), with `overlay` what bends it, in halves of the side"""


class Decoder(nn.Module):
    """F: identity (N, 4 width, R/4, R/4), latent w (N, latent) -> image (N, 3, R, R) in [-1, 1].

    With `overlay` the identity is one that carries its image; see `IdentityEncoder`.
    """

    COARSE = 4
    """Blocks before the first that enlarges."""

    def __init__(
        self,
        width: int = 64,
        latent: int = 256,
        style_gain: float = 1.0,
        style_norm: bool = True,
        overlay: bool = False,
        detail: int = 1,
        softness: int = 0,
        prototypes: tuple[int, int] = (0, 0),
    ) -> None:
        super().__init__()
        self.features, self.detail = 4 * width, detail
        sizes = [(4, 4, False)] * self.COARSE + [(4, 2, True), (2, 1, True)]
        self.blocks = nn.ModuleList(
            StyledBlock(inputs * width, outputs * width, latent, upsample, style_gain, style_norm)
            for inputs, outputs, upsample in sizes
        )
        self.to_rgb = EqualConv2d(width, 3, 1)
        self.overlay = Overlay(width, latent, softness, prototypes) if overlay else None

    def styled(self) -> Iterator[ModulatedConv2d]:
        """The modulated convolutions, first to last."""
        yield from (module for module in self.modules() if isinstance(module, ModulatedConv2d))

    def draw_passing(self) -> None:
        """Draws the styled kernels so that each passes its input on; see `ModulatedConv2d`."""
        for convolution in self.styled():
            convolution.draw_passing()

    def coarse(self, identity: Tensor, latent: Tensor) -> Tensor:
        """The styled features (N, 4 width, S/4, S/4) before the first that enlarges."""
        x = identity[:, : self.features]
        for block in self.blocks[: self.COARSE]:
            x = block(x, latent)
        return x

    def fine(self, coarse: Tensor, latent: Tensor) -> Tensor:
        """The styled features (N, width, S, S) that come of the coarse ones."""
        for block in self.blocks[self.COARSE :]:
            coarse = block(coarse, latent)
        return coarse

    def forward(self, identity: Tensor, latent: Tensor) -> Tensor:
        return self.layers(identity, latent).image

    def layers(self, identity: Tensor, latent: Tensor) -> Layers:
        """The image and what it is made of."""
        coarse = self.coarse(identity, latent)
        x = self.fine(coarse, latent)
        drawn = torch.tanh(self.to_rgb(x))
        if self.overlay is None:
            return Layers(drawn, drawn, None, None)
        pixels = self.features + 48 * self.detail**2
        portrait = functional.pixel_shuffle(identity[:, self.features : pixels], 4 * self.detail)
        atlas = self.overlay.atlas
        reading = None if atlas is None else Reading.unpacked(identity[:, pixels:], atlas.clusters)
        features = Features(latent, coarse, x, reading)
        image, bent, flow = self.overlay(features, drawn, portrait)
        return Layers(image, drawn, bent, flow)


class LifespanGenerator(nn.Module):
    """G = F(E_id(image), M(z)), with the age encoder E_age that trains beside them.

    Image (N, 3, R, R) in [-1, 1], age code z (N, code) -> image of the same shape.
    """

    def __init__(self, shape: LifespanShape) -> None:
        super().__init__()
        self.shape = shape
        self.identity_encoder = IdentityEncoder(
            shape.width, shape.overlay, shape.detail, shape.prototypes
        )
        self.age_encoder = AgeEncoder(shape.width, shape.code)
        self.mapping = MappingNetwork(shape.code, shape.latent)
        self.decoder = Decoder(
            shape.width,
            shape.latent,
            shape.style_gain,
            shape.style_norm,
            shape.overlay,
            shape.detail,
            shape.softness,
            shape.prototypes,
        )

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
