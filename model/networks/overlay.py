"""How a generator changes a portrait instead of drawing one: a flow, mean faces, and a mask."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.atlas import Atlas, behind
from model.networks.greying import NOISE, greyed
from model.networks.layers import (
    EqualConv2d,
    constant,
    enlarged,
    laid_along,
    luma,
    resized,
    shrunk,
    softened,
)
from model.networks.reader import Reading

BRIGHT_SIDES = 0.5
"""How much stronger the bright sides of lines grow beside their dark ones: highlights would become
white marks, wrinkles are dark."""
STRONG = 0.09
"""Luma of a line, of 0 to 1, from which on it grows less than half as much stronger as a faint one:
nostrils and rims would become black marks."""
OVEREXPOSED = (0.75, 0.95)
"""Luma from which on light has lost some, and all, of its colour."""
RUDDY = (0.36, -0.12, -0.48)
"""How much less, in shares of the logarithm, red, green and blue fall than the luma of skin that
was overexposed: it would turn grey."""


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

    LEAST, MOST = Atlas.LEAST, 1.95
    """Limits of how much weaker or stronger an atlas makes lines, and of what those it adds do."""
    DARK = 0.1
    """Added to light (0 to 2) before what is drawn over an atlas is taken as a factor on it."""
    RELIT, RELIT_OLDER = 0.12, 0.2
    """How far that factor is from 1 at most: more is a grey shade, or teeth that are dark; on the
    way to an older age folds are."""
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
        under, flow, most, hue = self._bent(features, portrait, drawn.shape[-1])
        side = portrait.shape[-1]
        if self.to_gain is not None:
            gain = torch.tanh(self.to_gain(features.fine))
            if self.atlas is not None:
                gain = functional.leaky_relu(gain, self.SMOOTHING)
            gain = 1 + gain
            smooth, detail = self._parted(under, drawn.shape[-1])
            gain = enlarged(gain, side)
            plain = self.atlas is None
            detail = gain * detail if plain else 2 * reinforced(detail / 2, gain)
            under = enlarged(smooth, side) + detail
        lain = shrunk(under, drawn.shape[-1])
        change = torch.sigmoid(self.to_mask(features.fine)) * (drawn - lain)
        if self.atlas is not None:
            relit = self._softened(luma(change)) / self._softened(luma(lain) + 1 + self.DARK)
            # Behind a head it would be a halo.
            relit = most * torch.tanh(relit / most) * (1 - behind((lain + 1) / 2))
            relit = 1 + relit
            # Overexposed skin that it darkens is red there, not grey.
            relit = relit * (-relit.clamp(max=1).log() * hue).exp()
            return (under + 1) * enlarged(relit, side) - 1, under, flow
        return under + enlarged(self._softened(change), side), under, flow

    def _softened(self, x: Tensor) -> Tensor:
        return softened(x, self.softness) if self.softness else x

    def _bent(
        self, features: Features, portrait: Tensor, side: int
    ) -> tuple[Tensor, Tensor, Tensor | float, Tensor | float]:
        """The portrait with the shape, and where there is an atlas the look, of the target; what
        bends it; how far it may be lit otherwise, (N, 1, 1, 1); and how much less each of its
        colours falls where it gets darker, (N, 3, side, side), as in `ruddiness`."""
        if self.flow is not None:
            flow = self.flow(features.coarse)
            return laid_along(portrait, flow, "bicubic"), flow, self.RELIT, 0.0
        assert self.atlas is not None
        assert features.reading is not None
        smooth, detail = self._parted(portrait, side)
        light = (smooth + 1) / 2
        looks = self.atlas.looks(features.latent, features.reading, light)
        lightest = softened(light, self.WIDE)
        fine, wide = (
            lines.exp().clamp(self.LEAST, self.MOST) for lines in (looks.fine, looks.wide)
        )
        shades, across, shown = looks.shades.exp(), portrait.shape[-1], light
        light = (lightest + reinforced(light - lightest, wide)) * shades
        older = looks.older[:, None, None, None]
        pale = older * looks.warm * overexposed(shown)
        hue = ruddiness(pale)
        light = light * (-dimmed(shown, light) * hue).exp()
        light, strands = greyed(light, looks.grey, looks.white)
        smooth = 2 * light - 1
        stronger = reinforced(detail / 2, enlarged(fine * strands, across))
        detail = 2 * enlarged(shades, across) * stronger
        lines = resized(looks.lines, across).exp().clamp(self.LEAST, self.MOST)
        changed = enlarged(smooth, across) + detail
        skin = enlarged(2 * (looks.skin.exp() - self.atlas.OFFSET).clamp(max=1) - 1, across)
        changed = changed + enlarged(looks.beard, across) * (skin - changed)
        changed = (changed + 1) * lines ** (1 - enlarged(hue, across)) - 1
        most = self.RELIT + (self.RELIT_OLDER - self.RELIT) * older
        hue = ruddiness(laid_along(pale, looks.flow))
        return laid_along(changed, looks.flow, "bicubic"), looks.flow, most, hue

    def _parted(self, picture: Tensor, side: int) -> tuple[Tensor, Tensor]:
        """What of a picture (N, 3, R, R) is coarse, (N, 3, side, side), and its finer detail."""
        smooth = softened(shrunk(picture, side), self.FINE)
        return smooth, picture - enlarged(smooth, picture.shape[-1])


def reinforced(lines: Tensor, times: Tensor) -> Tensor:
    """Lines (N, 3, S, S) of light of 0 to 1 made stronger or weaker.

    Their colour grows no stronger: it is noise.
    """
    grey, weaker = luma(lines), times.clamp(max=1)
    stronger = (times - weaker) / (1 + (grey / STRONG).square())
    times = weaker + torch.where(grey > 0, BRIGHT_SIDES * stronger, stronger)
    return times * grey + weaker * (lines - grey)


def overexposed(light: Tensor) -> Tensor:
    """(N, 1, S, S), 0 to 1, how much of its colour light (N, 3, S, S), 0 to 1, has lost."""
    least, most = OVEREXPOSED
    return ((luma(light) - least) / (most - least)).clamp(0, 1)


def ruddiness(lost: Tensor) -> Tensor:
    """(N, 3, S, S), how much less each colour falls than the luma, in shares of the logarithm,
    where light has lost (N, 1, S, S) of it."""
    return lost * constant(RUDDY, lost)[:, None, None]


def dimmed(before: Tensor, after: Tensor) -> Tensor:
    """(N, 1, S, S), the logarithm of how much darker light (N, 3, S, S) got; 0 where brighter."""
    before, after = (luma(light).clamp(min=NOISE) for light in (before, after))
    return (after / before).clamp(max=1).log()
