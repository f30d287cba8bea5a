"""The network that reads a portrait: where its face, hair and glasses lie, and whom it shows."""

from typing import NamedTuple, Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import EqualLinear, PixelNorm, resized


class Reading(NamedTuple):
    """What a portrait shows."""

    place: Tensor
    """(N, 2, SIDE/4, SIDE/4): how far from each of its places the same one of the mean face lies,
    right and down, in halves of the side"""
    people: Tensor
    """(N, people) logits"""
    hair: Tensor
    """(N, 1, SIDE/2, SIDE/2) logits of hair"""
    shortfall: Tensor
    """(N, clusters): by how many clusters it stays too old on the way to each"""
    eyeglasses: Tensor
    """(N, 1, SIDE/2, SIDE/2) logits of eyeglasses and what is seen through them"""

    def packed(self, side: int) -> Tensor:
        """As channels of a picture (N, 10 + people + clusters, side, side), for any side."""
        told = torch.cat([self.people, self.shortfall], 1)
        told = told[:, :, None, None].expand(-1, -1, side, side)
        seen = torch.cat([self.hair, self.eyeglasses], 1)
        seen = functional.pixel_unshuffle(resized(seen, 2 * side), 2)
        return torch.cat([resized(self.place, side), seen, told], 1)

    @classmethod
    def unpacked(cls, channels: Tensor, clusters: int) -> Self:
        """What was packed; places, hair and eyeglasses as large as they lay there."""
        hair, eyeglasses = functional.pixel_shuffle(channels[:, 2:10], 2).chunk(2, 1)
        told = channels[:, 10:].mean((2, 3))
        people, shortfall = told[:, :-clusters], told[:, -clusters:]
        return cls(channels[:, :2], people, hair, shortfall, eyeglasses)


class Reader(nn.Module):
    """Image (N, 3, SIDE, SIDE) in [-1, 1] -> `Reading`.

    A residual network whose blocks begin as the identity (Zhang et al. 2019).
    Faces differ in few ways, so their places are a linear function of SHAPES numbers, as in the
    active shape models of Cootes et al. (1995), but learned. Hair and eyeglasses are found as by a
    U-Net; one that was not taught of eyeglasses sees none. How far a portrait falls short is a
    linear function of what people are told by, and of who they are.
    """

    SIDE = 64
    SHAPES = 32
    GAIN = 0.03
    """How far places lie from those of the mean face, about."""
    RARE = -6.0
    """Logit of eyeglasses at first."""

    def __init__(self, people: int, clusters: int, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 5, 2, 2)
        self.down = nn.ModuleList(
            nn.Conv2d(inputs * width, outputs * width, 3, 2, 1)
            for inputs, outputs in ((1, 2), (2, 4), (4, 4))
        )
        self.blocks = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(factor * width) for _ in range(number)))
            for factor, number in ((2, 1), (4, 2), (4, 1))
        )
        side = self.SIDE // 16
        self.shape = nn.Linear(4 * width * side**2, self.SHAPES)
        self.places = EqualLinear(self.SHAPES, 2 * (self.SIDE // 4) ** 2)
        self.pooled = 8 * width
        self.people = nn.Linear(self.pooled, people)
        self.shortfall = nn.Linear(self.pooled + people, clusters)
        with torch.no_grad():
            for parameter in self.shortfall.parameters():
                parameter.zero_()
        self.normalise = PixelNorm()
        self.hair, self.eyeglasses = _upward(width), _upward(width)
        *_, bias = self.eyeglasses.parameters()
        with torch.no_grad():
            bias.fill_(self.RARE)

    def forward(self, image: Tensor, kept: Tensor | None = None) -> Reading:
        """`kept` (N, pooled) are factors on what people are told by: a dropout's (Hinton 2012)."""
        half = _activated(self.stem(image))
        quarter = self.blocks[0](self.down[0](half))
        eighth = self.normalise(self.blocks[1](self.down[1](_activated(quarter))))
        last = self.normalise(self.blocks[2](self.down[2](_activated(eighth))))
        place = self.GAIN * self.places(self.shape(last.flatten(1)))
        told = torch.cat([last.mean((2, 3)), eighth.mean((2, 3))], 1)
        deep = eighth + _doubled(last)
        hair, eyeglasses = (
            _found(path, half, quarter, deep) for path in (self.hair, self.eyeglasses)
        )
        people = self.people(told if kept is None else told * kept)
        # What falls short is no view of theirs, and teaches nothing of them.
        known = torch.cat([told, people.softmax(1)], 1).detach()
        return Reading(
            place.unflatten(1, (2, self.SIDE // 4, self.SIDE // 4)),
            people,
            hair,
            self.shortfall(known),
            eyeglasses,
        )


class ResidualBlock(nn.Module):
    """x + conv(LeakyReLU(conv(LeakyReLU(PixelNorm(x))))), 0 added at first; the shape stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        self.normalise = PixelNorm()
        with torch.no_grad():
            for parameter in self.second.parameters():
                parameter.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(_activated(self.first(_activated(self.normalise(x)))))


def _upward(width: int) -> nn.ModuleList:
    """The convolutions of a U-Net's way up to half of SIDE."""
    return nn.ModuleList(
        [
            nn.Conv2d(4 * width, 2 * width, 1),
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.Conv2d(width, width, 3, padding=1),
            nn.Conv2d(width, 1, 1),
        ]
    )


def _found(path: nn.ModuleList, half: Tensor, quarter: Tensor, deep: Tensor) -> Tensor:
    """Logits of what a way up finds."""
    x = _doubled(path[0](deep)) + quarter
    x = _doubled(path[1](_activated(x))) + half
    return path[3](_activated(path[2](_activated(x))))


def _activated(x: Tensor) -> Tensor:
    return functional.leaky_relu(x, 0.2)


def _doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)
