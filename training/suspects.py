"""Portraits whose age label disagrees with what they look like, and pictures that occur twice.

The judge is a ridge regression on edges and colours. It is far from a good one, and says by how
far; it sees a baby that is labelled 60, not a woman of 30 that is labelled 40.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from training.data import PreparedSet, masked

SIDE, CELL, TURNS, COLOURS = 64, 8, 8, 16
"""Pixels of the portrait, pixels of a cell, directions of edges, pixels of the coloured picture."""
OFFSET_YEARS = 5.0
"""Ages are compared as log(age + 5): a year means more to a child."""
FOLDS = 5
RIDGES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
FEWEST = 200
"""Portraits that a judgement needs."""
WEAKEST = 0.5
"""Correlation with the labels below which the judge is not believed."""
SUSPECT = 3.0
"""Robust standard deviations (1.4826 x the median deviation) between label and looks."""
SAME_LEVELS = 5.0
"""Portraits of one photograph differ by less, in grey levels (root mean square, 16 px)."""


@dataclass(frozen=True)
class Looks:
    """What can be measured of a set's portraits, row by row."""

    features: NDArray[np.float32]
    """(N, F), of edges and colours, each kind centred and of mean square norm 1"""
    thumbnails: NDArray[np.float32]
    """(N, 256), 16 px of grey levels"""
    blank: NDArray[np.bool_]
    """(N,), black all over: nothing was written"""


def looks_of(data: PreparedSet) -> Looks:
    """Looks of every row's portrait."""
    index = np.array([row.index for row in data.rows])
    edges, colours, thumbnails, blank = [], [], [], []
    for start in range(0, len(index), 256):
        chunk = index[start : start + 256]
        pixels = torch.from_numpy(data.portraits[chunk])
        blank.append(pixels.amax((1, 2, 3)) == 0)
        image = masked(pixels, torch.from_numpy(data.kept[chunk])).float()
        edges.append(_either_way(edge_histograms, image))
        colours.append(
            _either_way(lambda x: functional.interpolate(x, COLOURS, mode="area"), image)
        )
        grey = image.mean(1, keepdim=True)
        thumbnails.append(functional.interpolate(grey, 16, mode="area").flatten(1))
    features = np.hstack([_standardised(torch.cat(kind)) for kind in (edges, colours)])
    return Looks(features, torch.cat(thumbnails).numpy(), torch.cat(blank).numpy())


def edge_histograms(image: Tensor) -> Tensor:
    """Histograms of oriented gradients (Dalal and Triggs 2005): (N, 3, R, R) -> (N, 32, 7, 7).

    Levels 0 to 255. Cells of 8 px of a portrait of 64, eight directions each, normalised in
    blocks of two by two cells.
    """
    grey = functional.interpolate(image.mean(1, keepdim=True), SIDE, mode="area")[:, 0] / 255
    right = functional.pad(grey[:, :, 2:] - grey[:, :, :-2], (1, 1))
    down = functional.pad(grey[:, 2:] - grey[:, :-2], (0, 0, 1, 1))
    strength = torch.hypot(right, down).unsqueeze(1)
    turn = (torch.atan2(down, right) / torch.pi % 1.0 * TURNS).unsqueeze(1)
    low = turn.floor()
    share, low = turn - low, low.long()
    votes = torch.zeros(len(image), TURNS, SIDE, SIDE)
    votes.scatter_add_(1, low % TURNS, strength * (1 - share))
    votes.scatter_add_(1, (low + 1) % TURNS, strength * share)
    cells = functional.avg_pool2d(votes, CELL) * CELL**2
    corners = (cells[:, :, y : y + 7, x : x + 7] for y in (0, 1) for x in (0, 1))
    blocks = torch.cat(list(corners), 1)
    return (blocks / (blocks.square().sum(1, keepdim=True) + 0.01).sqrt()).sqrt()


