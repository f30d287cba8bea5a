"""Where each part of one head went in another: a smooth field of shifts between two portraits."""

import numpy as np

from model.portraits.parse import ParsingMap
from model.portraits.raster import Raster, blurred, resized, sampled

PARTS: tuple[tuple[str, ...], ...] = (
    ("skin", "nose"),
    ("hair",),
    ("left_eye", "right_eye"),
    ("left_brow", "right_brow"),
    ("mouth", "upper_lip", "lower_lip"),
    ("left_ear", "right_ear"),
    ("neck",),
    ("eyeglasses",),
)
"""What is looked for in both heads; the sides of a face count as one."""

LEVELS = (16, 32)
"""Sides at which shifts are sought; finer ones would follow every fault of a parsing map."""
ROUNDS = 12
OUTLINE_WEIGHT = 1.5
TONE_WEIGHT = 0.5


def features(parsed: ParsingMap, kept: Raster, luminance: Raster) -> Raster:
    """What of a portrait is compared, (N, N, 10): its parts, its outline and its local contrast.

    N is the finest of LEVELS; `kept` and `luminance`, 0 to 255, are square.
    """
    side = LEVELS[-1]
    parts = [resized(parsed.share(names), side) for names in PARTS]
    kept, luminance = resized(kept, side), resized(luminance, side)
    around = side / 10
    share = blurred(kept, around) + 0.05
    mean = blurred(luminance * kept, around) / share
    spread = np.sqrt(blurred(np.square(luminance - mean) * kept, around) / share)
    tone = kept * np.clip((luminance - mean) / (spread + 4), -2, 2)
    return np.stack([*parts, OUTLINE_WEIGHT * kept, TONE_WEIGHT * tone], axis=-1)


def register(moving: Raster, fixed: Raster, free: Raster, smoothness: float = 1.0) -> Raster:
    """Shifts (N, N, 2) in sides of the picture: `moving`, looked up there, resembles `fixed`.

    Both are `features`. Demons (Thirion 1998), coarse to fine; `free` (M, M), 0 to 1, says where
    anything may move, and `smoothness` is the blur of the field in pixels of each level.
    """
    shift: Raster = np.zeros((LEVELS[0], LEVELS[0], 2), np.float32)
    for side in LEVELS:
        shift = resized(shift, side) * np.float32(side / shift.shape[0])
        loose = resized(free, side)[..., None]
        one, other = blurred(resized(moving, side), 0.8), blurred(resized(fixed, side), 0.8)
        for _ in range(ROUNDS):
            moved = sampled(one, shift)
            difference = other - moved
            down, right = np.gradient(moved, axis=(0, 1))
            strength = (np.square(down) + np.square(right)).sum(-1)
            strength += 0.3 * np.square(difference).sum(-1) + 1e-3
            force = np.stack([(difference * right).sum(-1), (difference * down).sum(-1)], axis=-1)
            step = blurred(np.clip(force / strength[..., None], -1, 1), 1.5)
            shift = blurred(shift + step, smoothness) * loose
    return shift / np.float32(LEVELS[-1])
