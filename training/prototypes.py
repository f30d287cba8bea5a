"""Prototypes: what faces of an age look like on average, and a portrait changed as they say.

The transformation is that of Rowland and Perrett (1995), the contrasts those of Tiddeman, Burt and
Perrett (2001): a portrait's colours change by the ratio of two mean faces, and its lines by the
ratio of how strong lines are in both.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from model.networks.layers import enlarged
from model.networks.overlay import LUMA, Atlas, Overlay, laid_along, reinforced, softened
from training.data import DataError, PortraitSet
from training.metrics import head_turn
from training.shapes import FRONTAL, bending_flow, mean_shapes

OFFSET = 0.05
"""Added to intensities in [0, 1] before their logarithm: noise in shadows is not contrast."""
SPREAD = 0.45
"""Spread of log luma over portraits from which on a mean face says little of a place: hair."""
CHROMA, HAIR_CHROMA = 0.6, 0.4
"""How much of a change of colour, other than of luma, is taken over: lighting differs too, and
amplified, a child's lighter hair would be red."""
BROWS, FOREHEAD = 0.35, 0.75
"""How far above the brows looks and contrasts are the age's, in heights of the brows over the base
of the nose: a fringe is no age, but lines on a forehead are."""
PORTRAITS = 300
"""Most portraits of a cluster, group and source that are looked at."""
SURE, LITTLE = 0.8, 0.02
"""Share of hair from which on a pixel shows its colour, and share of such pixels needed."""


