"""Prototypes: what faces of an age look like on average, and a portrait changed as they say.

The transformation is that of Rowland and Perrett (1995), the contrasts those of Tiddeman, Burt and
Perrett (2001): a portrait's colours change by the ratio of two mean faces, and its lines by the
ratio of how strong lines are in both.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn import functional

from model.networks.atlas import (
    Atlas,
    bearded,
    behind,
    coloured,
    kept_at_nose,
    on_turned,
    unstretched,
    warm,
    without_lips,
)
from model.networks.departure import bounded, departure
from model.networks.greying import WHITE, greyed, ungreyed, white_hair
from model.networks.layers import LUMA, enlarged, laid_along, luma, resized, softened
from model.networks.overlay import Overlay, dimmed, overexposed, reinforced, ruddiness
from training.data import DataError, PortraitSet
from training.metrics import head_turn
from training.shapes import FRONTAL, bending_flow, mean_shapes

SPREAD = 0.45
"""Spread of log luma over portraits from which on a mean face says little of a place: hair."""
CHROMA, HAIR_CHROMA = 0.6, 0.1
"""How much of a change of colour, other than of luma, is taken over: lighting differs too, and
amplified, a child's lighter hair would be red."""
BROWS, FOREHEAD = 0.35, 0.75
"""How far above the brows looks and contrasts are the age's, in heights of the brows over the base
of the nose: a fringe is no age, but lines on a forehead are."""
PORTRAITS = 300
"""Most portraits of a cluster, group and source that are looked at."""
RIM = 2 / 64
"""How far inside the face, in shares of the side, what is a portrait's own begins to go."""
MOUTH = 0.3
"""Share of a change of luma that is left at the mouth: teeth and open lips are no age, but lips'
red is."""
BEARD_BELOW, BEARD_ABOVE, WINGS = 0.08, 0.01, 0.02
"""Where beards grow: how far below the jaw, in heights of the face below the nose's base, how far
above that base, and how far beside the nose, in shares of the side."""
HANGING = 0.3
"""How far below the jaw they hang; dark ones are not told from its shadow there."""
LIPS = 0.8
"""How much of the mouth's height no beard covers: it hangs over its edge."""
MIMIC = 3 / 64
"""How far around the mouth, in shares of the side, what moves with it lies."""
NOSE_WIDTH, NOSE_BELOW = 1.5, 0.7
"""How wide a nose is beside its base, and how far below that it ends, in shares of the way to the
lip: nostrils and what lies under them are its own."""
BEARDLESS = ("female",)
"""Groups without beards."""
MARGIN = 3 / 128
"""How far around eyes, brows and mouth, in shares of the side, no lines are drawn: they would be a
second lid or lip where the face is not quite found."""
FADING = 10.0
"""How far lines fade where an older face would get some, beside how strong those are."""
ADULT_YEARS = 20
"""Age from which on what skin gets are wrinkles; before, its features grow."""
GREYING = 1.5
"""How much whiter hair grows than it is seen to: many dye theirs."""
SURE, LITTLE = 0.8, 0.02
"""Share of hair from which on a pixel shows its colour, and share of such pixels needed."""


