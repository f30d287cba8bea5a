"""The networks of Lifespan Age Transformation Synthesis (Or-El et al., ECCV 2020)."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

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
    overlay: bool = False
    """Whether G draws over the bent portrait, or, as published, all of a picture."""
    detail: int = 1
    """Pixels of a picture, across, for each that is drawn; above 1 only with `overlay`."""
    softness: int = 0
    """With `overlay`, how soft what it lays over the portrait is; see `Overlay`."""


class IdentityEncoder(nn.Module):
    """E_id: image (N, 3, R, R) in [-1, 1] -> identity (N, 4 width, R/4, R/4).

    ReLU, not LeakyReLU: the authors report that the latter collapses training.
    With a `detail` d the features are of the image shrunk to R/d, (N, 4 width, R/4d, R/4d). With
    `carries` the identity holds the image too: its pixels, 48 d^2 channels, after the features.
    """

    def __init__(self, width: int = 64, carries: bool = False, detail: int = 1) -> None:
        super().__init__()
        self.features = 4 * width
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


class Flow(nn.Module):
    """Where the pixels of a bent portrait come from (Zhou et al. 2016), at a quarter of the size.

    Styled features (N, C, S, S), S a multiple of 4 -> displacements (N, 2, S, S), right and down,
    in halves of the side, within REACH. A path over a quarter of S sees the whole head. It starts
    at 0.
    """

    REACH = 0.4

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.near = EqualConv2d(channels, channels, 3, padding=1)
        self.down = nn.ModuleList(
            EqualConv2d(channels, channels, 3, stride=2, padding=1) for _ in range(2)
        )
        self.far = EqualConv2d(channels, channels, 1)
        self.everywhere = EqualConv2d(channels, channels, 1)
        self.last = EqualConv2d(channels, 2, 3, padding=1)
        nn.init.zeros_(self.last.weight)

    def forward(self, x: Tensor) -> Tensor:
        wide = x
        for convolution in self.down:
            wide = functional.leaky_relu(convolution(wide), 0.2)
        wide = self.far(wide) + self.everywhere(wide.mean(dim=(2, 3), keepdim=True))
        x = self.near(x) + _enlarged(wide, x.shape[-1])
        return self.REACH * torch.tanh(self.last(functional.leaky_relu(x, 0.2)))


class Overlay(nn.Module):
    """Lays what is drawn over the portrait, bent: m drawn + (1 - m) bent portrait.

    The mask m in (0, 1) says where the bent portrait does not do (the attention of Pumarola et al.
    2018); it starts at one half. The flow comes from coarse features and so is smooth. Where the
    portrait is larger than what is drawn, their difference is enlarged, and detail that is too fine
    to be drawn stays.

    With a `softness` the difference m (drawn - bent portrait) is blurred by as many passes of
    [1 2 1] / 4 at the size drawn, and all finer detail is the bent portrait's, times a gain in
    (0, 2) that starts at 1: skin may be smoothed and lines deepened, but none are drawn.

    Coarse features (N, 4 width, S/4, S/4), fine features (N, width, S, S), drawn (N, 3, S, S) and
    portrait (N, 3, R, R) in [-1, 1] -> image, bent portrait and the same with its detail scaled,
    all (N, 3, R, R); R is S or a multiple of it.
    """

    def __init__(self, width: int, softness: int = 0) -> None:
        super().__init__()
        self.softness = softness
        self.flow = Flow(4 * width)
        self.to_mask = EqualConv2d(width, 1, 1)
        nn.init.zeros_(self.to_mask.weight)
        self.to_gain = EqualConv2d(width, 1, 1) if softness else None
        if self.to_gain is not None:
            nn.init.zeros_(self.to_gain.weight)

    def forward(
        self, coarse: Tensor, fine: Tensor, drawn: Tensor, portrait: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        under = bent = self.bent(portrait, self.flow(coarse))
        side = portrait.shape[-1]
        times = side // drawn.shape[-1]
        small = functional.avg_pool2d(bent, times) if times > 1 else bent
        change = torch.sigmoid(self.to_mask(fine)) * (drawn - small)
        if self.to_gain is not None:
            change = _softened(change, self.softness)
            detail = bent - _enlarged(_softened(small, self.softness), side)
            under = bent + _enlarged(torch.tanh(self.to_gain(fine)), side) * detail
        return under + _enlarged(change, side), bent, under

    @staticmethod
    def bent(portrait: Tensor, flow: Tensor) -> Tensor:
        """Portrait (N, 3, R, R) with every pixel taken from where flow (N, 2, S, S) says."""
        side = portrait.shape[-1]
        line = (torch.arange(side, device=flow.device) * 2 + 1) / side - 1
        across, down = line.expand(side, side), line[:, None].expand(side, side)
        moved = _enlarged(flow.float(), side).permute(0, 2, 3, 1)
        places = moved + torch.stack([across, down], -1)
        return functional.grid_sample(
            portrait.float(), places, padding_mode="border", align_corners=False
        )


def _enlarged(x: Tensor, side: int) -> Tensor:
    if x.shape[-1] == side:
        return x
    return functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def _softened(x: Tensor, passes: int) -> Tensor:
    """Separable [1 2 1] / 4 over the last two axes, edges replicated; in the precision of x."""
    for _ in range(passes):
        wide = functional.pad(x, (1, 1, 1, 1), "replicate")
        wide = (wide[..., :-2] + wide[..., 2:]) / 4 + wide[..., 1:-1] / 2
        x = (wide[..., :-2, :] + wide[..., 2:, :]) / 4 + wide[..., 1:-1, :] / 2
    return x


class Layers(NamedTuple):
    """What a decoder makes, images in [-1, 1]."""

    image: Tensor
    """(N, 3, R, R)"""
    drawn: Tensor
    """(N, 3, S, S), all of the image where there is no overlay; R / S is the detail"""
    bent: Tensor | None
    """(N, 3, R, R), with `overlay` the portrait in its new shape"""
    under: Tensor | None
    """(N, 3, R, R), that with its detail scaled: what is drawn over"""


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
    ) -> None:
        super().__init__()
        self.features, self.detail = 4 * width, detail
        sizes = [(4, 4, False)] * self.COARSE + [(4, 2, True), (2, 1, True)]
        self.blocks = nn.ModuleList(
            StyledBlock(inputs * width, outputs * width, latent, upsample, style_gain, style_norm)
            for inputs, outputs, upsample in sizes
        )
        self.to_rgb = EqualConv2d(width, 3, 1)
        self.overlay = Overlay(width, softness) if overlay else None

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

    def forward(self, identity: Tensor, latent: Tensor) -> Tensor:
        return self.layers(identity, latent).image

    def layers(self, identity: Tensor, latent: Tensor) -> Layers:
        """The image and what it is made of."""
        x = coarse = self.coarse(identity, latent)
        for block in self.blocks[self.COARSE :]:
            x = block(x, latent)
        drawn = torch.tanh(self.to_rgb(x))
        if self.overlay is None:
            return Layers(drawn, drawn, None, None)
        portrait = functional.pixel_shuffle(identity[:, self.features :], 4 * self.detail)
        image, bent, under = self.overlay(coarse, x, drawn, portrait)
        return Layers(image, drawn, bent, under)


class LifespanGenerator(nn.Module):
    """G = F(E_id(image), M(z)), with the age encoder E_age that trains beside them.

    Image (N, 3, R, R) in [-1, 1], age code z (N, code) -> image of the same shape.
    """

    def __init__(self, shape: LifespanShape) -> None:
        super().__init__()
        self.shape = shape
        self.identity_encoder = IdentityEncoder(shape.width, shape.overlay, shape.detail)
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
