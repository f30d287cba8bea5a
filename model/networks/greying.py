"""Hair going grey, white ones among those that it has, and as it was before."""

from math import log

import torch
from torch import Tensor

from model.networks.layers import luma, mean_around

WHITE, TINT = 0.9, 0.4
"""White hair's luma beside the cheeks', and how much of these' colour it has: that of the light."""
STRANDS = 3.0
"""How much stronger lines become at most in hair that turns lighter: black hair hardly has any."""
NOISE, DEEP = 0.01, 0.05
"""Light below which lines are noise, and at which hair goes half as grey: it lies in shadow."""
NATURAL = 0.2
"""Luma beside the cheeks' of what was white and is no longer."""
LOCK = 4 / 128
"""How far around a place hair is as white as there, in shares of the side: strands stay."""
COLOURLESS = (0.5, 0.9)
"""How red hair is beside blue, as a part of how much redder the cheeks are, up to which it surely
is white, and from which on fair."""


def white_hair(light: Tensor) -> Tensor:
    """Its colours (N, 3, S, S), 0 to 1, where cheeks would have those that are given."""
    grey = luma(light)
    return WHITE * (grey + TINT * (light - grey))


def greyed(light: Tensor, grey: Tensor, white: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures of which a share `grey` (N, 1, S, S) is white hair, 0 to 1, and by how much lines
    finer than theirs grow stronger, (N, 1, S, S).

    Light and white hair are (N, 3, S, S), 0 to 1. Hair that is lighter than white only pales.
    """
    before = luma(light).clamp(min=NOISE)
    white = white * (before / luma(white).clamp(min=NOISE)).clamp(min=1.0)
    seen = before.square()
    lighter = light + grey * seen / (seen + DEEP**2) * (white - light)
    return lighter, ((luma(lighter) + NOISE) / (luma(light) + NOISE)).clamp(1.0, STRANDS)


def ungreyed(light: Tensor, hair: Tensor, cheeks: Tensor, colours: Tensor) -> Tensor:
    """Logarithms (N, 3, S, S) of factors on hair that give it the colour that it had before.

    `light` (N, 3, S, S) are pictures, 0 to 1, and `hair` (N, 1, S, S), 0 to 1, says where some is;
    `cheeks` (N, 3, S, S) are the logarithms of what their colours would be there, and `colours`
    (N, 1, 1, 1), 0 to 1, says how far pictures have any. White is what is as light as that and has
    no colour of its own: of this a whole head of hair tells more than one place of it.
    """
    seen = luma(light).clamp(min=NOISE)
    white = (seen / luma(white_hair(cheeks.exp().clamp(max=1))).clamp(min=NOISE)).clamp(max=1)
    margin = round(LOCK * light.shape[-1])
    white = torch.cat([hair * white, hair], 1)
    white, around = mean_around(white, margin).chunk(2, 1)
    white = white / around.clamp(min=NOISE)
    logs = light.clamp(min=NOISE).log()
    weight = hair * seen
    total = weight.sum((2, 3), keepdim=True).clamp(min=1e-3)
    redder = ((logs[:, :1] - logs[:, 2:]) * weight).sum((2, 3), keepdim=True) / total
    skin = (cheeks[:, :1] - cheeks[:, 2:]).mean((2, 3), keepdim=True).clamp(min=0.1)
    least, most = COLOURLESS
    fair = colours * ((redder / skin - least) / (most - least)).clamp(0, 1)
    tint = cheeks - luma(cheeks) - (logs - luma(logs))
    return hair * (1 - fair) * white * (log(NATURAL / WHITE) + colours * tint)
