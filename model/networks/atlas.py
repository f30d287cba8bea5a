"""Mean faces of each age, and how a portrait changes by them."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import EqualLinear, laid_along, luma, resized
from model.networks.reader import Reading


class Looks(NamedTuple):
    """How a portrait changes at each of its places, S across."""

    shades: Tensor
    """(N, 3, S, S), logarithms of factors on its colours"""
    fine: Tensor
    """(N, 1, S, S), likewise on the strength of fine lines"""
    wide: Tensor
    """(N, 1, S, S), likewise of wide ones"""
    lines: Tensor
    """(N, 1, L, L), logarithms of factors on all of it: lines that an older face has"""
    flow: Tensor
    """(N, 2, F, F), what then bends it, in halves of the side"""


class Atlas(nn.Module):
    """Mean faces of each group and cluster, laid onto a portrait (Rowland and Perrett 1995).

    What they say of an age is fixed; what is learned is to read portraits (`Reader`), and which
    clusters a latent asks for. The change is the difference of the target's face and the portrait's
    own, as the group that the portrait shows has it. Clusters are an affine function of w, so that
    a path between two latents is one between two faces, and beyond them their difference grows.
    Only lines come with age and do not go again: where mean faces have them others have none, and
    taken away there they would be bright ones. What lines a portrait has near them fades instead.

    A difference says little of a face that never was as the mean one: brows that are light already
    fade to nothing, and a beard stays. So what a portrait departs in from the mean face of its own
    age is taken away as well, all of it on the way to younger and a part on that to older.
    """

    SIDE = 64
    """Pixels of the mean faces across."""
    LINES = 128
    """Likewise of their lines."""
    BENDS = 16
    """Likewise of the flows."""
    OFFSET = 0.05
    """Added to intensities in [0, 1] before their logarithm: noise in shadows is not contrast."""
    YOUNGER, OLDER = 1.0, 0.5
    """How much of what is a portrait's own, and not its age's, goes on the way to another age."""

    def __init__(self, latent: int, groups: int, clusters: int) -> None:
        super().__init__()
        self.groups, self.clusters = groups, clusters
        self.register_buffer("faces", torch.zeros(groups * clusters, 5 * self.SIDE**2))
        self.register_buffer("hair_colours", torch.zeros(groups * clusters, 3))
        self.register_buffer("lines", torch.zeros(groups * clusters, self.LINES**2))
        self.register_buffer("fades", torch.zeros(groups * clusters, self.SIDE**2))
        self.register_buffer("bends", torch.zeros(clusters, 2 * self.BENDS**2))
        self.register_buffer("means", torch.zeros(groups * clusters, 3 * self.SIDE**2))
        self.register_buffer("planes", torch.zeros(3, self.SIDE**2))
        self.register_buffer("own", torch.zeros(self.SIDE**2))
        self.faces: Tensor
        """(groups clusters, 5 SIDE SIDE): shades, fine and wide, as in `Looks`"""
        self.hair_colours: Tensor
        """(groups clusters, 3)"""
        self.lines: Tensor
        """(groups clusters, LINES LINES): those that the cluster before has not"""
        self.fades: Tensor
        """(groups clusters, SIDE SIDE): how much weaker, likewise, the cluster before has any lines
        there"""
        self.bends: Tensor
        """(clusters, 2 BENDS BENDS): the flow from the mean of all clusters to each"""
        self.means: Tensor
        """(groups clusters, 3 SIDE SIDE): logarithms of the mean faces' own colours"""
        self.planes: Tensor
        """(3, SIDE SIDE): what finds the light on a face, as `light_planes`"""
        self.own: Tensor
        """(SIDE SIDE): how much of what is a portrait's own goes, 0 to 1"""
        self.asked = EqualLinear(latent, clusters)

    def looks(self, latent: Tensor, reading: Reading, light: Tensor) -> Looks:
        """What the mean faces say of the way from a portrait's age to the latent's.

        All but lines and flow is S across. The latent is (N, latent), the reading the portrait's,
        and `light` (N, 3, S, S) its smooth intensities, 0 to 1.
        """
        side = light.shape[-1]
        own = reading.people.float().softmax(1).unflatten(1, (self.groups, self.clusters))
        asked = self.asked(latent).float()
        # Learned, they add up to 1 but roughly; the rest would weigh whole faces.
        asked = asked + (1 - asked.sum(1, keepdim=True)) / self.clusters
        way = (own.sum(2, keepdim=True) * asked[:, None] - own).flatten(1)
        older = torch.ones(self.clusters, self.clusters, device=asked.device).tril()
        grown = (own.sum(2, keepdim=True) * (asked @ older)[:, None] - own @ older).flatten(1)
        maps = (way @ self.faces).unflatten(1, (5, self.SIDE, self.SIDE))
        fade = (grown.clamp(max=0) @ self.fades).unflatten(1, (1, self.SIDE, self.SIDE))
        share = self.YOUNGER * older.tril(-1) + self.OLDER * older.T.triu(1)
        share = ((own.sum(1) @ share) * asked).sum(1).clamp(0, 1)
        gone = share[:, None, None, None] * self._departure(own.flatten(1), reading.place, light)
        maps = resized(laid_along(torch.cat([maps, fade, gone], 1), reading.place), side)
        shades, contrasts, fade, gone = maps.split([3, 2, 1, 3], 1)
        fine, wide = (contrasts + fade).chunk(2, 1)
        hair = torch.sigmoid(reading.hair.float())
        wider = functional.max_pool2d(hair, 3, 1, 1)
        shades = shades - gone * (1 - resized(wider, side))
        # Smaller by a pixel: what lies behind a head is not to change with its hair.
        inside = resized(-functional.max_pool2d(-hair, 3, 1, 1), side)
        shades = shades + inside * (way @ self.hair_colours)[:, :, None, None]
        lines = (grown.clamp(min=0) @ self.lines).unflatten(1, (1, self.LINES, -1))
        lines = laid_along(lines, reading.place) * (1 - resized(hair, self.LINES))
        flow = (asked - own.sum(1)) @ self.bends
        flow = laid_along(flow.unflatten(1, (2, self.BENDS, self.BENDS)), reading.place)
        # It says how far a place moves; what is wanted is how far what moves to a place has come.
        return Looks(shades, fine, wide, lines, laid_along(flow, flow))

    def _departure(self, people: Tensor, place: Tensor, light: Tensor) -> Tensor:
        """What is a portrait's own, where it may go, in the mean shape: (N, 3, SIDE, SIDE)."""
        colours = (resized(light, self.SIDE) + self.OFFSET).clamp(min=self.OFFSET / 2).log()
        # A place says where in the mean face it lies; this, what portrait lies at one of that.
        colours = laid_along(colours, laid_along(-place, -place))
        means = (people @ self.means).unflatten(1, (3, self.SIDE, self.SIDE))
        return self.own.view(self.SIDE, -1) * departure(colours, means, self.planes)


