"""What a face departs in from the mean face of its age, and a beard in it."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.layers import luma

LARGE, TINT = 1.0, 0.3
"""Departures near the first count ever less, and those of colour only up to the second."""
CHROMA = 0.3
"""How much of a departure in colour, other than in luma, counts: lighting has colours too."""
SHADED, SHADE = 1.3, 0.2
"""How much of it counts where a face is much darker, and how much darker, for it to be halfway
there: shadows are redder than skin, and would glow when only their luma went."""
BRIGHTER, FEATURE = 0.4, 0.5
"""How much of what is brighter than in the mean face counts, and how dark beside the cheeks that
face is where none does: eyes are narrow where one laughs, and open ones would be dark smudges on
their lids."""
BEARD = 0.1
"""What is darker in red than skin by this is surely a beard where one may grow, and what is
brighter by as much surely none: many are hardly darker. Lips are no darker in red."""
PALER, DARKER, TINTED = 0.15, 0.1, 0.05
"""How far beyond the mean face of an age differences may make a place, brighter, darker or in a
colour: they are amplified, and would draw white rings around eyes that no shadow lies on. Teeth,
which have less red than lips already, would turn green as these lose it."""
OUTLYING = 0.25
"""How far from the cheeks' a place's colours are, about, for it to count half for the light: hats
and hair are no face in a strange light."""
RIDGE = 0.05
"""Light has half the slope that it seems to have where it is seen over a variance of this, in
squared shares of the side; it is followed beyond where it is seen."""


class Departure(NamedTuple):
    """Of faces, in logarithms of colours; S is the side."""

    apart: Tensor
    """(N, 3, S, S), what each differs by, but for the light"""
    own: Tensor
    """(N, 3, S, S), how much of that may go"""
    skin: Tensor
    """(N, 3, S, S), the mean face in the light that is on each"""
    light: Tensor
    """(N, 3, S, S), its cheeks' colour in that light, wherever it falls"""
    beard: Tensor
    """(N, 1, S, S), 0 to 1: how far it is dark as a beard is"""


def departure(colours: Tensor, means: Tensor, cheeks: Tensor, seen: Tensor) -> Departure:
    """How faces of log colours (N, 3, S, S) depart from mean ones.

    `seen` (N or 1, 1, S, S) weighs what shows the light on a face, `cheeks` (S, S) what surely
    does.
    """
    light = light_on(colours - means, cheeks, seen)
    skin = means + light
    apart = colours - skin
    grey = luma(apart)
    # A hair's breadth wider: what is left of it would be its outline.
    beard = ((functional.max_pool2d(-apart[:, :1], 3, 1, 1) + BEARD) / (2 * BEARD)).clamp(0, 1)
    tint = (apart - grey).clamp(-TINT, TINT)
    grey = LARGE * torch.tanh(grey / LARGE)
    brighter = BRIGHTER * (1 + luma(means) / FEATURE).clamp(0.0, 1.0)
    dark = grey.clamp(max=0.0)
    chroma = CHROMA + (SHADED - CHROMA) * dark / (dark - SHADE)
    own = dark + brighter * grey.clamp(min=0.0) + chroma * tint
    return Departure(apart, own, skin, light, beard)


def bounded(shades: Tensor, room: Tensor) -> Tensor:
    """Changes of log colours (N, 3, S, S) that stay about within what is wanted.

    `room` (N, 3, S, S) is the whole way from a face to the mean face of its target's age. Luma and
    what each colour is apart from it keep to their own.
    """
    grey, way = luma(shades), luma(room)
    return _within(grey, way - DARKER, way + PALER) + _within(
        shades - grey, room - way - TINTED, room - way + TINTED
    )


def _within(change: Tensor, least: Tensor, most: Tensor) -> Tensor:
    """A change that is none where it would lead away."""
    return torch.minimum(torch.maximum(change, least.clamp(max=0.0)), most.clamp(min=0.0))


def light_on(apart: Tensor, cheeks: Tensor, seen: Tensor) -> Tensor:
    """A plane in each colour, (N, 3, S, S): what of (N, 3, S, S), log colours, is light.

    The weighted least squares, with a ridge on the slopes. What is not near the cheeks' mean counts
    less, as in a step of an iteratively reweighted fit (Cauchy's weights; Holland, Welsch 1977).
    """
    side = apart.shape[-1]
    mean = (apart * cheeks).sum((2, 3), keepdim=True) / cheeks.sum().clamp(min=1e-3)
    weights = seen / (1 + (apart - mean).square().mean(1, keepdim=True) / OUTLYING**2)
    line = (torch.arange(side, device=apart.device) + 0.5) / side - 0.5
    x, y = line.expand(side, side).flatten(), line[:, None].expand(side, side).flatten()
    # Two products of matrices instead of a dozen sums over all places.
    plane = torch.stack([torch.ones_like(x), x, y])
    terms = torch.cat([plane, torch.stack([x * x, x * y, y * y])])
    weights = weights.flatten(2)
    total, *moments = (weights @ terms.T).unbind(2)
    total = total.clamp(min=1e-3)
    level, across, down = ((weights * apart.flatten(2)) @ plane.T / total[:, None]).unbind(2)
    mx, my, xx, xy, yy = (moment / total for moment in moments)
    xx, xy, yy = xx - mx * mx, xy - mx * my, yy - my * my
    # Down, less what of it is across.
    shear = xy / (xx + 1e-6)
    across = across - level * mx
    down = down - level * my - shear * across
    across = across / (xx + RIDGE)
    down = down / (yy - 2 * shear * xy + shear * shear * xx + RIDGE)
    across = across - shear * down
    light = torch.stack([level - across * mx - down * my, across, down], 2) @ plane
    return light.unflatten(2, (side, side))
