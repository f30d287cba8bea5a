"""How a generator changes a portrait instead of drawing one: a flow, mean faces, and a mask."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.layers import EqualConv2d, EqualLinear, enlarged, resized, shrunk
from model.networks.reader import Reading

LUMA = (0.299, 0.587, 0.114)


class Features(NamedTuple):
    """What a decoder knows of a portrait and its target; S is the side of what it draws."""

    latent: Tensor
    """(N, latent), w of the target"""
    coarse: Tensor
    """(N, 4 width, S/4, S/4), styled"""
    fine: Tensor
    """(N, width, S, S), styled"""
    reading: Reading | None = None
    """What the portrait shows, for an atlas"""


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
        x = self.near(x) + enlarged(wide, x.shape[-1])
        return self.REACH * torch.tanh(self.last(functional.leaky_relu(x, 0.2)))


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
    """

    SIDE = 64
    """Pixels of the mean faces across."""
    LINES = 128
    """Likewise of their lines."""
    BENDS = 16
    """Likewise of the flows."""

    def __init__(self, latent: int, groups: int, clusters: int) -> None:
        super().__init__()
        self.groups, self.clusters = groups, clusters
        self.register_buffer("faces", torch.zeros(groups * clusters, 5 * self.SIDE**2))
        self.register_buffer("hair_colours", torch.zeros(groups * clusters, 3))
        self.register_buffer("lines", torch.zeros(groups * clusters, self.LINES**2))
        self.register_buffer("fades", torch.zeros(groups * clusters, self.SIDE**2))
        self.register_buffer("bends", torch.zeros(clusters, 2 * self.BENDS**2))
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
        self.asked = EqualLinear(latent, clusters)

    def looks(self, latent: Tensor, reading: Reading, side: int) -> Looks:
        """What the mean faces say of the way from a portrait's age to the latent's.

        All but lines and flow is `side` across. The latent is (N, latent), the reading the
        portrait's.
        """
        own = reading.people.float().softmax(1).unflatten(1, (self.groups, self.clusters))
        asked = self.asked(latent).float()
        way = (own.sum(2, keepdim=True) * asked[:, None] - own).flatten(1)
        older = torch.ones(self.clusters, self.clusters, device=asked.device).tril()
        grown = (own.sum(2, keepdim=True) * (asked @ older)[:, None] - own @ older).flatten(1)
        maps = (way @ self.faces).unflatten(1, (5, self.SIDE, self.SIDE))
        fade = (grown.clamp(max=0) @ self.fades).unflatten(1, (1, self.SIDE, self.SIDE))
        maps = resized(laid_along(torch.cat([maps, fade], 1), reading.place), side)
        shades, contrasts, fade = maps.split([3, 2, 1], 1)
        fine, wide = (contrasts + fade).chunk(2, 1)
        # Smaller by a pixel: what lies behind a head is not to change with its hair.
        hair = torch.sigmoid(reading.hair.float())
        inside = resized(-functional.max_pool2d(-hair, 3, 1, 1), side)
        shades = shades + inside * (way @ self.hair_colours)[:, :, None, None]
        lines = (grown.clamp(min=0) @ self.lines).unflatten(1, (1, self.LINES, -1))
        lines = laid_along(lines, reading.place) * (1 - resized(hair, self.LINES))
        flow = (asked - own.sum(1)) @ self.bends
        flow = laid_along(flow.unflatten(1, (2, self.BENDS, self.BENDS)), reading.place)
        # It says how far a place moves; what is wanted is how far what moves to a place has come.
        return Looks(shades, fine, wide, lines, laid_along(flow, flow))