def _either_way(measure: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """Mean measure (N, C, H, W) of an image and its mirror image: its left half, flattened."""
    mean = (measure(image) + measure(image.flip(-1))) / 2
    return mean[..., : (mean.shape[-1] + 1) // 2].flatten(1)


def _standardised(features: Tensor) -> NDArray[np.float32]:
    centred = features - features.mean(0)
    norm = centred.square().sum(1).mean().sqrt().clamp(min=1e-6)
    return (centred / norm).numpy()


@dataclass(frozen=True)
class Judgement:
    """Ages that portraits look, each told by a judge that did not see its label."""

    looks_years: NDArray[np.float64]
    deviation: NDArray[np.float64]
    """How far the label is above the looks, in robust standard deviations of log(age + 5)"""
    correlation: float
    """Of label and looks, as log(age + 5)"""
    error_years: float
    """Median distance of label and looks"""

    @property
    def believed(self) -> bool:
        return self.correlation >= WEAKEST

    @property
    def suspects(self) -> list[int]:
        """Rows whose label is far from their looks, the farthest first."""
        order = np.argsort(-np.abs(self.deviation))
        return [int(i) for i in order if abs(self.deviation[i]) > SUSPECT]


def judge_labels(features: NDArray[np.float32], ages_years: NDArray[np.float64]) -> Judgement:
    """Judges labels (N,) by features (N, F) in five folds, with the ridge that errs least."""
    wanted = np.log(ages_years + OFFSET_YEARS)
    fold = np.random.default_rng(0).permutation(len(wanted)) % FOLDS
    told = np.stack([_told(features, wanted, fold == k) for k in range(FOLDS)], 0)
    looks = told[fold, :, np.arange(len(wanted))]
    best = int(np.argmin(np.square(looks - wanted[:, None]).mean(0)))
    difference = wanted - looks[:, best]
    middle = np.median(difference)
    spread = 1.4826 * np.median(np.abs(difference - middle))
    looks_years = np.clip(np.exp(looks[:, best]) - OFFSET_YEARS, 0, None)
    return Judgement(
        looks_years,
        (difference - middle) / max(spread, 1e-6),
        float(np.corrcoef(looks[:, best], wanted)[0, 1]),
        float(np.median(np.abs(looks_years - ages_years))),
    )


def _told(
    features: NDArray[np.float32], wanted: NDArray[np.float64], hidden: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """What ridge regressions on the rows that are not hidden tell of all: (ridges, N)."""
    seen, mean = features[~hidden].astype(np.float64), wanted[~hidden].mean()
    aim = wanted[~hidden] - mean
    few = len(seen) < seen.shape[1]  # then the products of rows are the smaller matrix
    values, axes = np.linalg.eigh(seen @ seen.T if few else seen.T @ seen)
    aim = axes.T @ (aim if few else seen.T @ aim)
    solved = [axes @ (aim / (np.clip(values, 0, None) + ridge)) for ridge in RIDGES]
    weights = np.stack(solved, 1)
    return mean + (features @ (seen.T @ weights if few else weights)).T


def same_photographs(thumbnails: NDArray[np.float32]) -> list[list[int]]:
    """Groups of rows whose portraits are of one photograph, compressed or cut a little otherwise.

    Only portraits whose brightness rises and falls alike on a grid of 4 x 4 are compared, which
    misses one pair in twenty-five and keeps the time in bounds.
    """
    coarse = thumbnails.reshape(-1, 4, 4, 4, 4).mean((2, 4))
    alike: dict[bytes, list[int]] = defaultdict(list)
    for row, rises in enumerate(np.diff(coarse, axis=2) > 0):
        alike[rises.tobytes()].append(row)
    groups = []
    for rows in alike.values():
        left = np.array(rows)
        while len(left) > 1:
            distance = np.square(thumbnails[left] - thumbnails[left[0]]).mean(1)
            same = distance < SAME_LEVELS**2
            if same.sum() > 1:
                groups.append([int(row) for row in left[same]])
            left = left[~same]
    return sorted(groups)
