"""Hair going grey: white ones among those that it has."""

from torch import Tensor

from model.networks.layers import luma

WHITE, TINT = 0.9, 0.4
"""White hair's luma beside the cheeks', and how much of these' colour it has: that of the light."""
STRANDS = 3.0
"""How much stronger lines become at most in hair that turns lighter: black hair hardly has any."""
NOISE, DEEP = 0.01, 0.05
"""Light below which lines are noise, and at which hair goes half as grey: it lies in shadow."""


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