DEPARTURE, TINT = 1.0, 0.3
"""Departures near the first count ever less, and those of colour only up to the second."""
CHROMA = 0.3
"""How much of a departure in colour, other than in luma, counts: lighting has colours too."""
BRIGHTER = 0.4
"""How much of what is brighter than in the mean face counts: eyes are narrow where one laughs, and
open ones would be dark smudges on their lids."""


def departure(colours: Tensor, means: Tensor, planes: Tensor) -> Tensor:
    """What is a face's own: how far its log colours (N, 3, S, S) are from `means`, but for light.

    Light is a plane in each colour over the face; `planes` is `light_planes` of where it is seen.
    """
    apart = colours - means
    light = (apart.flatten(2) @ planes.T) @ _slopes(apart.shape[-1]).to(apart) / planes.shape[1]
    apart = apart - light.unflatten(2, apart.shape[2:])
    grey = luma(apart)
    tint = (apart - grey).clamp(-TINT, TINT)
    grey = DEPARTURE * torch.tanh(grey / DEPARTURE)
    return -functional.leaky_relu(-grey, BRIGHTER) + CHROMA * tint


def light_planes(seen: Tensor) -> Tensor:
    """What finds the plane nearest to a picture, by weights `seen` (S, S): (3, S S).

    Times the picture's pixels, summed and divided by their number, it is how much of 1, of a slope
    to the right and of one down is in it (weighted least squares).
    """
    slopes, weights = _slopes(seen.shape[-1]).to(seen), seen.flatten()
    weighted = slopes * weights
    return torch.linalg.solve(weighted @ slopes.T, weighted) * weights.numel()


def _slopes(side: int) -> Tensor:
    """1, and slopes from -1/2 to 1/2 to the right and down: (3, side side)."""
    line = (torch.arange(side) + 0.5) / side - 0.5
    across, down = line.expand(side, side), line[:, None].expand(side, side)
    return torch.stack([torch.ones(side, side), across, down]).flatten(1)