class Overlay(nn.Module):
    """Lays what is drawn over the portrait, bent: m drawn + (1 - m) bent portrait.

    The mask m in (0, 1) says where the bent portrait does not do (the attention of Pumarola et al.
    2018); it starts at one half. The flow comes from coarse features and so is smooth. Where the
    portrait is larger than what is drawn, their difference is enlarged, and detail that is too fine
    to be drawn stays.

    With a `softness` the difference m (drawn - bent portrait) is blurred by as many passes of
    [1 2 1] / 4 at the size drawn, and fine detail is the bent portrait's, times a gain in (0, 2)
    that starts at 1: skin may be smoothed and lines deepened, but none are drawn.

    With an `atlas` the portrait first changes as the mean faces say, in its colours, its lines and
    then its shape. What is drawn is laid over that as a factor on its light: an adversary of few
    images has no colours that stay. The gain is 0.99 at least.

    Features, drawn (N, 3, S, S) and portrait (N, 3, R, R) in [-1, 1] -> image, what was drawn over,
    both (N, 3, R, R), and the flow (N, 2, F, F); R is S or a multiple of it.
    """

    LEAST, MOST = 0.3, 1.95
    """Limits of how much weaker or stronger an atlas makes lines, and of what those it adds do."""
    DARK = 0.1
    """Added to light (0 to 2) before what is drawn over an atlas is taken as a factor on it."""
    SMOOTHING = 0.01
    """How much of the gain below 1 is left with an atlas."""
    FINE, WIDE = 2, 4
    """Passes of [1 2 1] / 4 at the size drawn under which detail is fine, and further ones under
    which lines are wide."""

    def __init__(
        self, width: int, latent: int, softness: int = 0, prototypes: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.softness = softness
        self.atlas = Atlas(latent, *prototypes) if prototypes[0] else None
        self.flow = None if self.atlas is not None else Flow(4 * width)
        self.to_mask = EqualConv2d(width, 1, 1)
        nn.init.zeros_(self.to_mask.weight)
        self.to_gain = EqualConv2d(width, 1, 1) if softness else None
        if self.to_gain is not None:
            nn.init.zeros_(self.to_gain.weight)

    def forward(
        self, features: Features, drawn: Tensor, portrait: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        under, flow = self._bent(features, portrait, drawn.shape[-1])
        side = portrait.shape[-1]
        if self.to_gain is not None:
            gain = torch.tanh(self.to_gain(features.fine))
            if self.atlas is not None:
                gain = functional.leaky_relu(gain, self.SMOOTHING)
            gain = 1 + gain
            smooth, detail = self._parted(under, drawn.shape[-1])
            under = enlarged(smooth, side) + enlarged(gain, side) * detail
        lain = shrunk(under, drawn.shape[-1])
        change = torch.sigmoid(self.to_mask(features.fine)) * (drawn - lain)
        if self.atlas is not None:
            relit = 1 + self._softened(luma(change)) / self._softened(luma(lain) + 1 + self.DARK)
            return (under + 1) * enlarged(relit, side) - 1, under, flow
        return under + enlarged(self._softened(change), side), under, flow

    def _softened(self, x: Tensor) -> Tensor:
        return softened(x, self.softness) if self.softness else x

    def _bent(self, features: Features, portrait: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """The portrait with the shape, and where there is an atlas the look, of the target."""
        if self.flow is not None:
            flow = self.flow(features.coarse)
            return laid_along(portrait, flow, "bicubic"), flow
        assert self.atlas is not None
        assert features.reading is not None
        looks = self.atlas.looks(features.latent, features.reading, side)
        smooth, detail = self._parted(portrait, side)
        light = (smooth + 1) / 2
        lightest = softened(light, self.WIDE)
        fine, wide = (
            lines.exp().clamp(self.LEAST, self.MOST) for lines in (looks.fine, looks.wide)
        )
        shades, across = looks.shades.exp(), portrait.shape[-1]
        smooth = 2 * (lightest + reinforced(light - lightest, wide)) * shades - 1
        detail = enlarged(shades, across) * reinforced(detail, enlarged(fine, across))
        lines = resized(looks.lines, across).exp().clamp(self.LEAST, self.MOST)
        changed = (enlarged(smooth, across) + detail + 1) * lines - 1
        return laid_along(changed, looks.flow, "bicubic"), looks.flow

    def _parted(self, picture: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """What of a picture (N, 3, R, R) is coarse, (N, 3, side, side), and its finer detail."""
        smooth = softened(shrunk(picture, side), self.FINE)
        return smooth, picture - enlarged(smooth, picture.shape[-1])


def luma(picture: Tensor) -> Tensor:
    """(N, 3, H, W) -> (N, 1, H, W)."""
    return (picture * picture.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def reinforced(lines: Tensor, times: Tensor) -> Tensor:
    """Lines (N, 3, S, S) made stronger or weaker; their colour grows no stronger: it is noise."""
    grey = luma(lines)
    return times * grey + times.clamp(max=1) * (lines - grey)


def laid_along(picture: Tensor, flow: Tensor, mode: str = "bilinear") -> Tensor:
    """Picture (N, C, R, R), every pixel taken from where flow (N, 2, S, S) says: (N, C, R, R).

    `bicubic` keeps detail (Keys 1981) that means of four pixels lose, and overshoots a little.
    """
    side = picture.shape[-1]
    line = (torch.arange(side, device=flow.device) * 2 + 1) / side - 1
    across, down = line.expand(side, side), line[:, None].expand(side, side)
    moved = enlarged(flow.float(), side).permute(0, 2, 3, 1)
    places = moved + torch.stack([across, down], -1)
    return functional.grid_sample(
        picture.float(), places, mode, padding_mode="border", align_corners=False
    )


def softened(x: Tensor, passes: int) -> Tensor:
    """Separable [1 2 1] / 4 over the last two axes, edges replicated; in the precision of x."""
    for _ in range(passes):
        wide = functional.pad(x, (1, 1, 1, 1), "replicate")
        wide = (wide[..., :-2] + wide[..., 2:]) / 4 + wide[..., 1:-1] / 2
        x = (wide[..., :-2, :] + wide[..., 2:, :]) / 4 + wide[..., 1:-1, :] / 2
    return x