@dataclass(frozen=True)
class Prototypes:
    """Mean faces by age, all in one shape, for a side S.

    `shapes` (clusters, 68, 2) in shares of the side; `looks` (groups, clusters, 3, S, S) logarithms
    of colours beside those of the cheeks; `contrasts` (groups, clusters, 2, S, S) logarithms of the
    strength of fine and of wide lines. `tone` and `relief` (S, S), 0 to 1, say how much of a
    difference of two looks or contrasts is the age's at a place. `hair` (groups, clusters, 3) are
    logarithms of its colours beside those of the cheeks, all 0 for a set that does not say where
    hair is.
    """

    shapes: Tensor
    looks: Tensor
    contrasts: Tensor
    tone: Tensor
    relief: Tensor
    hair: Tensor

    def draw(self, atlas: Atlas, strength: float = 1.0) -> None:
        """Draws the mean faces of an atlas, all differences but of shape times `strength`."""
        faces = torch.cat([self.tone * self.looks, self.relief * self.contrasts], 2)
        faces = enlarged(faces.flatten(0, 1), Atlas.SIDE)
        atlas.faces.copy_(strength * faces.flatten(1))
        atlas.hair_colours.copy_(strength * self.hair.flatten(0, 1))
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
    ) -> Tensor:
        """Portraits (N, 3, S, S) in [-1, 1], bent to the target's shape, with the target's look.

        `landmarks` (N, 68, 2) are those of the portraits as they are bent; clusters `source` and
        `target` and the group are (N,). `strength` multiplies all differences: mean faces are
        smoother than faces, and so are their differences. `hair` (N, 1, S, S), 0 to 1, is bent as
        well.
        """
        side = bent.shape[-1]
        look = self.looks[group, target] - self.looks[group, source]
        relief = self.contrasts[group, target] - self.contrasts[group, source]
        maps = strength * torch.cat([self.tone * look, self.relief * relief], 1)
        mean = self.shapes.mean(0).expand_as(landmarks)
        maps = laid_along(maps, bending_flow(mean, landmarks - mean, side // 2))
        shades = maps[:, :3].exp()
        if hair is not None:
            shade = strength * (self.hair[group, target] - self.hair[group, source])
            shades = shades * (shade[:, :, None, None] * hair).exp()
        fine, wide = maps[:, 3:].exp().clamp(Overlay.LEAST, Overlay.MOST).chunk(2, 1)
        light = (bent + 1) / 2
        smooth, smoother = _bands(light)
        lines = reinforced(smooth - smoother, wide) + reinforced(light - smooth, fine)
        light = (smoother + lines) * shades
        return (2 * light - 1).clamp(-1, 1)


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
    portraits.load_hair()
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
    spreads = [
        cell.spread
        for group in cells
        for found in group
        for cell in found
        if cell.spread is not None
    ]
    variance = torch.stack(spreads).mean(0) if spreads else torch.zeros(side, side, device=device)
    variance = (variance + variance.flip(-1)) / 2
    certain = (SPREAD**2 / (SPREAD**2 + variance)).square()
    look, contrasts, hair = every.split([3, 2, 3], 2)
    return Prototypes(
        shapes,
        _muted(look, CHROMA),
        contrasts,
        certain * _face(shapes.mean(0), BROWS, side),
        certain * _face(shapes.mean(0), FOREHEAD, side),
        _muted(hair, HAIR_CHROMA)[..., 0, 0],
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
        parts = _spaced(torch.tensor(places), PORTRAITS).split(50)
        seen = torch.cat(
            [
                _measured(
                    portraits.portraits(x), landmarks[x.to(device)], mean, portraits.hair_of(x)
                )
                for x in parts
            ]
        )
        luma = (seen[:, :3] * seen.new_tensor(LUMA)[:, None, None]).sum(1)
        weight = float(len(places)) ** portraits.config.source_temper
        cells.append(
            _Cell(source, weight, seen.nanmedian(0).values, luma.var(0) if len(seen) > 1 else None)
        )
    return cells


def _of_clusters(group: list[list[_Cell]]) -> Tensor:
    """What belongs to each cluster: (clusters, 8, S, S), NaN for one without cells.

    The least squares of median = cluster + source over all cells. The sources' parts are drawn to
    0 where nothing tells them from the clusters'.
    """
    cells = [(cluster, cell) for cluster, found in enumerate(group) for cell in found]
    names = sorted({cell.source for _, cell in cells})
    clusters, count = len(group), len(group) + len(names)
    rows = torch.zeros(len(cells), count, dtype=torch.float64)
    for row, (cluster, cell) in zip(rows, cells, strict=True):
        row[cluster] = row[clusters + names.index(cell.source)] = 1
    weights = torch.tensor([cell.weight for _, cell in cells], dtype=torch.float64)
    medians = torch.stack([cell.median for _, cell in cells])
    # A cell without hair says what the others do on average.
    medians = torch.where(medians.isnan(), medians.nanmean(0), medians).nan_to_num()
    faint = torch.zeros(count, dtype=torch.float64)
    faint[clusters:] = 1e-6
    system = rows.T @ (weights[:, None] * rows) + faint.diag()
    solved = torch.linalg.pinv(system, hermitian=True) @ (rows.T * weights)
    parts = torch.einsum("kn,nchw->kchw", solved.to(medians), medians)[:clusters]
    known = torch.tensor([bool(found) for found in group], device=parts.device)
    return torch.where(known[:, None, None, None], parts, torch.nan)


def _completed(groups: list[Tensor]) -> Tensor:
    """(groups, clusters, 8, S, S): clusters that a group lacks lie from its others as elsewhere."""
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
    light = ((face + 1) / 2 + OFFSET).log()
    skin = (light * cheeks).sum((2, 3), keepdim=True) / cheeks.sum()
    light = light - skin
    smooth, smoother = _bands(light)
    luma = light.new_tensor(LUMA)[:, None, None]
    lines = [
        softened((band * luma).sum(1, keepdim=True).square(), 6 * _passes(side)).clamp(min=1e-6)
        for band in (light - smooth, smooth - smoother)
    ]
    colours = torch.zeros_like(skin)
    if hair is not None:
        sure = (hair > SURE).float()
        colour = (((portraits + 1) / 2 + OFFSET).log() * sure).sum((2, 3), keepdim=True)
        colours = torch.where(
            sure.mean((2, 3), keepdim=True) > LITTLE,
            colour / sure.sum((2, 3), keepdim=True).clamp(min=1) - skin,
            torch.nan,
        )
    return torch.cat([smooth, *(line.log() / 2 for line in lines), colours.expand_as(smooth)], 1)


def _muted(colours: Tensor, chroma: float) -> Tensor:
    """Colours (..., 3, H, W) with `chroma` of their distance from their luma."""
    luma = (colours * colours.new_tensor(LUMA)[:, None, None]).sum(-3, keepdim=True)
    return luma + chroma * (colours - luma)


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


def _face(mean: Tensor, forehead: float, side: int) -> Tensor:
    """(S, S), 1 in the face and softly 0 outside.

    It ends above the brows by `forehead` times their height over the nose's base.
    """
    points = mean.cpu().numpy() * side
    brows = points[17:27]
    lifted = brows - [0, forehead * (points[33, 1] - brows[:, 1].mean())]
    picture = Image.new("L", (side, side))
    outline = np.concatenate([points[:17], lifted[::-1]])
    ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    inside = torch.from_numpy(np.array(picture)).float()[None, None]
    return softened(inside, 8 * _passes(side))[0, 0].to(mean.device)
