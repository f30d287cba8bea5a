"""The networks of S2GAN (He et al., ICCV 2019): a basis of a face, and ages as mixtures of it.

The publication describes the structure; no code of its authors is known. The sizes of the layers
are ours, and the layers themselves StarGAN's.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.networks.stargan import ResidualBlock, contracting, expanding, normalised

RESIDUALS = 4
"""Residual blocks of the encoder, and of the decoder."""
TRANSFORM_NOISE = 0.05
"""Standard deviation of the ages' first transforms around the identity."""


@dataclass(frozen=True)
class S2ganShape:
    """Sizes of the generator, all ours. Any resolution that is a multiple of 4 fits them."""

    width: int = 64
    anchors: int = 6
    bases: int = 8
    """Maps m of a personal basis."""
    basis_channels: int = 32
    """Channels d of each."""


class BasisEncoder(nn.Module):
    """E: image (N, 3, R, R) in [-1, 1] -> personal basis (N, bases, channels, R/4, R/4)."""

    def __init__(self, shape: S2ganShape) -> None:
        super().__init__()
        self.shape = shape
        self.contracting = contracting(3, shape.width)
        self.residuals = nn.Sequential(*(ResidualBlock(4 * shape.width) for _ in range(RESIDUALS)))
        self.head = nn.Conv2d(4 * shape.width, shape.bases * shape.basis_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        maps = self.head(self.residuals(self.contracting(image)))
        return maps.unflatten(1, (self.shape.bases, self.shape.basis_channels))


class BasisDecoder(nn.Module):
    """F: basis (N, bases, channels, H, W), weights over the anchors (N, anchors) -> image, 4 H.

    An age is a transform W (bases, bases), the same for all people: its representation of a person
    is W times the basis. Weights mix the anchors' transforms, so ages between anchors are mixtures
    of combinations; at one anchor the weights are one-hot.
    """

    def __init__(self, shape: S2ganShape) -> None:
        super().__init__()
        size = (shape.anchors, shape.bases, shape.bases)
        self.transforms = nn.Parameter(torch.eye(size[1]) + TRANSFORM_NOISE * torch.randn(size))
        channels = 4 * shape.width
        entrance = nn.Conv2d(shape.bases * shape.basis_channels, channels, 1, bias=False)
        self.entrance = nn.Sequential(*normalised(entrance, channels))
        self.residuals = nn.Sequential(*(ResidualBlock(channels) for _ in range(RESIDUALS)))
        self.expanding = expanding(shape.width)

    def combined(self, basis: Tensor, weights: Tensor) -> Tensor:
        """The representation at an age, of the basis' shape."""
        _, bases, *rest = basis.shape
        transform = (weights @ self.transforms.flatten(1)).unflatten(1, (bases, bases))
        return (transform @ basis.flatten(2)).unflatten(2, rest)

    def forward(self, basis: Tensor, weights: Tensor) -> Tensor:
        x = self.entrance(self.combined(basis, weights).flatten(1, 2))
        return self.expanding(self.residuals(x))


class S2ganGenerator(nn.Module):
    """G: image (N, 3, R, R) in [-1, 1], weights over the anchors (N, anchors) -> image alike."""

    def __init__(self, shape: S2ganShape) -> None:
        super().__init__()
        self.encoder = BasisEncoder(shape)
        self.decoder = BasisDecoder(shape)

    def forward(self, image: Tensor, weights: Tensor) -> Tensor:
        return self.decoder(self.encoder(image), weights)
