"""What teaches a `Reader`: labelled portraits in random views, and how far it misreads them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor
from torch.nn import functional

from model.networks.layers import blur
from model.networks.reader import Reader, Reading
from training.data import SHARES
from training.draws import Draws
from training.shapes import bending_flow

DROPPED = 0.5
"""Share of the numbers that people are told by left out of a view."""
PLACE_WEIGHT = 1500.0
"""Mean squares of places are this much smaller than the other losses."""
HIDDEN = 0.4
"""Largest side of what is hidden of a view, in shares of its own."""
NEIGHBOUR, STRANGER = 0.1, 0.04
"""How far a person passes for one of each neighbouring cluster, and for one of another group. A
reader taught that each is of one cluster alone learns its few thousand portraits by heart."""


@dataclass(frozen=True)
class Lesson:
    """Labelled portraits."""

    image: Tensor
    """(N, 3, R, R) in [-1, 1]"""
    landmarks: Tensor
    """(N, 68, 2) in shares of the side, NaN where they are not known"""
    people: Tensor
    """(N, people) how far each passes for each, 1 in all"""
    hair: Tensor | None = None
    """(N, 1, R, R) share of hair, 0 to 1, where it is known"""
    eyeglasses: Tensor | None = None
    """(N, 1, R, R) share of eyeglasses, likewise"""

    def viewed(self, draws: Draws) -> "Lesson":
        """Each portrait turned, moved and enlarged a little, lit otherwise, softer or noisy, and a
        part of it hidden.

        Light and colour differ much more than in the portraits, so that skin as dark as that of few
        of them is read as well.
        """

        def uniform(reach: float, *shape: int) -> Tensor:
            return (2 * draws.uniform(*(shape or (1, 1, 1))) - 1) * reach

        shares = {name: getattr(self, name) for name in SHARES}
        known = {name: share for name, share in shares.items() if share is not None}
        picture = torch.cat([self.image, *known.values()], 1)
        angle, scale = uniform(0.12, 1)[:, 0], 1 + uniform(0.06, 1)[:, 0]
        across, down = torch.cos(angle) * scale, torch.sin(angle) * scale
        turn = torch.stack([across, -down, down, across], 1).unflatten(1, (2, 2))
        moved = uniform(0.06, 2)
        grid = functional.affine_grid(
            torch.cat([turn, moved[:, :, None]], 2), list(picture.shape), align_corners=False
        )
        picture = functional.grid_sample(picture, grid, padding_mode="border", align_corners=False)
        # The grid says where pixels come from; landmarks go the other way.
        places = 2 * self.landmarks - 1 - moved[:, None]
        places = (places @ (turn / scale.square()[:, None, None]) + 1) / 2
        light = ((picture[:, :3] + 1) / 2).clamp(1e-3, 1)
        light = light ** torch.exp(uniform(0.35)) * torch.exp(
            uniform(0.25) + uniform(0.08, 3, 1, 1)
        )
        grey = light.mean(1, keepdim=True)
        light = grey + (light - grey) * (1 + uniform(0.3))
        middle = light.mean((1, 2, 3), keepdim=True)
        light = middle + (light - middle) * (1 + uniform(0.2))
        keen = uniform(0.8)
        light = light + (light - blur(light)) * torch.where(keen > 0, keen / 2, keen)
        light = light + draws.normal(*light.shape[1:]) * uniform(0.03).abs()
        light = _hidden(light, draws)
        seen = {name: picture[:, 3 + i : 4 + i] for i, name in enumerate(known)}
        return replace(self, image=2 * light.clamp(0, 1) - 1, landmarks=places, **seen)


@cache
def alike(groups: int, clusters: int, device: torch.device) -> Tensor:
    """How far one of each group and cluster passes for each: (people, people), rows add up to 1.

    People count clusters first. Ages are no classes: neighbours pass for each other (Geng 2016).
    """
    places = torch.arange(clusters)
    near = NEIGHBOUR * ((places[:, None] - places).abs() == 1).float()
    near += (1 - near.sum(1)).diag()
    others = STRANGER / max(groups - 1, 1)
    same = torch.full((groups, groups), others).fill_diagonal_(1 - others * (groups - 1))
    return torch.kron(same, near).to(device)


def _hidden(light: Tensor, draws: Draws) -> Tensor:
    """Pictures (N, 3, S, S) with a rectangle of one colour each (Zhong et al. 2020)."""
    line = (torch.arange(light.shape[-1], device=light.device) + 0.5) / light.shape[-1]
    middle, half = draws.uniform(2, 1), HIDDEN / 2 * draws.uniform(2, 1)
    across, down = ((line - middle).abs() < half).unbind(1)
    hidden = (down[:, :, None] & across[:, None])[:, None]
    return torch.where(hidden, draws.uniform(3, 1, 1), light)


def misread(
    reader: Reader, lesson: Lesson, mean: Tensor, draws: Draws
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """What a reader loses on a lesson's portraits, SIDE across, and the parts of it.

    `mean` (68, 2) are the landmarks of the mean face. `place_error` is the share of the places'
    mean square that is missed.
    """
    known = lesson.landmarks.isfinite().all(dim=(1, 2))
    places = torch.where(known[:, None, None], lesson.landmarks, mean)
    kept = (draws.uniform(reader.pooled) >= DROPPED) / (1 - DROPPED)
    reading: Reading = reader(lesson.image, kept)
    wanted = bending_flow(mean.expand_as(places), places - mean, reading.place.shape[-1])
    missed = (reading.place.float() - wanted).square().mean((1, 2, 3)) * known
    missed = missed.sum() / known.sum().clamp(min=1)
    parts = {
        "place_error": missed / wanted.square().mean().clamp(min=1e-8),
        "shown": functional.kl_div(
            reading.people.float().log_softmax(1), lesson.people, reduction="batchmean"
        ),
    }
    loss = PLACE_WEIGHT * missed + parts["shown"]
    for name in SHARES:
        share, found = getattr(lesson, name), getattr(reading, name).float()
        if share is not None:
            parts[name] = functional.binary_cross_entropy_with_logits(
                found, functional.adaptive_avg_pool2d(share, found.shape[-1])
            )
            loss = loss + parts[name]
    return loss, parts
