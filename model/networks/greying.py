"""Hair going grey: white ones among those that it has."""

import torch
from torch import Tensor

from model.networks.layers import luma

WHITE, TINT = 0.9, 0.4
"""White hair's luma beside the cheeks', and how much of these' colour it has: that of the light."""
STRANDS = 3.0
"""How much stronger lines become at most in hair that turns lighter: black hair hardly has any."""
NOISE = 0.01
"""Light below which lines are noise."""


def white_hair(light: Tensor, cheeks: Tensor) -> Tensor:
    """Its colour, (N, 3, 1, 1), on pictures (N, 3, S, S) of light from 0 to 1.

    `cheeks` (N, 1, S, S) weighs where cheeks are.
    """
    colour = (light * cheeks).sum((2, 3), keepdim=True)
    colour = colour / cheeks.sum((2, 3), keepdim=True).clamp(min=1e-3)
    grey = luma(colour)
    return WHITE * (grey + TINT * (colour - grey))


def greyed(light: Tensor, grey: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures of which a share `grey` (N, 1, S, S) is white hair, 0 to 1, and by how much lines
    finer than theirs grow stronger, (N, 1, S, S).

    The light is (N, 3, S, S), 0 to 1, and white hair (N, 3, 1, 1).
    """
    lighter = light + grey * (white - light)
    before, after = (luma(x).clamp(min=0) + NOISE for x in (light, lighter))
    return lighter, torch.clamp(after / before, 1, STRANDS)
