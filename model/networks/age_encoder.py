"""The network that says of an image whom it shows."""

import itertools

from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import EqualConv2d


class AgeEncoder(nn.Module):
    """E_age: image (N, 3, R, R) in [-1, 1] -> estimated age code (N, code), or other numbers."""

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
