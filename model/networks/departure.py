"""What a face departs in from the mean face of its age, and a beard in it."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.layers import luma, mean_around

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
GREY_BEARD = (0.05, 0.25)
"""How much less red than blue is left of skin where surely no grey beard is, and surely one."""
PALER, DARKER, TINTED = 0.15, 0.02, 0.05
"""How far beyond the mean face of an age differences may make a place, brighter, darker or in a
colour: they are amplified, and would draw white rings around eyes that no shadow lies on. Teeth,
which have less red than lips already, would turn green as these lose it."""
OUTLYING = 0.25
"""How far from the cheeks' a place's colours are, about, for it to count half for the light: hats
and hair are no face in a strange light."""
UNLIKE, MIMIC = 0.3, 0.1
"""Departure in luma, about a place, with which it changes half as much as the mean face does, and
that at the mouth: laid over a laugh, the change of a closed mouth is a moustache and red teeth."""
ABOUT = 3 / 64
"""How far around a place that is looked for, in shares of the side."""
RIDGE = 0.05
"""Light has half the slope that it seems to have where it is seen over a variance of this, in
squared shares of the side; it is followed beyond where it is seen."""

ASIDE = 4 / 64
"""How far to either side, in shares of it, light from there is a mean."""
LITTLE = 3 / 64
"""How much of a column, in shares of the side, shows half of the light from its side."""


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
    """(N, 1, S, S), 0 to 1: how far it is dark or grey as a beard is"""
    grey_beard: Tensor
    """(N, 1, S, S), likewise grey alone"""
    alike: Tensor
    """(N, 1, S, S), 0 to 1: how far it is as the mean face is, and changes as that does"""


def departure(
    colours: Tensor, means: Tensor, cheeks: Tensor, seen: Tensor, mouth: Tensor
) -> Departure:
    """How faces of log colours (N, 3, S, S) depart from mean ones.

    `seen` (N or 1, 1, S, S) weighs what shows the light on a face, `cheeks` (S, S) what surely
    does; `mouth` (S, S), 0 to 1, says where the mouth is.
    """
    light = light_on(colours - means, cheeks, seen)
    light = light + from_aside(colours - means - light, seen)
    skin = means + light
    apart = colours - skin
    grey = luma(apart)
    least, most = GREY_BEARD
    dark_beard = (BEARD - apart[:, :1]) / (2 * BEARD)
    grey_beard = (apart[:, 2:] - apart[:, :1] - least) / (most - least)
    # A hair's breadth wider: what is left of it would be its outline.
    dark_beard, grey_beard = (
        functional.max_pool2d(beard, 3, 1, 1).clamp(0, 1) for beard in (dark_beard, grey_beard)
    )
    alike = _alike(grey, mouth)
    tint = (apart - grey).clamp(-TINT, TINT)
    grey = LARGE * torch.tanh(grey / LARGE)
    brighter = BRIGHTER * (1 + luma(means) / FEATURE).clamp(0.0, 1.0)
    dark = grey.clamp(max=0.0)
    chroma = CHROMA + (SHADED - CHROMA) * dark / (dark - SHADE)
    own = dark + brighter * grey.clamp(min=0.0) + chroma * tint
    beard = torch.maximum(dark_beard, grey_beard)
    return Departure(apart, own, skin, light, beard, grey_beard, alike)


def from_aside(apart: Tensor, seen: Tensor) -> Tensor:
    """What of (N, 3, S, S), log colours beside the light's plane, is light from one side.

    (N, 3, 1, S), the mean of each column and those next to it, where it is seen: halves of faces
    lie in shadow from above the eyes to the jaw, and that would pass for a beard.
    """
    margin = round(ASIDE * apart.shape[-1])
    shown = (seen * torch.ones_like(apart[:, :1])).mean(2, keepdim=True)
    columns = torch.cat([(apart * seen).mean(2, keepdim=True), shown], 1)
    columns = functional.avg_pool2d(columns, (1, 2 * margin + 1), 1, (0, margin))
    return columns[:, :3] / (columns[:, 3:] + LITTLE)


def _alike(grey: Tensor, mouth: Tensor) -> Tensor:
    """How far places are as in the mean face, by what luma (N, 1, S, S) departs by.

    One over one plus its mean square, as Cauchy's weights (Holland, Welsch 1977).
    """
    margin = round(ABOUT * grey.shape[-1])
    apart = functional.pad(grey.abs().clamp(max=LARGE), (margin,) * 4, mode="replicate")
    inside = slice(margin, margin + grey.shape[-1])
    square = mean_around(apart, margin)[..., inside, inside].square()
    alike, talking = (1 / (1 + square / least**2) for least in (UNLIKE, MIMIC))
    return alike * (1 - mouth * (1 - talking))


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
