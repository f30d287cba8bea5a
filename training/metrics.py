"""Figures of pictures and of what is judged in them: pure functions, each named after its value."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image, ImageDraw
from skimage.metrics import structural_similarity

from model.ages import AgeCluster

Floats = NDArray[np.floating]

LUMA = np.array([0.299, 0.587, 0.114])
FRONTAL, TURNED = 0.15, 0.4
"""Head turns (see `head_turn`) below the first are near frontal, from the second on far turned."""

SKIN = ([1, 2, 3, 4, 48, 31, 40, 41], [15, 14, 13, 12, 54, 35, 47, 46], [27, 31, 33, 35])
"""Outlines of both cheeks and the nose, places among the 68 landmarks."""


def judged_clusters(age_years: ArrayLike, clusters: Sequence[AgeCluster]) -> NDArray[np.int64]:
    """The nearest cluster of each age in years: the border lies halfway between two clusters."""
    borders = [
        (younger.high_years + older.low_years) / 2
        for younger, older in itertools.pairwise(clusters)
    ]
    return np.searchsorted(borders, np.asarray(age_years), side="right").astype(np.int64)


def psnr_db(estimate: NDArray[np.generic], truth: NDArray[np.generic]) -> float | None:
    """Peak signal to noise ratio of uint8 arrays of one shape, in dB; None where they are equal."""
    error = np.mean((estimate.astype(np.float64) - truth.astype(np.float64)) ** 2)
    return None if error == 0 else float(10 * np.log10(255.0**2 / error))


def ssim(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> float:
    """Structural similarity of two pictures (R, R, 3), with Wang et al.'s Gaussian window."""
    value: Any = structural_similarity(
        first,
        second,
        channel_axis=2,
        data_range=255,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    return float(value)


def displacement(first: Floats, second: Floats) -> float:
    """Mean distance of two landmark sets (68, 2), in their unit."""
    return float(np.linalg.norm(first - second, axis=1).mean())


def distances(first: Floats, second: Floats) -> NDArray[np.float64]:
    """Euclidean distances of all pairs of (N, K) and (M, K): (N, M)."""
    squares = (first**2).sum(1)[:, None] + (second**2).sum(1) - 2 * first @ second.T
    return np.sqrt(np.maximum(squares, 0))


def head_turn(landmarks: Floats) -> float:
    """How far a head is turned, 0 frontal, 1 with the nose's tip before the corner of an eye.

    Where the tip lies between the outer corners of the eyes, along the line through them.
    """
    right, left, nose = landmarks[36], landmarks[45], landmarks[30]
    line = left - right
    length = float(line @ line)
    return abs(2 * float((nose - right) @ line) / length - 1) if length else 0.0


def skin_luminance(picture: NDArray[np.uint8], landmarks: Floats) -> float:
    """Median luminance, 0 to 255, of both cheeks and the nose of a portrait (R, R, 3).

    Of the area between jaw, eyes and mouth, so that hair, eyes and lips are no part of it.
    `landmarks` (68, 2) in shares of the side; NaN where they are.
    """
    if not np.isfinite(landmarks).all():
        return math.nan
    mask = Image.new("L", picture.shape[1::-1])
    draw = ImageDraw.Draw(mask)
    for outline in SKIN:
        draw.polygon([tuple(point) for point in landmarks[outline] * picture.shape[1::-1]], fill=1)
    inside = np.asarray(mask, bool)
    return float(np.median(picture[inside] @ LUMA)) if inside.any() else math.nan


def sharpness(picture: NDArray[np.uint8]) -> float:
    """Variance of the luminance's Laplacian in the middle half of a picture (R, R, 3).

    The middle alone, since the edge of the mask against grey is sharp in every picture.
    """
    grey = picture.astype(np.float64) @ LUMA
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    quarter = len(picture) // 4
    laplacian = (around - 4 * grey[1:-1, 1:-1])[
        quarter - 1 : 1 - quarter, quarter - 1 : 1 - quarter
    ]
    return float(laplacian.var())


def kernel_distance(real: Floats, generated: Floats) -> float:
    """Unbiased squared MMD of two feature sets (N, K), (M, K) with KID's kernel.

    The kernel is (x.y / K + 1)^3 (Binkowski et al. 2018). Unbiased: equal distributions score
    around 0, on either side.
    """

    def kernel(a: Floats, b: Floats) -> NDArray[np.float64]:
        return (a.astype(np.float64) @ b.T / a.shape[1] + 1) ** 3

    def within(a: Floats) -> float:
        table = kernel(a, a)
        return float((table.sum() - np.trace(table)) / (len(a) * (len(a) - 1)))

    return within(real) + within(generated) - 2 * float(kernel(real, generated).mean())


def standardised(features: Floats, real: Floats) -> Floats:
    """Features (..., K) with each of their K numbers in units of its spread among real ones (N, K).

    So no feature counts for more in a kernel distance because it is large.
    """
    return (features - real.mean(0)) / np.maximum(real.std(0), 1e-6)


def mean_kernel_distance(pairs: Sequence[tuple[Floats, Floats]]) -> float:
    """Kernel distances of (real, generated) sets, weighted by the real ones' sizes."""
    weights = [len(real) for real, _ in pairs]
    return float(np.average([kernel_distance(*pair) for pair in pairs], weights=weights))


def kernel_distance_floor(real: Sequence[Floats], draws: int = 50, seed: int = 0) -> float:
    """The 95th percentile of what chance alone makes of halves of real sets (N, K), N from 4."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        shuffled = [random.permutation(one) for one in real]
        halves = [(one[: len(one) // 2], one[len(one) // 2 :]) for one in shuffled]
        found.append(mean_kernel_distance(halves))
    return float(np.percentile(found, 95))


def interval(values: ArrayLike, draws: int = 1000, seed: int = 0) -> tuple[float, float] | None:
    """The bootstrapped 95 % interval of the mean of values (N,); None below two values."""
    array = np.asarray(values, np.float64)
    if len(array) < 2:
        return None
    random = np.random.default_rng(seed)
    means = array[random.integers(len(array), size=(draws, len(array)))].mean(1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def rank_correlation(values: ArrayLike) -> float:
    """Spearman's correlation of values (N,) with their order: 1 where they only rise.

    0 where all are equal.
    """
    array = np.asarray(values, np.float64)
    _, first, counts = np.unique(array, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[first]
    ranks = ranks - ranks.mean()
    order = np.arange(len(array)) - (len(array) - 1) / 2
    scale = np.sqrt((ranks**2).sum() * (order**2).sum())
    return float((ranks * order).sum() / scale) if scale else 0.0
