"""Square pictures of floats: resized, blurred, filled in and looked up between their pixels.

All are float32, (N, N) or (N, N, C), the pixel (i, j) centred at (i + 0.5, j + 0.5).
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

Raster = NDArray[np.floating]

SMALLEST_SHARE = 1e-6
ROUNDS = 12


def resized(raster: ArrayLike, side: int) -> Raster:
    """The raster at (side, side): bicubic where it grows, means of what each pixel covers else."""
    values = np.asarray(raster, np.float32)
    if values.shape[0] == side:
        return values
    if values.ndim == 3:
        return np.stack([resized(plane, side) for plane in np.moveaxis(values, 2, 0)], axis=-1)
    grows = side > values.shape[0]
    kernel = Image.Resampling.BICUBIC if grows else Image.Resampling.BOX
    return np.asarray(Image.fromarray(values).resize((side, side), kernel))


def blurred(raster: Raster, sigma: float) -> Raster:
    """The raster under a Gaussian of `sigma` pixels, which ends at three of them; edges go on."""
    weights = _blurring(raster.shape[0], float(sigma))
    rows = (weights @ raster.reshape(len(raster), -1)).reshape(raster.shape)
    return rows @ weights.T if raster.ndim == 2 else np.matmul(weights, rows)


@lru_cache(maxsize=64)
def _blurring(side: int, sigma: float) -> Raster:
    """The matrix (side, side) that blurs a column."""
    reach = max(1, math.ceil(3 * sigma))
    kernel = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    weights = np.zeros((side, side))
    for offset, weight in zip(range(-reach, reach + 1), kernel / kernel.sum(), strict=True):
        np.add.at(
            weights, (np.arange(side), np.clip(np.arange(side) + offset, 0, side - 1)), weight
        )
    return weights.astype(np.float32)


def sampled(raster: Raster, shift: Raster) -> Raster:
    """The raster where each pixel looks `shift` (N, N, 2), (x, y) in pixels, away: bilinear."""
    places = np.arange(raster.shape[0], dtype=np.float32) + np.float32(0.5)
    points = np.stack([places + shift[..., 0], places[:, None] + shift[..., 1]], axis=-1)
    return sampled_at(raster, points)


def sampled_at(raster: Raster, points: Raster) -> Raster:
    """The raster at points (..., 2), (x, y), bilinear: (...) or (..., C). Its edges go on."""
    side = raster.shape[0]
    x, y = np.moveaxis(np.clip(points - 0.5, 0, side - 1), -1, 0)
    left, top = np.minimum(x.astype(int), side - 2), np.minimum(y.astype(int), side - 2)
    right, down = x - left, y - top
    if raster.ndim == 3:
        right, down = right[..., None], down[..., None]
    right, down = right.astype(np.float32), down.astype(np.float32)
    upper = raster[top, left] * (1 - right) + raster[top, left + 1] * right
    lower = raster[top + 1, left] * (1 - right) + raster[top + 1, left + 1] * right
    return upper * (1 - down) + lower * down


def filled(raster: Raster, known: Raster) -> Raster:
    """The raster (N, N, C) where `known` (N, N) is 1, and continued smoothly where it is 0.

    What is unknown comes from ever coarser means of what is known (Gortler et al. 1996), and is
    then smoothed: close to a membrane that is held at the edge.
    """
    result = _pulled(raster, known)
    share = known[..., None]
    for _ in range(ROUNDS):
        result = raster * share + blurred(result, 1.0) * (1 - share)
    return result


def _pulled(raster: Raster, known: Raster) -> Raster:
    side = raster.shape[0]
    share = known[..., None]
    if side == 1:
        return raster
    half = (side + 1) // 2
    odd = 2 * half - side
    weighted = np.pad(raster * share, ((0, odd), (0, odd), (0, 0)))
    total = np.pad(known, (0, odd)).reshape(half, 2, half, 2).sum((1, 3))
    sums = weighted.reshape(half, 2, half, 2, -1).sum((1, 3))
    means = sums / np.maximum(total, SMALLEST_SHARE)[..., None]
    coarse = _pulled(means, np.minimum(total, 1))
    return raster * share + resized(coarse, side) * (1 - share)
