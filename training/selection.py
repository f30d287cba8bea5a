"""The score by which checkpoints of one run are told apart, on portraits held out for that."""

from dataclasses import dataclass
from statistics import harmonic_mean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from training.data import PortraitSet
from training.judge import Judge
from training.metrics import judged_clusters, kernel_distance, ssim, standardised
from training.recipes import AnyRecipe
from training.sheets import levels

PORTRAITS = 20
"""Portraits of each cluster that are rendered, where there are so many."""
LEAST = 4
"""Portraits of each cluster without which there is no score."""
BATCH = 20


@dataclass(frozen=True)
class Score:
    """Three shares, each 1 at best; none can be had by giving up another."""

    faithful: float
    """Mean SSIM of portraits rendered at their own anchor"""
    aged: float
    """Share of pictures at the other anchors that the age judge puts into the wanted cluster"""
    natural: float
    """1 / (1 + mean kernel distance of those to real portraits of the wanted cluster)"""

    @property
    def value(self) -> float:
        """The harmonic mean: low where any of the three is."""
        return harmonic_mean([max(part, 0.0) for part in (self.faithful, self.aged, self.natural)])

    def logged(self) -> dict[str, float]:
        """The score and its parts by the names that a log gives them."""
        parts = {name: getattr(self, name) for name in ("faithful", "aged", "natural")}
        return {"score": self.value, **parts}


class Selection:
    """Scores generators of one recipe on its selection portraits.

    The age judge looks at pictures alone: no gradient comes from it, and it learned from other
    portraits than these.
    """

    def __init__(self, recipe: AnyRecipe, portraits: PortraitSet, judge: Judge) -> None:
        self.recipe, self.portraits, self.judge = recipe, portraits, judge
        config = portraits.config
        self.clusters, self.group = config.age_clusters, len(config.bundle_groups) - 1
        own = portraits.clusters.numpy()
        every = [np.flatnonzero(own == place) for place in range(len(self.clusters))]
        self.rows = torch.from_numpy(np.concatenate([_evenly(rows) for rows in every]))
        real = self.judge(levels(portraits.portraits(torch.arange(len(portraits))))).features
        self._reference = real
        features = standardised(real, real)
        self._real = [features[rows] for rows in every]

    @staticmethod
    def possible(portraits: PortraitSet) -> bool:
        """Whether every cluster holds the portraits that a score needs."""
        counts = torch.bincount(portraits.clusters, minlength=len(portraits.config.clusters))
        return bool(counts.min() >= LEAST)

    @torch.no_grad()
    def score(self, generator: nn.Module) -> Score:
        """Renders the rows at every anchor of the default group and scores the pictures."""
        faithful, years, features = [], [], []
        own = self.portraits.clusters[self.rows].numpy()
        for rows in self.rows.split(BATCH):
            portraits = self.portraits.portraits(rows)
            clusters = self.portraits.clusters[rows].to(portraits.device)
            rebuilt = self.recipe.reconstruction(generator, portraits, clusters)
            pairs = zip(levels(rebuilt), levels(portraits), strict=True)
            faithful += [ssim(*pair) for pair in pairs]
            aged = self.recipe.anchors(generator, portraits, self.group)
            verdict = self.judge(levels(aged.flatten(0, 1)))
            years.append(verdict.age_years.reshape(len(rows), -1))
            features.append(verdict.features.reshape(len(rows), len(self.clusters), -1))
        wanted = np.arange(len(self.clusters))
        others = own[:, None] != wanted
        right = judged_clusters(np.concatenate(years), self.clusters) == wanted
        made = standardised(np.concatenate(features), self._reference)
        distances = [
            kernel_distance(real, made[others[:, place], place])
            for place, real in enumerate(self._real)
        ]
        return Score(
            faithful=float(np.mean([np.mean(np.array(faithful)[own == i]) for i in wanted])),
            aged=float(np.mean([right[others[:, i], i].mean() for i in wanted])),
            natural=float(1 / (1 + max(np.mean(distances), 0.0))),
        )


def _evenly(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    if len(rows) <= PORTRAITS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, PORTRAITS).round().astype(int)]
