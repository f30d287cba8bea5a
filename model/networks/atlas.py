"""Mean faces of each age, and how a portrait changes by them."""

from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from model.networks.departure import Departure, bounded, departure
from model.networks.greying import ungreyed, white_hair
from model.networks.layers import EqualLinear, laid_along, luma, mean_around, resized
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
    beard: Tensor
    """(N, 1, S, S), how far it is shaved, 0 to 1"""
    skin: Tensor
    """(N, 3, S, S), logarithms of the colours under it, with `Atlas.OFFSET`"""
    grey: Tensor
    """(N, 1, S, S), share of it that is hair gone white, 0 to 1"""
    white: Tensor
    """(N, 3, S, S), that hair's colour, 0 to 1"""
    flow: Tensor
    """(N, 2, F, F), what then bends it, in halves of the side"""
    older: Tensor
    """(N,), how much of the way is to older clusters, 0 to 1"""
    warm: Tensor
    """(N, 1, 1, 1), how far skin in shadow is red, 0 to 1; see `warm`"""


class Atlas(nn.Module):
    """Mean faces of each group and cluster, laid onto a portrait (Rowland and Perrett 1995).

    What they say of an age is fixed; what is learned is to read portraits (`Reader`), and which
    clusters a latent asks for. The change is the difference of the target's face and the portrait's
    own, as the group that the portrait shows has it. Clusters are an affine function of w, so that
    a path between two latents is one between two faces, and beyond them their difference grows.
    Only lines come with age and do not go again: where mean faces have them others have none, and
    taken away there they would be bright ones. What lines a portrait has near them fades instead.
    None come along the middle of a turned face, where a nose would have two ridges, and little of
    colours and lines on its near cheek, where the mean face is stretched. White comes to hair as
    lines do to skin: a factor on its colour would leave black hair black. On the way to younger
    white hair gets a colour again, and what is not white keeps its own.

    Faces resist: some stay older than the one that was asked for, others get too young. The reader
    knows by how much (`Reading.shortfall`), and as much more is asked for.

    A difference says little of a face that never was as the mean one: brows that are light already
    fade to nothing, and a beard stays. So what a portrait departs in from the mean face of its own
    age is taken away as well, all of it on the way to younger and a part on that to older. Who may
    have a beard is shaved on the way to an age without: where one may grow and what is seen is as
    dark, the mean face's skin takes its place, in the light that is on the portrait. The less a
    place is like the mean face, the less its colours change as that face's do: a laugh, a hand, a
    fringe. A nose keeps half of its lines: mean faces of small children have hardly any.
    Eyeglasses have no age, but rims lie where brows and folds do; around eyes that are seen through
    them nothing of a portrait's own goes, and no line grows stronger or weaker.
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

    SURENESS = 1.5
    """How much surer of a portrait's age a reading counts than it is: it was taught doubts."""
    SHORT = 0.7
    """Most clusters that are asked for beyond what is wanted."""
    GREYEST = 0.8
    """Most of hair that goes white."""
    HOARY = (0.15, 0.5)
    """How probably a portrait is of an age with white hair for what is white to be so by age, from
    none of it to all: the hair tells too."""
    LEAST, NOSE = 0.3, 0.45
    """Limits of how much weaker lines become, and those of a nose."""
    WORN = (2.0, 0.7)
    """How much surer eyeglasses count as seen than they are, and from which logit on."""
    ANYWHERE = (4.0, 1.2)
    """How much surer a portrait counts as having some than the surest place is, and how much lower
    that logit is in one that has: rims are thin, and would fade in part."""
    PLACES = ("cheeks", "seen", "own", "beards", "mouth", "nose")
    """Buffers that say where in the mean face things are."""

    def __init__(self, latent: int, groups: int, clusters: int) -> None:
        super().__init__()
        self.groups, self.clusters = groups, clusters
        self.register_buffer("faces", torch.zeros(groups * clusters, 5 * self.SIDE**2))
        self.register_buffer("hair_colours", torch.zeros(groups * clusters, 3))
        self.register_buffer("greys", torch.zeros(groups * clusters))
        self.register_buffer("lines", torch.zeros(groups * clusters, self.LINES**2))
        self.register_buffer("fades", torch.zeros(groups * clusters, self.SIDE**2))
        self.register_buffer("bends", torch.zeros(clusters, 2 * self.BENDS**2))
        self.register_buffer("means", torch.zeros(groups * clusters, 3 * self.SIDE**2))
        for place in self.PLACES:
            self.register_buffer(place, torch.zeros(self.SIDE**2))
        self.register_buffer("bare", torch.zeros(groups * clusters))
        self.faces: Tensor
        """(groups clusters, 5 SIDE SIDE): shades, fine and wide, as in `Looks`"""
        self.hair_colours: Tensor
        """(groups clusters, 3): logarithms, beside those of the cluster before"""
        self.greys: Tensor
        """(groups clusters,): share of hair that is white, but not in the cluster before"""
        self.lines: Tensor
        """(groups clusters, LINES LINES): those that the cluster before has not"""
        self.fades: Tensor
        """(groups clusters, SIDE SIDE): how much weaker, likewise, the cluster before has any lines
        there"""
        self.bends: Tensor
        """(clusters, 2 BENDS BENDS): the flow from the mean of all clusters to each"""
        self.means: Tensor
        """(groups clusters, 3 SIDE SIDE): logarithms of the mean faces' own colours"""
        self.cheeks: Tensor
        """(SIDE SIDE): where skin lies open"""
        self.seen: Tensor
        """(SIDE SIDE): where the light on a face is seen, 0 to 1"""
        self.own: Tensor
        """(SIDE SIDE): how much of what is a portrait's own goes, 0 to 1"""
        self.beards: Tensor
        """(SIDE SIDE): 1 where beards grow, 0.5 below where only grey ones are told from shadows"""
        self.mouth: Tensor
        """(SIDE SIDE): where the mouth is and what moves with it, 0 to 1"""
        self.nose: Tensor
        """(SIDE SIDE): where the nose is, 0 to 1"""
        self.bare: Tensor
        """(groups clusters,): 1 for people without beards"""
        ageing = torch.gradient(torch.eye(clusters), dim=0)[0]
        self.register_buffer("ageing", ageing, persistent=False)
        self.ageing: Tensor
        """(clusters, clusters): where each goes as it grows older by one"""
        self.asked = EqualLinear(latent, clusters)

    def looks(self, latent: Tensor, reading: Reading, light: Tensor) -> Looks:
        """What the mean faces say of the way from a portrait's age to the latent's.

        All but lines and flow is S across. The latent is (N, latent), the reading the portrait's,
        and `light` (N, 3, S, S) its smooth intensities, 0 to 1.
        """
        side = light.shape[-1]
        people = (self.SURENESS * reading.people.float()).softmax(1)
        own = people.unflatten(1, (self.groups, self.clusters))
        asked = self.asked(latent).float()
        # Learned, they add up to 1 but roughly; the rest would weigh whole faces.
        asked = asked + (1 - asked.sum(1, keepdim=True)) / self.clusters
        asked = self._further(asked, own.sum(1), reading.shortfall.float())
        way = (own.sum(2, keepdim=True) * asked[:, None] - own).flatten(1)
        older = torch.ones(self.clusters, self.clusters, device=asked.device).tril()
        grown = (own.sum(2, keepdim=True) * (asked @ older)[:, None] - own @ older).flatten(1)
        maps = (way @ self.faces).unflatten(1, (5, self.SIDE, self.SIDE))
        wanted = (way @ self.means).unflatten(1, (3, self.SIDE, self.SIDE))
        shed, gained = grown.clamp(max=0), grown.clamp(min=0)
        fade = (shed @ self.fades).unflatten(1, (1, self.SIDE, self.SIDE))
        contrasts = kept_at_nose(maps[:, 3:] + fade, self._at(self.nose))
        share = self.YOUNGER * older.tril(-1) + self.OLDER * older.T.triu(1)
        share = ((own.sum(1) @ share) * asked).sum(1).clamp(0, 1)
        hair = torch.sigmoid(reading.hair.float())
        found = self._departure(people, reading.place, light, hair)
        gone = share[:, None, None, None] * self._at(self.own) * found.own
        shades = found.alike * bounded(maps[:, :3], wanted + gone - found.apart)
        shaven = people @ (1 - self.bare)
        shaven = shaven * ((people + way) @ self.bare).clamp(0, 1)
        beard = shaven[:, None, None, None] * bearded(self._at(self.beards), found)
        skin = without_lips(found.skin + shades, self._at(self.own), self._at(self.mouth))
        maps = torch.cat([shades, contrasts, gone, beard, skin, found.light], 1)
        maps = resized(laid_along(maps, reading.place), side)
        shades, contrasts, gone, beard, skin, lit = maps.split([3, 2, 3, 1, 3, 3], 1)
        told = unstretched(reading.place)
        at = resized(told, side)
        shades, contrasts = at * shades, at * contrasts.clamp(min=0) + contrasts.clamp(max=0)
        tint, grey = coloured(found.light), luma(skin)
        skin = grey + tint * (skin - grey)
        hair_around, glasses = (
            resized(functional.max_pool2d(x, 3, 1, 1), side)
            for x in (hair, worn(reading.eyeglasses.float()))
        )
        bald = 1 - hair_around
        fine, wide = ((1 - glasses) * contrasts).chunk(2, 1)
        shades = shades - gone * bald * (1 - glasses)
        # Smaller by a pixel: what lies behind a head is not to change with its hair.
        inside = resized(-functional.max_pool2d(-hair, 3, 1, 1), side)
        turns = self.greys == 0
        turned = (shed + gained).clamp(-1, 1) * turns
        shades = shades + inside * (turned @ self.hair_colours)[:, :, None, None]
        least, most = self.HOARY
        before = ((-(shed * ~turns).sum(1) - least) / (most - least)).clamp(0, 1)
        shades = shades + before[:, None, None, None] * ungreyed(light, inside, lit, tint)
        # Mean faces are soft at their rim, and would be a halo.
        head = 1 - behind(light)
        grey = luma(shades)
        shades = head * (grey + tint * (shades - grey))
        grey = inside * (gained @ self.greys).clamp(max=self.GREYEST)[:, None, None, None]
        lines = (gained @ self.lines).unflatten(1, (1, self.LINES, -1))
        lines = lines * on_turned(reading.place, self.LINES)
        lines = laid_along(lines, reading.place) * resized(told, self.LINES)
        lines = lines * (1 - resized(hair, self.LINES))
        flow = (asked - own.sum(1)) @ self.bends
        flow = laid_along(flow.unflatten(1, (2, self.BENDS, self.BENDS)), reading.place)
        # It says how far a place moves; what is wanted is how far what moves to a place has come.
        flow = laid_along(flow, flow)
        # Shaved next to what lies behind a head, skin would glow.
        beard = beard * bald * head
        white = white_hair(lit.exp().clamp(max=1))
        ahead = ((own.sum(1) @ older.T.triu(1)) * asked).sum(1).clamp(0, 1)
        return Looks(
            shades, fine, wide, lines, beard, skin, grey, white, flow, ahead, warm(found.light)
        )

    def _further(self, asked: Tensor, own: Tensor, shortfall: Tensor) -> Tensor:
        """What must be asked for so that a portrait does not fall short of it; all (N, clusters).

        One that is asked for its own age is as old already.
        """
        short = shortfall.clamp(-self.SHORT, self.SHORT) * (1 - own)
        return asked - (asked * short).sum(1, keepdim=True) * (asked @ self.ageing)

    def _departure(self, people: Tensor, place: Tensor, light: Tensor, hair: Tensor) -> Departure:
        """What is a portrait's own, in the mean shape, SIDE across."""
        colours = (resized(light, self.SIDE) + self.OFFSET).clamp(min=self.OFFSET / 2).log()
        seen = torch.cat([colours, resized(hair, self.SIDE)], 1)
        # A place says where in the mean face it lies; this, what portrait lies at one of that.
        colours, hair = laid_along(seen, laid_along(-place, -place)).split([3, 1], 1)
        means = (people @ self.means).unflatten(1, (3, self.SIDE, self.SIDE))
        cheeks, seen = self._at(self.cheeks), self._at(self.seen) * (1 - hair)
        return departure(colours, means, cheeks, seen, self._at(self.mouth))

    def _at(self, places: Tensor) -> Tensor:
        return places.view(self.SIDE, self.SIDE)


