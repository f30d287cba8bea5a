"""How a generator changes a portrait instead of drawing one: a flow, mean faces, and a mask."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.age_encoder import AgeEncoder
from model.networks.layers import EqualConv2d, EqualLinear


class Features(NamedTuple):
    """What a decoder knows of a portrait and its target; S is the side of what it draws."""

    latent: Tensor
    """(N, latent), w of the target"""
    coarse: Tensor
    """(N, 4 width, S/4, S/4), styled"""
    fine: Tensor
    """(N, width, S, S), styled"""


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
    """How a portrait's light changes at each place, as logarithms."""

    shades: Tensor
    """(N, 3, S, S), of colours"""
    fine: Tensor
    """(N, 1, S, S), of the strength of fine lines"""
    wide: Tensor
    """(N, 1, S, S), of the strength of wide lines"""


class Atlas(nn.Module):
    """Mean faces of each group and cluster, laid onto a portrait (Rowland and Perrett 1995).

    What they say of an age is fixed; what is learned is where a portrait's places lie in the mean
    face, where its hair is, whom it shows, and which clusters a latent asks for. The change is the
    difference of the target's face and the portrait's own, as the group that the portrait shows
    has it. Clusters are an affine function of w, so that a path between two latents is one between
    two faces, and beyond them their difference grows.
    """

    SIDE = 64
    """Pixels of the mean faces across."""

    def __init__(self, width: int, latent: int, groups: int, clusters: int) -> None:
        super().__init__()
        self.groups, self.clusters = groups, clusters
        self.register_buffer("faces", torch.zeros(groups * clusters, 5 * self.SIDE**2))
        self.register_buffer("hair_colours", torch.zeros(groups * clusters, 3))
        self.faces: Tensor
        """(groups clusters, 5 SIDE SIDE): logarithms as in `Looks`, shades, fine and wide"""
        self.hair_colours: Tensor
        """(groups clusters, 3)"""
        self.place = Flow(4 * width)
        self.hair_near = EqualConv2d(width, width, 3, padding=1)
        self.hair_last = EqualConv2d(width, 1, 1)
        self.person = AgeEncoder(width, groups * clusters)
        self.asked = EqualLinear(latent, clusters)

    def hair(self, fine: Tensor) -> Tensor:
        """Logits (N, 1, S, S) of hair in the picture with features `fine`."""
        return self.hair_last(functional.leaky_relu(self.hair_near(fine), 0.2))

    def looks(self, features: Features, portrait: Tensor) -> Looks:
        """What the mean faces say of the way from a portrait's age to the latent's.

        The portrait is (N, 3, S, S), as it came.
        """
        own = self.person(portrait).float().softmax(1)
        own = own.unflatten(1, (self.groups, self.clusters))
        way = own.sum(2, keepdim=True) * self.asked(features.latent).float()[:, None] - own
        way = way.flatten(1)
        maps = (way @ self.faces).unflatten(1, (5, self.SIDE, self.SIDE))
        maps = enlarged(laid_along(maps, self.place(features.coarse)), features.fine.shape[-1])
        colours = way @ self.hair_colours
        hair = torch.sigmoid(self.hair(features.fine).float())
        shades, fine, wide = maps.split([3, 1, 1], 1)
        return Looks(shades + hair * colours[:, :, None, None], fine, wide)