@dataclass(frozen=True)
class Prototypes:
    """Mean faces by age, all in one shape, for a side S.

    `shapes` (clusters, 68, 2) in shares of the side; `looks` (groups, clusters, 3, S, S) logarithms
    of colours beside those of the cheeks, as far as they are the age's; `contrasts` (groups,
    clusters, 2, S, S) logarithms of the strength of fine and of wide lines. `lines` (groups,
    clusters, L, L) are logarithms of luma in fine lines that faces of a cluster have and those of
    the cluster before have not, and `fades` those of how much stronger all lines near them are.
    `tone` and `relief` (S, S), 0 to 1, say how much of a difference of two looks or contrasts is
    the age's at a place. `hair` (groups, clusters, 3) are logarithms of its colours beside those of
    the cheeks, and `greys` (groups, clusters) the share of it that is white but was not in the
    cluster before; all 0 for a set that does not say where hair is. `means` (groups, clusters, 3,
    S, S) are the looks of the mean faces themselves; `cheeks`, `open`, `own`, `beards`,
    `mouth` and `nose` (S, S), 0 to 1, where skin surely lies open, where the light on a face is
    seen, where what is a portrait's own goes, where beards grow, where the mouth is, with what
    moves about it, and where the nose is; `bare` (groups, clusters) is 1 for people without beards.
    """

    shapes: Tensor
    looks: Tensor
    contrasts: Tensor
    lines: Tensor
    fades: Tensor
    tone: Tensor
    relief: Tensor
    hair: Tensor
    greys: Tensor
    means: Tensor
    cheeks: Tensor
    open: Tensor
    own: Tensor
    beards: Tensor
    mouth: Tensor
    nose: Tensor
    bare: Tensor

    def draw(self, atlas: Atlas, strength: float = 1.0, line_strength: float = 1.0) -> None:
        """Draws the mean faces of an atlas: its lines times `line_strength`, all other differences
        but of shape times `strength`."""
        faces = torch.cat([self.tone * self.looks, self.relief * self.contrasts], 2)
        faces = enlarged(faces.flatten(0, 1), Atlas.SIDE)
        atlas.faces.copy_(strength * faces.flatten(1))
        colours = self.hair.diff(dim=1, prepend=self.hair[:, :1])
        atlas.hair_colours.copy_(strength * colours.flatten(0, 1))
        atlas.greys.copy_((strength * GREYING * self.greys).flatten())
        lines = resized(self.lines.flatten(0, 1)[:, None], Atlas.LINES)
        atlas.lines.copy_(line_strength * lines.flatten(1))
        fades = resized(self.fades.flatten(0, 1)[:, None], Atlas.SIDE)
        atlas.fades.copy_(line_strength * fades.flatten(1))
        atlas.means.copy_(enlarged(self.means.flatten(0, 1), Atlas.SIDE).flatten(1))
        places = torch.stack([self.cheeks, self.open, self.own, self.beards, self.mouth, self.nose])
        for name, place in zip(Atlas.PLACES, enlarged(places[None], Atlas.SIDE)[0], strict=True):
            getattr(atlas, name).copy_(place.flatten())
        atlas.bare.copy_(self.bare.flatten())
        moves = self.shapes - self.shapes.mean(0)
        # As seen from where the places of the mean face are, not from where they come to be.
        atlas.bends.copy_(bending_flow(self.shapes - 2 * moves, moves, Atlas.BENDS).flatten(1))

    def taught(
        self,
        bent: Tensor,
        landmarks: Tensor,
        source: Tensor,
        target: Tensor,
        group: Tensor,
        strength: float = 1.0,
        hair: Tensor | None = None,
        line_strength: float = 0.0,
        eyeglasses: Tensor | None = None,
    ) -> Tensor:
        """Portraits (N, 3, S, S) in [-1, 1], bent to the target's shape, with the target's look.

        `landmarks` (N, 68, 2) are those of the portraits as they are bent; clusters `source` and
        `target` and the group are (N,). `strength` multiplies all differences but those of lines,
        `line_strength` these: mean faces are smoother than faces, and so are their differences.
        `hair` and `eyeglasses` (N, 1, S, S), 0 to 1, are bent as well.
        """
        side = bent.shape[-1]
        look = self.looks[group, target] - self.looks[group, source]
        relief = self.contrasts[group, target] - self.contrasts[group, source]
        cluster = torch.arange(self.lines.shape[1], device=source.device)
        older = (cluster > source[:, None]) & (cluster <= target[:, None])
        lines = (self.lines[group] * older[:, :, None, None]).sum(1, keepdim=True)
        younger = (cluster > target[:, None]) & (cluster <= source[:, None])
        fade = (self.fades[group] * younger[:, :, None, None]).sum(1, keepdim=True)
        mean = self.shapes.mean(0).expand_as(landmarks)
        place = bending_flow(mean, landmarks - mean, side // 2)
        room, alike, gone, beard, skin, lit = self._gone(
            bent, landmarks, source, target, group, hair
        )
        shades = alike * bounded(strength * self.tone * look, room)
        relief = strength * self.relief * relief - line_strength * resized(fade, side)
        maps = torch.cat(
            [
                shades,
                kept_at_nose(relief, self.nose),
                line_strength * resized(lines, side) * on_turned(place, side),
                gone,
                beard,
                without_lips(skin + shades, self.own, self.mouth),
                lit,
            ],
            1,
        )
        maps = laid_along(maps, place)
        shades, contrasts, lines, gone, beard, skin, lit = maps.split([3, 2, 1, 3, 1, 3, 3], 1)
        told = resized(unstretched(place), side)
        shades, lines = told * shades, told * lines
        contrasts = told * contrasts.clamp(min=0) + contrasts.clamp(max=0)
        light, grey = (bent + 1) / 2, torch.zeros_like(beard)
        smooth, smoother = _bands(light)
        plain, beard = luma(skin), beard * (1 - behind(light))
        skin = plain + coloured(lit) * (skin - plain)
        if hair is not None:
            greys, colours = self.greys[group], self.hair.diff(dim=1, prepend=self.hair[:, :1])
            turning = (older.float() - younger.float()) * (greys == 0)
            shade = strength * (turning[:, :, None] * colours[group]).sum(1)
            shades = shades + shade[:, :, None, None] * hair
            before = (younger & (greys > 0)).any(1).float()[:, None, None, None]
            shades = shades + before * ungreyed(smooth, hair, lit, coloured(lit))
            grown = strength * GREYING * (greys * older).sum(1)
            grey = hair * grown.clamp(max=Atlas.GREYEST)[:, None, None, None]
            lines, gone, beard = lines * (1 - hair), gone * (1 - hair), beard * (1 - hair)
        if eyeglasses is not None:
            contrasts, gone = contrasts * (1 - eyeglasses), gone * (1 - eyeglasses)
        shades = (shades - gone).exp()
        fine, wide, added = (
            torch.cat([contrasts, lines], 1).exp().clamp(Overlay.LEAST, Overlay.MOST).chunk(3, 1)
        )
        broad = (smoother + reinforced(smooth - smoother, wide)) * shades
        hue = ruddiness((target > source)[:, None, None, None] * warm(lit) * overexposed(smooth))
        broad = broad * (-dimmed(smooth, broad) * hue).exp()
        broad, strands = greyed(broad, grey, white_hair(lit.exp().clamp(max=1)))
        light = broad + shades * reinforced(light - smooth, fine * strands)
        light = light + beard * ((skin.exp() - Atlas.OFFSET).clamp(max=1) - light)
        light = light * added ** (1 - hue)
        return (2 * light - 1).clamp(-1, 1)

    def _gone(
        self,
        bent: Tensor,
        landmarks: Tensor,
        source: Tensor,
        target: Tensor,
        group: Tensor,
        hair: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """How far differences may go (see `bounded`), how far they are the portraits', what is
        their own and goes on their way, what is shaved, the skin under it, and the light on it.

        In the mean shape, (N, 3, S, S) but for how far, and what is shaved, (N, 1, S, S).
        """
        smooth, _ = _bands((bent + 1) / 2)
        colours = (smooth + Atlas.OFFSET).clamp(min=Atlas.OFFSET / 2).log()
        hair = colours[:, :1] * 0 if hair is None else hair
        mean = self.shapes.mean(0).expand_as(landmarks)
        inverse = bending_flow(landmarks, mean - landmarks, bent.shape[-1] // 2)
        colours, hair = laid_along(torch.cat([colours, hair], 1), inverse).split([3, 1], 1)
        seen = self.open * (1 - hair)
        found = departure(colours, self.means[group, source], self.cheeks, seen, self.mouth)
        share = Atlas.YOUNGER * (target < source).float() + Atlas.OLDER * (target > source)
        shaven = (1 - self.bare[group, source]) * self.bare[group, target]
        own = share[:, None, None, None] * self.own * found.own
        beard = shaven[:, None, None, None] * bearded(self.beards, found)
        way = self.means[group, target] - self.means[group, source]
        return way + own - found.apart, found.alike, own, beard, found.skin, found.light


def prototypes(portraits: PortraitSet) -> Prototypes:
    """Prototypes of a set's clusters and groups, at its resolution.

    Of each place the median over frontal faces without glasses of a cluster, group and source, each
    in the mean shape; then what belongs to a cluster and not to a source, made symmetric: sources
    differ in sharpness, light and people, and are not in every cluster alike. A group without
    portraits of a cluster changes as the others do. Raises DataError for a set without landmarks,
    or without such faces in a cluster.
    """
    config, side, device = portraits.config, portraits.config.resolution, portraits.device
    shapes = mean_shapes(portraits).to(device)
    portraits.load_shares()
    cells = [
        [_cells(portraits, shapes.mean(0), c, group) for c in range(len(config.clusters))]
        for group in range(len(config.groups))
    ]
    for cluster, anchor in enumerate(config.age_clusters):
        if not any(group[cluster] for group in cells):
            raise DataError(
                "prototypes, look_weight: no portrait of "
                f"{anchor.name} shows a frontal face without glasses"
            )
    every = _completed([_of_clusters(group) for group in cells])
    every = (every + every.flip(-1)) / 2
    lines = _grown(cells, shapes.mean(0))
    grown_up = [anchor.low_years >= ADULT_YEARS for anchor in config.age_clusters]
    power = softened(lines.square(), 4 * _passes(lines.shape[-1])).clamp(min=1e-12)
    fades = FADING * power.sqrt() * lines.new_tensor(grown_up)[:, None, None]
    certain = (SPREAD**2 / (SPREAD**2 + _spread(cells, "spread"))).square()
    look, contrasts, hair = every.split([3, 2, 3], 2)
    mouth = _mouth(shapes.mean(0), side)
    return Prototypes(
        shapes,
        _muted(look, CHROMA) - (1 - mouth) * luma(look.flatten(0, 1)).unflatten(0, look.shape[:2]),
        contrasts,
        lines,
        fades,
        certain * _face(shapes.mean(0), BROWS, side),
        certain * _face(shapes.mean(0), FOREHEAD, side) * mouth,
        _muted(hair, HAIR_CHROMA)[..., 0, 0],
        _greys(cells, grown_up).to(device),
        look,
        _cheeks(shapes.mean(0), side),
        _open(shapes.mean(0), side),
        _own(shapes.mean(0), side),
        _beards(shapes.mean(0), side),
        _mimic(shapes.mean(0), side),
        _nose(shapes.mean(0), side),
        _bare(grown_up, config.groups).to(device),
    )


@dataclass(frozen=True)
class _Cell:
    """The portraits of one cluster, group and source."""

    source: str
    weight: float
    """How far they are drawn"""
    median: Tensor
    """(8, S, S) of what is measured of each"""
    spread: Tensor | None
    """(S, S), variance of their luma; None of a single one"""
    lines: Tensor
    """(L, L), mean of log luma in fine lines"""
    line_spread: Tensor | None
    """(L, L), its variance over portraits; None of a single one"""
    grey: float
    """Mean share of their hair that is white, if none of it were light; NaN where none is seen"""
    number: int
    """Portraits looked at"""


def _cells(portraits: PortraitSet, mean: Tensor, cluster: int, group: int) -> list[_Cell]:
    landmarks, device = portraits.landmarks, portraits.device
    assert landmarks is not None
    sources: dict[str, list[int]] = {}
    here = torch.nonzero((portraits.clusters == cluster) & (portraits.groups == group)).flatten()
    for place in here.tolist():
        row, shape = portraits.rows[place], landmarks[place].cpu().numpy()
        if not row.glasses and np.isfinite(shape).all() and head_turn(shape) < FRONTAL:
            sources.setdefault(row.source, []).append(place)
    cells = []
    for source, places in sorted(sources.items()):
        seen_of = _spaced(torch.tensor(places), PORTRAITS)
        parts = seen_of.split(50)
        seen = torch.cat(
            [
                _measured(
                    portraits.portraits(x),
                    landmarks[x.to(device)],
                    mean,
                    portraits.share_of("hair", x),
                )
                for x in parts
            ]
        )
        hair = luma(seen[:, 5:, :1, :1]).exp() / WHITE
        fine = torch.cat(
            [
                _lines(portraits.finer_portraits(x, Atlas.LINES), landmarks[x.to(device)], mean)
                for x in parts
            ]
        )
        weight = float(len(places)) ** portraits.config.source_temper
        many = len(seen) > 1
        cells.append(
            _Cell(
                source,
                weight,
                seen.nanmedian(0).values,
                luma(seen[:, :3])[:, 0].var(0) if many else None,
                fine.mean(0),
                fine.var(0) if many else None,
                hair.clamp(max=1).nanmean().item(),
                len(fine),
            )
        )
    return cells


def _shares(group: list[list[_Cell]]) -> Tensor:
    """How far each cell counts for each cluster: (clusters, cells), NaN for one without cells.

    The least squares of cell = cluster + source over all cells. The sources' parts are drawn to 0
    where nothing tells them from the clusters'.
    """
    cells = [(cluster, cell) for cluster, found in enumerate(group) for cell in found]
    names = sorted({cell.source for _, cell in cells})
    clusters, count = len(group), len(group) + len(names)
    rows = torch.zeros(len(cells), count, dtype=torch.float64)
    for row, (cluster, cell) in zip(rows, cells, strict=True):
        row[cluster] = row[clusters + names.index(cell.source)] = 1
    weights = torch.tensor([cell.weight for _, cell in cells], dtype=torch.float64)
    faint = torch.zeros(count, dtype=torch.float64)
    faint[clusters:] = 1e-6
    system = rows.T @ (weights[:, None] * rows) + faint.diag()
    shares = (torch.linalg.pinv(system, hermitian=True) @ (rows.T * weights))[:clusters]
    known = torch.tensor([bool(found) for found in group])
    return torch.where(known[:, None], shares, torch.nan).float()


def _of_clusters(group: list[list[_Cell]]) -> Tensor:
    """What belongs to each cluster: (clusters, 8, S, S), NaN for one without cells."""
    medians = torch.stack([cell.median for found in group for cell in found])
    # A cell without hair says what the others do on average.
    medians = torch.where(medians.isnan(), medians.nanmean(0), medians).nan_to_num()
    return torch.einsum("kn,nchw->kchw", _shares(group).to(medians), medians)


def _greys(groups: list[list[list[_Cell]]], grown_up: list[bool]) -> Tensor:
    """(groups, clusters), share of hair that is white in each cluster of adults and was not in the
    one before, of adults too. Children's hair darkens instead.
    """
    found = []
    for group in groups:
        greys = torch.tensor([cell.grey for cells in group for cell in cells])
        greys = torch.where(greys.isnan(), greys.nanmean(), greys).nan_to_num()
        found.append(_shares(group) @ greys[:, None])
    every = _completed(found)[..., 0]
    before = every.roll(1, 1)
    adult = torch.tensor(grown_up)
    adult = adult & adult.roll(1) & (torch.arange(len(adult)) > 0)
    return ((every - before) / (1 - before).clamp(min=1e-3)).clamp(min=0) * adult


def _grown(groups: list[list[list[_Cell]]], mean: Tensor) -> Tensor:
    """Lines (groups, clusters, L, L) of each cluster that the one before has not, symmetric.

    Drawn to 0 as far as they are no stronger than chance makes them (James and Stein 1961), since
    few portraits of old people show an open face.
    """
    lines, errors = [], []
    for group in groups:
        shares, cells = _shares(group).to(mean), [cell for found in group for cell in found]
        lines.append(torch.einsum("kn,nhw->khw", shares, torch.stack([c.lines for c in cells])))
        errors.append(shares.square() @ shares.new_tensor([1 / cell.number for cell in cells]))
    error = torch.stack(errors)[:, :, None, None] * _spread(groups, "line_spread")
    error = torch.where(error.isnan(), error.nanmean(0), error)
    every = _completed(lines)
    grown = every.diff(dim=1, prepend=every[:, :1])
    # Those of two clusters, halved: a mirrored picture is almost another portrait.
    error = (error + error.roll(1, 1)) / 2
    grown = (grown + grown.flip(-1)) / 2
    passes = 8 * _passes(grown.shape[-1])
    power = softened(grown.square(), passes).clamp(min=1e-12)
    sure = (1 - softened(error, passes) / power).clamp(min=0)
    return grown * sure * _skin(mean, grown.shape[-1])


def _spread(groups: list[list[list[_Cell]]], name: Literal["spread", "line_spread"]) -> Tensor:
    """Mean of all cells' spreads, symmetric; 0 where all are of a single portrait."""
    cells = [cell for group in groups for found in group for cell in found]
    spreads = [spread for cell in cells if (spread := getattr(cell, name)) is not None]
    if not spreads:
        return torch.zeros_like(cells[0].lines if name == "line_spread" else cells[0].median[0])
    mean = torch.stack(spreads).mean(0)
    return (mean + mean.flip(-1)) / 2


def _completed(groups: list[Tensor]) -> Tensor:
    """(groups, clusters, ...): clusters that a group lacks lie from its others as elsewhere."""
    every = torch.stack(groups)
    for group, parts in enumerate(every.clone()):
        lacking = parts.flatten(1).isnan().any(1)
        if lacking.all():
            every[group] = every.nanmean(0)
        elif lacking.any():
            away = every - every[:, ~lacking].mean(1, keepdim=True)
            every[group, lacking] = away[:, lacking].nanmean(0) + parts[~lacking].mean(0)
    return every


def _measured(portraits: Tensor, landmarks: Tensor, mean: Tensor, hair: Tensor | None) -> Tensor:
    """Log colours beside the cheeks' and log strength of fine and wide lines: (N, 8, S, S).

    The last three are the log colours of all hair, the same everywhere; NaN where there is little.
    """
    side = portraits.shape[-1]
    cheeks = _cheeks(mean, side)
    wanted = mean.expand_as(landmarks)
    face = laid_along(portraits, bending_flow(landmarks, wanted - landmarks, side))
    light = ((face + 1) / 2 + Atlas.OFFSET).log()
    skin = (light * cheeks).sum((2, 3), keepdim=True) / cheeks.sum()
    light = light - skin
    smooth, smoother = _bands(light)
    lines = [
        softened(luma(band).square(), 6 * _passes(side)).clamp(min=1e-6)
        for band in (light - smooth, smooth - smoother)
    ]
    colours = torch.zeros_like(skin)
    if hair is not None:
        sure = (hair > SURE).float()
        colour = (((portraits + 1) / 2 + Atlas.OFFSET).log() * sure).sum((2, 3), keepdim=True)
        colours = torch.where(
            sure.mean((2, 3), keepdim=True) > LITTLE,
            colour / sure.sum((2, 3), keepdim=True).clamp(min=1) - skin,
            torch.nan,
        )
    return torch.cat([smooth, *(line.log() / 2 for line in lines), colours.expand_as(smooth)], 1)


def _lines(portraits: Tensor, landmarks: Tensor, mean: Tensor) -> Tensor:
    """Log luma in lines that are finer than what looks keep, (N, L, L)."""
    wanted = mean.expand_as(landmarks)
    flow = bending_flow(landmarks, wanted - landmarks, portraits.shape[-1] // 4)
    face = laid_along(portraits, flow, "bicubic")
    light = luma(((face + 1) / 2 + Atlas.OFFSET).clamp(min=Atlas.OFFSET / 2).log())
    passes = _passes(portraits.shape[-1])
    return (softened(light, passes // 4) - softened(light, 2 * passes))[:, 0]


def _muted(colours: Tensor, chroma: float) -> Tensor:
    """Colours (..., 3, H, W) with `chroma` of their distance from their luma."""
    grey = (colours * colours.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True)
    return grey + chroma * (colours - grey)


def _passes(side: int) -> int:
    """Passes of [1 2 1] / 4 that blur by a 64th of the side, twice as much in variance."""
    return max(1, round((side / 64) ** 2))


def _bands(light: Tensor) -> tuple[Tensor, Tensor]:
    """A picture without its fine lines, and without the wide ones besides."""
    passes = _passes(light.shape[-1])
    smooth = softened(light, 2 * passes)
    return smooth, softened(smooth, 4 * passes)


def _spaced(rows: Tensor, most: int) -> Tensor:
    """At most `most` of the rows, evenly spaced."""
    if len(rows) <= most:
        return rows
    return rows[torch.linspace(0, len(rows) - 1, most).round().long()]


def _cheeks(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 between the eyes' corners and the nose's base, where skin lies open."""
    line = (torch.arange(side, device=mean.device) + 0.5) / side
    down = (line > mean[[39, 42], 1].mean()) & (line < mean[33, 1])
    across = (line > mean[36, 0]) & (line < mean[45, 0])
    return (down[:, None] & across[None]).float()


def _mouth(mean: Tensor, side: int) -> Tensor:
    """(S, S), MOUTH at the mouth and softly 1 outside."""
    inside = _drawn([mean[48:60]], side)
    return 1 - (1 - MOUTH) * softened(inside[None, None], _passes(side))[0, 0]


def _mimic(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 at the mouth and close to it, softly 0 outside."""
    around = round(MIMIC * side)
    inside = functional.max_pool2d(
        _drawn([mean[48:60]], side)[None, None], 2 * around + 1, 1, around
    )
    return softened(inside, 3 * _passes(side))[0, 0]


def _open(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 on the skin above the nose's base, softly 0 elsewhere: below, beards hide it."""
    above = (torch.arange(side, device=mean.device) < int(mean[33, 1] * side)).float()
    return _skin(mean, side) * _face(mean, BROWS, side) * above[:, None]


def _own(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 in the face but at its rim and the mouth, softly 0 there and outside."""
    rim = round(RIM * side)
    inside, mouth = (
        _drawn([outline], side)[None, None] for outline in (_outline(mean, BROWS), mean[48:60])
    )
    inside = -functional.max_pool2d(-inside, 2 * rim + 1, 1, rim)
    mouth = functional.max_pool2d(mouth, 3, 1, 1)
    return (softened(inside, 6 * _passes(side)) * (1 - softened(mouth, _passes(side))))[0, 0]


def _bare(grown_up: list[bool], groups: tuple[str, ...]) -> Tensor:
    """(groups, clusters), 0 for people who may have a beard and 1 for others."""
    bearded = torch.tensor(grown_up).expand(len(groups), -1)
    return 1 - (bearded & ~torch.tensor([[group in BEARDLESS] for group in groups])).float()


def _beards(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 where beards grow, from the nose's base to below the jaw but not on the lips, and
    softly 0.5 further below, where they hang."""
    base = mean[33]
    beside = base.new_tensor([WINGS, 0.0])
    above = torch.stack([mean[35] + beside, base, mean[31] - beside])
    above = above - base.new_tensor([0.0, BEARD_ABOVE])
    grown, hanging = (
        torch.cat([base + (1 + below) * (mean[2:15] - base), above])
        for below in (BEARD_BELOW, HANGING)
    )
    middle = mean[48:60].mean(0)
    lips = middle + (mean[48:60] - middle) * base.new_tensor([1.0, LIPS])
    grown, hanging, mouth = (
        resized(_drawn([outline], 4 * side)[None, None], side) for outline in (grown, hanging, lips)
    )
    return (softened((grown + hanging) / 2, _passes(side)) * (1 - mouth))[0, 0]


def _nose(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 at the nose, from below the eyes into the upper lip, softly 0 around it."""
    bridge, base, lip = mean[28], mean[33], mean[51]
    beside = base.new_tensor([NOSE_WIDTH / 2, 0.0]) * (mean[35, 0] - mean[31, 0])
    wings = base + 0.4 * (bridge - base)
    below = base + NOSE_BELOW * (lip - base)
    right = torch.stack([bridge + 0.6 * beside, wings + beside, below + beside])
    left = torch.stack([below - beside, wings - beside, bridge - 0.6 * beside])
    inside = _drawn([torch.cat([right, left])], side)
    return softened(inside[None, None], 4 * _passes(side))[0, 0]


def _skin(mean: Tensor, side: int) -> Tensor:
    """(S, S), 1 in the face but at its rim, eyes, brows and mouth, softly 0 there and outside."""
    features = _drawn([mean[36:42], mean[42:48], mean[17:22], mean[22:27], mean[48:60]], side)
    hidden = torch.maximum(features, 1 - _drawn([_outline(mean, FOREHEAD)], side))
    margin = round(MARGIN * side)
    hidden = functional.max_pool2d(hidden[None, None], 2 * margin + 1, 1, margin)
    return 1 - softened(hidden, max(1, _passes(side)))[0, 0]


def _outline(mean: Tensor, forehead: float) -> Tensor:
    """Jaw and brows (27, 2), these lifted by `forehead` times their height over the nose's base."""
    brows = mean[17:27].clone()
    brows[:, 1] -= forehead * (mean[33, 1] - brows[:, 1].mean())
    return torch.cat([mean[:17], brows.flip(0)])


def _drawn(outlines: list[Tensor], side: int) -> Tensor:
    """(S, S), 1 inside the outlines (points, 2), in shares of the side, and 0 outside."""
    picture = Image.new("L", (side, side))
    for outline in outlines:
        points = [(float(x) * side, float(y) * side) for x, y in outline]
        ImageDraw.Draw(picture).polygon(points, fill=1, outline=1)
    return torch.from_numpy(np.array(picture)).float().to(outlines[0].device)


def _face(mean: Tensor, forehead: float, side: int) -> Tensor:
    """(S, S), 1 in the face and softly 0 outside.

    It ends above the brows by `forehead` times their height over the nose's base.
    """
    inside = _drawn([_outline(mean, forehead)], side)
    return softened(inside[None, None], 8 * _passes(side))[0, 0]