def bearded(beards: Tensor, found: Departure) -> Tensor:
    """(N, 1, S, S), 0 to 1: what may be shaved, where beards grow (S, S) as `Atlas.beards` says."""
    grown, hanging = (2 * beards - 1).clamp(min=0), (2 * beards).clamp(max=1)
    return torch.maximum(grown * found.beard, hanging * found.grey_beard)


AROUND = 8 / 64
"""How far around a place of a mouth skin is looked for, in shares of the side."""


def without_lips(skin: Tensor, face: Tensor, mouth: Tensor) -> Tensor:
    """Log colours (N, 3, S, S) of a mean face, at its mouth those of the skin around it.

    `face` and `mouth` (S, S), 0 to 1, say where these are. A beard's edge is not where the mean
    face's lips are: shaved, a laugh would have theirs around its own.
    """
    margin = round(AROUND * skin.shape[-1])
    weight = (face * (1 - mouth))[None, None]
    found = torch.cat([weight * skin, weight.expand_as(skin[:, :1])], 1)
    found = mean_around(found, margin)
    # Where no skin is near, it stays as it is.
    around = (found[:, :3] + 1e-3 * skin) / (found[:, 3:] + 1e-3)
    return skin + mouth * (around - skin)


def kept_at_nose(contrasts: Tensor, nose: Tensor) -> Tensor:
    """Logarithms of the strength of lines, no lower than they may be where a nose (S, S) is."""
    least, most = log(Atlas.LEAST), log(Atlas.NOSE)
    return torch.maximum(contrasts, least + (most - least) * nose)