class Overlay(nn.Module):
    """Lays what is drawn over the portrait, bent: m drawn + (1 - m) bent portrait.

    The mask m in (0, 1) says where the bent portrait does not do (the attention of Pumarola et al.
    2018); it starts at one half. The flow comes from coarse features and so is smooth. Where the
    portrait is larger than what is drawn, their difference is enlarged, and detail that is too fine
    to be drawn stays.

    With a `softness` the difference m (drawn - bent portrait) is blurred by as many passes of
    [1 2 1] / 4 at the size drawn, and all finer detail is the bent portrait's, times a gain in
    (0, 2) that starts at 1: skin may be smoothed and lines deepened, but none are drawn.

    With an `atlas` the bent portrait first changes as the mean faces say, and what is drawn is laid
    over that.

    Features, drawn (N, 3, S, S) and portrait (N, 3, R, R) in [-1, 1] -> image, what was drawn over,
    both (N, 3, R, R), and the flow (N, 2, S, S); R is S or a multiple of it.
    """

    LEAST, MOST = 0.3, 1.95
    """Limits of how much weaker or stronger an atlas makes lines."""
    WIDE = 4
    """Passes of the blur that wide lines are beside fine ones."""

    def __init__(
        self, width: int, latent: int, softness: int = 0, prototypes: tuple[int, int] = (0, 0)
    ) -> None:
        super().__init__()
        self.softness = softness
        self.flow = Flow(4 * width)
        self.to_mask = EqualConv2d(width, 1, 1)
        nn.init.zeros_(self.to_mask.weight)
        self.to_gain = EqualConv2d(width, 1, 1) if softness else None
        if self.to_gain is not None:
            nn.init.zeros_(self.to_gain.weight)
        self.atlas = Atlas(width, latent, *prototypes) if prototypes[0] else None

    def forward(
        self, features: Features, drawn: Tensor, portrait: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        flow = self.flow(features.coarse)
        under = laid_along(portrait, flow)
        side = portrait.shape[-1]
        if self.to_gain is not None:
            gain = 1 + torch.tanh(self.to_gain(features.fine))
            smooth = softened(_shrunk(under, drawn.shape[-1]), self.softness)
            detail = under - enlarged(smooth, side)
            if self.atlas is not None:
                looks = self.atlas.looks(features, _shrunk(portrait, drawn.shape[-1]))
                shades = looks.shades.exp()
                light = (smooth + 1) / 2
                lightest = softened(light, self.WIDE)
                wide = looks.wide.exp().clamp(self.LEAST, self.MOST)
                fine = looks.fine.exp().clamp(self.LEAST, self.MOST)
                smooth = 2 * (lightest + wide * (light - lightest)) * shades - 1
                gain = gain * fine * shades
            under = enlarged(smooth, side) + enlarged(gain, side) * detail
        change = torch.sigmoid(self.to_mask(features.fine)) * (
            drawn - _shrunk(under, drawn.shape[-1])
        )
        if self.softness:
            change = softened(change, self.softness)
        return under + enlarged(change, side), under, flow


def laid_along(picture: Tensor, flow: Tensor) -> Tensor:
    """Picture (N, C, R, R), every pixel taken from where flow (N, 2, S, S) says: (N, C, R, R)."""
    side = picture.shape[-1]
    line = (torch.arange(side, device=flow.device) * 2 + 1) / side - 1
    across, down = line.expand(side, side), line[:, None].expand(side, side)
    moved = enlarged(flow.float(), side).permute(0, 2, 3, 1)
    places = moved + torch.stack([across, down], -1)
    return functional.grid_sample(
        picture.float(), places, padding_mode="border", align_corners=False
    )


def enlarged(x: Tensor, side: int) -> Tensor:
    """(N, C, S, S) -> (N, C, side, side), linear between pixels."""
    if x.shape[-1] == side:
        return x
    return functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)


def softened(x: Tensor, passes: int) -> Tensor:
    """Separable [1 2 1] / 4 over the last two axes, edges replicated; in the precision of x."""
    for _ in range(passes):
        wide = functional.pad(x, (1, 1, 1, 1), "replicate")
        wide = (wide[..., :-2] + wide[..., 2:]) / 4 + wide[..., 1:-1] / 2
        x = (wide[..., :-2, :] + wide[..., 2:, :]) / 4 + wide[..., 1:-1, :] / 2
    return x


def _shrunk(x: Tensor, side: int) -> Tensor:
    times = x.shape[-1] // side
    return functional.avg_pool2d(x, times) if times > 1 else x
