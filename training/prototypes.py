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

from model.networks.layers import blur
from model.networks.lifespan import Overlay
from training.data import DataError, PortraitSet
from training.metrics import head_turn
from training.shapes import FRONTAL, bending_flow, mean_shapes

OFFSET = 0.05
"""Added to intensities in [0, 1] before their logarithm: noise in shadows is not contrast."""
SPREAD = 0.45
"""Spread of log luma over portraits from which on a mean face says little of a place: hair."""
CHROMA = 0.6
"""How much of a change of colour, other than of luma, is taken over: lighting differs too."""
BROWS, FOREHEAD = 0.35, 0.75
"""How far above the brows looks and contrasts are the age's, in heights of the brows over the base
of the nose: a fringe is no age, but lines on a forehead are."""
PORTRAITS = 300
"""Most portraits of a cluster, group and source that are looked at."""
LEAST, MOST = 0.3, 1.95
"""Limits of how much weaker or stronger lines become."""
LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Prototypes:
    """Mean faces by age, all in one shape, for a side S.

    `shapes` (clusters, 68, 2) in shares of the side; `looks` (groups, clusters, 3, S, S) logarithms
    of colours beside those of the cheeks; `contrasts` (groups, clusters, 2, S, S) logarithms of the
    strength of fine and of wide lines. `tone` and `relief` (S, S), 0 to 1, say how much of a
    difference of two looks or contrasts is the age's at a place.
    """

    shapes: Tensor
    looks: Tensor
    contrasts: Tensor
    tone: Tensor
    relief: Tensor

    def taught(
        self,
        bent: Tensor,
        landmarks: Tensor,
        source: Tensor,
        target: Tensor,
        group: Tensor,
        strength: float = 1.0,
    ) -> Tensor:
        """Portraits (N, 3, S, S) in [-1, 1], bent to the target's shape, with the target's look.

        `landmarks` (N, 68, 2) are those of the portraits as they are bent; clusters `source` and
        `target` and the group are (N,). `strength` multiplies all differences: mean faces are
        smoother than faces, and so are their differences.
        """
        side = bent.shape[-1]
        look = self.looks[group, target] - self.looks[group, source]
        relief = self.contrasts[group, target] - self.contrasts[group, source]
        maps = strength * torch.cat([self.tone * look, self.relief * relief], 1)
        mean = self.shapes.mean(0).expand_as(landmarks)
        maps = Overlay.bent(maps, bending_flow(mean, landmarks - mean, side // 2))
        shades = maps[:, :3].exp()
        fine, wide = maps[:, 3:].exp().clamp(LEAST, MOST).chunk(2, 1)
        light = (bent + 1) / 2
        smooth, smoother = _bands(light)
        light = (smoother + wide * (smooth - smoother) + fine * (light - smooth)) * shades
        return (2 * light - 1).clamp(-1, 1)


def prototypes(portraits: PortraitSet) -> Prototypes:
    """Prototypes of a set's clusters and groups, at its resolution.

    Of each place the median over frontal faces without glasses of a cluster, group and source, each
    in the mean shape; then the mean over sources by their share of the draws, made symmetric. A
    group without portraits of a cluster has those of the others. Raises DataError for a set without
    landmarks, or without such faces in a cluster.
    """
    shapes = mean_shapes(portraits)
    config, side, device = portraits.config, portraits.config.resolution, portraits.device
    found: list[list[Tensor | None]] = []
    spreads: list[Tensor] = []
    for group in range(len(config.groups)):
        cells = [_medians(portraits, shapes.mean(0), c, group) for c in range(len(config.clusters))]
        found.append([measured for measured, _ in cells])
        spreads += [spread for _, seen in cells for spread in seen]
    for cluster, anchor in enumerate(config.age_clusters):
        known = [x for group in found if (x := group[cluster]) is not None]
        if not known:
            raise DataError(
                f"look_weight: no portrait of {anchor.name} shows a frontal face without glasses"
            )
        for group in found:
            if group[cluster] is None:
                group[cluster] = torch.stack(known).mean(0)
    every = torch.stack([torch.stack([x for x in group if x is not None]) for group in found])
    every = (every + every.flip(-1)) / 2
    variance = torch.stack(spreads).mean(0) if spreads else torch.zeros(side, side, device=device)
    variance = (variance + variance.flip(-1)) / 2
    certain = (SPREAD**2 / (SPREAD**2 + variance)).square()
    look, contrasts = every.split([3, 2], 2)
    luma = (look * look.new_tensor(LUMA)[:, None, None]).sum(2, keepdim=True)
    return Prototypes(
        shapes,
        luma + CHROMA * (look - luma),
        contrasts,
        certain * _face(shapes.mean(0), BROWS, side),
        certain * _face(shapes.mean(0), FOREHEAD, side),
    )


def _medians(
    portraits: PortraitSet, mean: Tensor, cluster: int, group: int
) -> tuple[Tensor | None, list[Tensor]]:
    """What `_measured` says of a cluster and group (5, S, S), None without portraits.

    Besides, of every source, the variance (S, S) of its portraits' luma.
    """
    landmarks, device = portraits.landmarks, portraits.device
    assert landmarks is not None
    sources: dict[str, list[int]] = {}
    cell = torch.nonzero((portraits.clusters == cluster) & (portraits.groups == group)).flatten()
    for place in cell.tolist():
        row, shape = portraits.rows[place], landmarks[place].cpu().numpy()
        if not row.glasses and np.isfinite(shape).all() and head_turn(shape) < FRONTAL:
            sources.setdefault(row.source, []).append(place)
    medians, shares, spreads = [], [], []
    for _, places in sorted(sources.items()):
        parts = _spaced(torch.tensor(places), PORTRAITS).split(50)
        seen = torch.cat(
            [_measured(portraits.portraits(x), landmarks[x.to(device)], mean) for x in parts]
        )
        medians.append(seen.median(0).values)
        shares.append(float(len(places)) ** portraits.config.source_temper)
        if len(seen) > 1:
            luma = seen.new_tensor(LUMA)[:, None, None]
            spreads.append((seen[:, :3] * luma).sum(1).var(0))
    if not medians:
        return None, spreads
    share = torch.tensor(shares, device=device) / sum(shares)
    return (torch.stack(medians) * share[:, None, None, None]).sum(0), spreads


def _measured(portraits: Tensor, landmarks: Tensor, mean: Tensor) -> Tensor:
    """Log colours beside the cheeks' and log strength of fine and wide lines: (N, 5, S, S)."""
    side = portraits.shape[-1]
    cheeks = _cheeks(mean, side)
    wanted = mean.expand_as(landmarks)
    face = Overlay.bent(portraits, bending_flow(landmarks, wanted - landmarks, side))
    light = ((face + 1) / 2 + OFFSET).log()
    light = light - (light * cheeks).sum((2, 3), keepdim=True) / cheeks.sum()
    smooth, smoother = _bands(light)
    luma = light.new_tensor(LUMA)[:, None, None]
    lines = [
        _blurred((band * luma).sum(1, keepdim=True).square(), 6 * _passes(side)).clamp(min=1e-6)
        for band in (light - smooth, smooth - smoother)
    ]
    return torch.cat([smooth, *(line.log() / 2 for line in lines)], 1)


def _passes(side: int) -> int:
    """Passes of [1 2 1] / 4 that blur by a 64th of the side, twice as much in variance."""
    return max(1, round((side / 64) ** 2))


def _bands(light: Tensor) -> tuple[Tensor, Tensor]:
    """A picture without its fine lines, and without the wide ones besides."""
    passes = _passes(light.shape[-1])
    smooth = _blurred(light, 2 * passes)
    return smooth, _blurred(smooth, 4 * passes)


def _blurred(x: Tensor, passes: int) -> Tensor:
    for _ in range(passes):
        x = blur(x)
    return x


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
    return _blurred(inside, 8 * _passes(side))[0, 0].to(mean.device)