TURNED = (0.1, 0.2)
"""How much further aside than its cheeks the nose of a head that is hardly turned lies, at most, in
halves of the side, and of one that is surely."""
MIDDLE = (0.07, 0.115)
"""How far from the middle of the mean face, in shares of the side, what stands out on it lies, and
from where on nothing does."""


def on_turned(place: Tensor, side: int) -> Tensor:
    """(N, 1, 1, side), 0 to 1: which lines of the mean face are drawn, by columns, where faces lie
    at places (N, 2, S, S)."""
    size = place.shape[-1]
    across = place[:, 0, 3 * size // 8 : 11 * size // 16].mean(1)
    left, middle, right = (across[:, size * x // 32] for x in (7, 16, 25))
    least, most = TURNED
    turned = (((middle - (left + right) / 2).abs() - least) / (most - least)).clamp(0, 1)
    near, far = MIDDLE
    apart = ((torch.arange(side, device=place.device) + 0.5) / side - 0.5).abs()
    standing = ((far - apart) / (far - near)).clamp(0, 1)
    return 1 - turned[:, None, None, None] * standing


STRETCHED = (0.15, 0.6)
"""How far apart in the mean face, beside how far in the picture, places side by side are at most
where nothing of it is told, and from where on all is."""


def unstretched(place: Tensor) -> Tensor:
    """(N, 1, S, S), 0 to 1: how far places (N, 2, S, S) of a face tell it from its neighbours.

    The near cheek of a turned head is a strip of the mean face, and what lies there, a corner of an
    eye, would be a stroke across it.
    """
    across = 1 + place[:, :1].diff(dim=3) * (place.shape[-1] / 2)
    across = functional.pad(across, (1, 1, 1, 1), mode="replicate")
    across = functional.avg_pool2d(across, (3, 2), 1)
    least, most = STRETCHED
    return ((across - least) / (most - least)).clamp(0, 1)


def worn(eyeglasses: Tensor) -> Tensor:
    """How far logits of eyeglasses (N, 1, S, S) count as seen, 0 to 1."""
    (sure, least), (surer, lower) = Atlas.WORN, Atlas.ANYWHERE
    surest = functional.avg_pool2d(eyeglasses, 3, 1).amax((2, 3), keepdim=True)
    return torch.sigmoid(sure * (eyeglasses - least + lower * torch.sigmoid(surer * surest)))


GROUND = 0.03
"""How far from grey, in light of 0 to 1, what lies behind a head may be."""
FLAT = 5
"""Pixels across that at least are as grey there."""
COLOURED = (0.01, 0.03)
"""Mean distance of a cheek's log colours from their luma up to which a portrait has no colours, and
from which on all of them."""
COLD = 0.1
"""How much bluer than red cheeks are, in logarithms, from which on a portrait is a blue one."""


def coloured(light: Tensor) -> Tensor:
    """(N, 1, 1, 1), 0 to 1: 0 for portraits in black and white, by the log colours (N, 3, S, S) of
    cheeks in their light. These get no colours from mean faces."""
    chroma = (light - luma(light)).abs().mean((1, 2, 3), keepdim=True)
    least, most = COLOURED
    return ((chroma - least) / (most - least)).clamp(0, 1)


def warm(light: Tensor) -> Tensor:
    """(N, 1, 1, 1), 0 to 1: 0 for portraits in black and white or in blue, by the log colours
    (N, 3, S, S) of cheeks in their light."""
    redder = (light[:, :1] - light[:, 2:]).mean((1, 2, 3), keepdim=True)
    return coloured(light) * (1 + redder / COLD).clamp(0, 1)


def behind(light: Tensor) -> Tensor:
    """(N, 1, S, S), 0 to 1: what of pictures (N, 3, S, S), 0 to 1, is grey as behind a head, and
    the pixels around it."""
    ground = 1 - ((light - 0.5).abs().amax(1, keepdim=True) / GROUND).clamp(max=1)
    # Skin in black and white is as grey in places, but along lines.
    ground = -functional.max_pool2d(-ground, FLAT, 1, FLAT // 2)
    return functional.max_pool2d(ground, FLAT + 2, 1, FLAT // 2 + 1)
