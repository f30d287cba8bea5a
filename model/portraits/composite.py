"""An aged head into its photo, at the photo's own resolution.

A model's picture is small, and holds nothing of its surroundings. So the photo is not covered by
it, but changed as far as the picture differs from the portrait that it was made of:

1. The photo is bent until its head has the outline and the features of the new one
   (`registration`); what the old head covered and the new one does not is filled from around it.
2. Both heads are set before the same background, at the picture's resolution. Their difference,
   with skin in the colour that it has in the photo, is what the age changes.
3. That difference goes onto the bent photo, which keeps all finer detail: where the heads agree
   all of it, where they do not little, and grain like the photo's in its place.

Nothing changes where `blending` is 0: outside both heads but for a narrow edge, in hats, and at
the portrait's border.
"""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from model.portraits.align import Alignment, crop
from model.portraits.parse import BACKGROUND, Parser, ParsingMap
from model.portraits.raster import Raster, blurred, filled, resized, sampled, sampled_at
from model.portraits.registration import features, register

BORDER = 1 / 12
"""Side of the portrait over which the blend fades out before its border."""
EDGE = 1 / 24
"""Sides of the portrait that the blend reaches beyond the heads, for wisps of hair."""
DRAWN = 4, 12
"""Levels away from the background from which on something is drawn, and is surely a head."""
INNER = 1 / 43
"""Sides of a picture from its background beyond which all is head, whatever a parser says."""
IN_FRONT = "hat"
"""Never covered by a head that a model makes without it."""
SKIN = ("skin", "nose", "neck", "left_ear", "right_ear")
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)

NOISE = 9.0
"""Variance, in square levels, below which two pictures say nothing about each other."""
LEAST_DETAIL = 0.55
MOST_GRAIN = 6.0
PLANES_PX = 512
CELLS = 48
STRIP_PX = 1 << 18
"""Photo pixels that are worked on at once, which bounds the memory of large ones."""


def blending(old: Raster, new: Raster, front: Raster | None = None) -> Raster:
    """How much of each portrait pixel (S, S) the composite may change, 0 to 1.

    `old`, `new` and `front` (S, S), 0 to 1, are the head there was, the one to come, and what lies
    before both. It is 1 in either head, 0 beyond EDGE of them and at the portrait's border.
    """
    side = old.shape[0]
    reach = max(2, int(EDGE * side))
    heads = np.maximum(old, new) > 1 / 32
    grown = resized(_grown(heads, reach // 2).astype(np.float32), side)
    # The blur reaches as far as half of the edge that is left.
    soft = blurred(grown, reach / 2 / 3)
    soft[_grown(heads, reach) == 0] = 0
    alpha = np.where(heads, 1, _smooth(1.2 * soft))
    if front is not None:
        alpha = alpha * (1 - _ramp(front, 0.3, 0.7))
    centres = np.arange(side, dtype=np.float32) + 0.5
    fade = _smooth((np.minimum(centres, side - centres) - 1) / (BORDER * side))
    return (alpha * fade[:, None] * fade).astype(np.float32)


@dataclass(frozen=True, eq=False)
class _Layers:
    """What becomes of a photo, on the place's grid (S, S).

    The result is `base` and `detail` times the photo looked up `shift` away, by `alpha`.
    """

    alpha: Raster
    base: Raster
    detail: Raster
    shift: Raster


class Place:
    """Where a head lies in a photo, with all that does not depend on the head to be set there.

    `photo` (H, W, 3) is never written to. `alignment` has S pixels a side. `old` (S, S) is how
    much of each the head covers. Several threads may share one.
    """

    def __init__(
        self,
        photo: NDArray[np.uint8],
        alignment: Alignment,
        parsed: ParsingMap,
        removed: Sequence[str],
        background: int = BACKGROUND,
    ) -> None:
        side = alignment.resolution
        self.photo = photo
        self.alignment = alignment
        self.removed = tuple(removed)
        self._background = background
        self._pixels = crop(photo, alignment).astype(np.float32)
        parsed = replace(parsed, resolution=side)
        self.old: Raster = parsed.kept(removed).astype(np.float32)
        front = (IN_FRONT,) if IN_FRONT in removed else ()
        self.front: Raster = _share(parsed, front, side)
        self._skin = _share(parsed, SKIN, side)
        self._hair = _share(parsed, ("hair",), side)
        self._neck = _share(parsed, ("neck",), side)
        self._bare = _share(parsed, ("skin", "neck"), side)
        self._features = features(parsed, self.old, self._pixels @ LUMINANCE)
        reach = max(1, int(EDGE * side / 2))
        around = 1 - blurred(_grown(self.old > 1 / 32, reach), reach / 3)
        self._surroundings = filled(self._pixels, np.clip(around, 0, 1))
        self._grain = _grain_of(photo, alignment)

    @classmethod
    def find(
        cls,
        photo: NDArray[np.uint8],
        alignment: Alignment,
        parser: Parser,
        removed: Sequence[str],
        background: int = BACKGROUND,
    ) -> Self:
        """The place of the head at `alignment`, for pictures of its resolution or less."""
        fine = alignment.at(max(alignment.resolution, parser.resolution))
        return cls(photo, fine, parser.parse(crop(photo, fine)), removed, background)

    def composite(self, picture: NDArray[np.uint8], parsed: ParsingMap) -> NDArray[np.uint8]:
        """The photo (H, W, 3) with the head of `picture` (R, R, 3) in place of its own.

        `parsed` is the picture's map; R is at most S.
        """
        return self._set_in(self._layers(picture, parsed))

    def new_head(self, picture: NDArray[np.uint8], parsed: ParsingMap) -> Raster:
        """How much of each pixel of a picture (R, R, 3) is a head that may be seen: (R, R)."""
        side = picture.shape[0]
        kept = replace(parsed, resolution=side).kept(self.removed)
        # The parser takes a flat patch of the model's grey for a head where it expects one.
        flat = np.abs(picture.astype(np.float32) - self._background).max(-1)
        drawn = blurred(flat, 1.0)
        ground = drawn < DRAWN[1]
        # It takes bright curls for none; but a picture holds nothing except its head.
        reach = max(2, int(INNER * side))
        inner = 1 - _grown(ground, reach)
        kept = np.maximum(kept, blurred(_grown(inner > 0, reach - 1), 0.7))
        kept = kept * np.where(_outside(ground), _ramp(drawn, *DRAWN), 1)
        return (kept * (1 - _ramp(resized(self.front, side), 0.3, 0.7))).astype(np.float32)

    def _layers(self, picture: NDArray[np.uint8], parsed: ParsingMap) -> _Layers:
        side, small = self.alignment.resolution, picture.shape[0]
        levels = picture.astype(np.float32)
        new = self.new_head(picture, parsed)
        new_fine = np.clip(resized(new, side), 0, 1)
        alpha = blending(self.old, new_fine, self.front)

        seen = features(parsed, new_fine, levels @ LUMINANCE)
        down = _down(side)
        chin = _chin(new_fine)
        # Below the new chin nothing of it is left to be matched.
        free = alpha * (1 - _ramp(down, chin - 0.08, chin + 0.06))
        shift = resized(register(self._features, seen, free), side) * np.float32(side)
        bent = sampled(self._pixels, shift)
        old_fine = sampled(self.old, shift)
        old = resized(old_fine, small)
        photo = resized(bent, small)
        behind = resized(self._behind(bent, old_fine, new_fine, shift), small)

        head = filled(levels, _ramp(new, 0.75, 1))
        own = filled(photo, _ramp(old, 0.75, 1))
        skin = _share(parsed, SKIN, small)
        both = np.square(skin * resized(sampled(self._skin, shift), small)) * (new > 0.5)
        head = head + _colour_lost(photo - head, both, skin)

        aged = head * new[..., None] + behind * (1 - new[..., None])
        before = own * old[..., None] + behind * (1 - old[..., None])
        agreement = _agreement(aged @ LUMINANCE, photo @ LUMINANCE, old, new)[..., None]
        # What the model cannot show of the photo even at its own resolution stays where they agree.
        low = aged + agreement * (photo - before)
        # What is behind both heads keeps its own.
        detail = np.maximum(resized(agreement[..., 0], side), (1 - old_fine) * (1 - new_fine))
        detail = np.clip(detail, 0, 1)
        base = resized(low, side) - detail[..., None] * resized(photo, side)
        return _Layers(alpha, base, detail, shift)

    def _behind(self, bent: Raster, old: Raster, new: Raster, shift: Raster) -> Raster:
        """What is seen where the new head is not (S, S, 3): `bent`, its old head filled in.

        Long hair and a neck stay below the new chin, where they lie over clothes that nobody
        saw, and an old jaw there becomes neck.
        """
        side = len(old)
        down, chin = _down(side), _chin(new)
        lower = new * (down > 0.5)
        hair = sampled(self._hair, shift) * _ramp(down, chin - 0.38, chin - 0.22)
        neck = sampled(self._neck, shift)
        gone = np.clip(old - neck - hair, 0, 1)
        surroundings = bent + gone[..., None] * (self._surroundings - bent)

        weight = max(float(lower.sum()), 1.0)
        across = down.T
        centre = float((lower * across).sum()) / weight
        half = max(2 * math.sqrt(float((lower * np.square(across - centre)).sum()) / weight), 1e-3)
        below = np.maximum.accumulate(new, axis=0) * gone
        below = below * (1 - _ramp(np.abs(across - centre) / half, 0.6, 0.8))
        bare = _ramp(sampled(self._bare, shift), 1 / 3, 1) * (down > 0.5)
        known = resized(bare, 64)
        total = blurred(known, 4) + 1e-3
        tone = blurred(resized(bent * bare[..., None], 64), 4) / total[..., None]
        return surroundings + below[..., None] * (0.92 * resized(tone, side) - surroundings)

    def _set_in(self, layers: _Layers) -> NDArray[np.uint8]:
        """The photo with `layers` in it. Only the pixels that they change are worked on."""
        result = self.photo.copy()
        visible = np.flatnonzero(layers.alpha.max(1)), np.flatnonzero(layers.alpha.max(0))
        if not len(visible[0]):
            return result
        north, south = visible[0][0] - 2, visible[0][-1] + 3
        west, east = visible[1][0] - 2, visible[1][-1] + 3
        corners = self.alignment.to_photo(
            [(west, north), (east, north), (east, south), (west, south)]
        )
        height, width = self.photo.shape[:2]
        left, top = np.clip(np.floor(corners.min(0)).astype(int), 0, (width, height)).tolist()
        right, bottom = np.clip(np.ceil(corners.max(0)).astype(int), 0, (width, height)).tolist()
        if right <= left:
            return result
        grid, planes = self._planes(layers)
        rows = max(1, STRIP_PX // (right - left))
        for start in range(top, bottom, rows):
            box = (left, start, right, min(start + rows, bottom))
            self._set_strip(result, box, grid, planes, layers.shift)
        return result

    def _planes(self, layers: _Layers) -> tuple[Alignment, list[Image.Image]]:
        """alpha, detail, base: as fine as the photo, if not finer than PLANES_PX.

        Made so by smooth kernels once, they can be looked up by a quick one.
        """
        planes = [layers.alpha, layers.detail, *np.moveaxis(layers.base, -1, 0)]
        side = max(1, min(PLANES_PX, math.ceil(self.alignment.side_px)))
        images = [Image.fromarray(np.ascontiguousarray(plane, np.float32)) for plane in planes]
        resampled = [image.resize((side, side), Image.Resampling.BICUBIC) for image in images]
        return self.alignment.at(side), resampled

    def _set_strip(
        self,
        result: NDArray[np.uint8],
        box: tuple[int, int, int, int],
        grid: Alignment,
        planes: Sequence[Image.Image],
        shift: Raster,
    ) -> None:
        left, top, right, bottom = box
        start, along, down = grid.to_portrait([(left, top), (left + 1, top), (left, top + 1)])
        along, down = along - start, down - start
        affine = (along[0], down[0], start[0], along[1], down[1], start[1])

        def placed(plane: Image.Image) -> Raster:
            size = (right - left, bottom - top)
            kind = Image.Transform.AFFINE
            return np.asarray(plane.transform(size, kind, affine, Image.Resampling.BILINEAR))

        alpha = placed(planes[0])
        y, x = np.nonzero(alpha > 1 / 512)
        if not len(y):
            return
        alpha = np.minimum(alpha[y, x], 1)[:, None]
        detail = np.clip(placed(planes[1])[y, x], 0, 1)[:, None]
        value = np.stack([placed(plane)[y, x] for plane in planes[2:]], axis=-1)
        value += detail * self._bent(box, shift)[y, x]
        y, x = y + top, x + left
        if self._grain > 0:
            value += (1 - detail) * self._grain * _noise(x, y)[:, None]
        own = self.photo[y, x].astype(np.float32)
        mixed = own + alpha * (value - own)
        result[y, x] = np.rint(np.clip(mixed, 0, 255)).astype(np.uint8)

    def _bent(self, box: tuple[int, int, int, int], shift: Raster) -> Raster:
        """What the photo shows in a box (left, top, right, bottom) where it is bent by `shift`.

        The shift is taken as linear within cells; beyond the photo's edges they go on.
        """
        left, top, right, bottom = box
        cell = max(8, round(self.alignment.side_px / CELLS))
        columns = np.unique(np.append(np.arange(left, right, cell), right))
        rows = np.unique(np.append(np.arange(top, bottom, cell), bottom))
        nodes = np.stack(np.meshgrid(columns, rows), axis=-1).astype(np.float64)
        moved = sampled_at(shift, self.alignment.to_portrait(nodes))
        aims = nodes + self.alignment.to_photo(moved) - self.alignment.to_photo((0, 0))

        height, width = self.photo.shape[:2]
        low = np.floor(aims.min((0, 1))).astype(int) - 3
        high = np.ceil(aims.max((0, 1))).astype(int) + 3
        start = np.clip(low, 0, (width - 1, height - 1))
        end = np.clip(high, start + 1, (width, height))
        part = self.photo[start[1] : end[1], start[0] : end[0]].astype(np.float32)
        sides = np.stack([np.maximum(start - low, 0), np.maximum(high - end, 0)], axis=-1)
        part = np.pad(part, (*sides[::-1].tolist(), (0, 0)), mode="edge")
        aims = aims - start + sides[:, 0]
        mesh = []
        for row, (upper, lower) in enumerate(itertools.pairwise((rows - top).tolist())):
            for column, (west, east) in enumerate(itertools.pairwise((columns - left).tolist())):
                corners = aims[
                    [row, row + 1, row + 1, row], [column, column, column + 1, column + 1]
                ]
                mesh.append(((west, upper, east, lower), corners.ravel().tolist()))
        size, kind = (right - left, bottom - top), Image.Transform.MESH
        bands = [
            Image.fromarray(np.ascontiguousarray(band)).transform(
                size, kind, mesh, Image.Resampling.BICUBIC
            )
            for band in np.moveaxis(part, -1, 0)
        ]
        return np.stack([np.asarray(band) for band in bands], axis=-1)


def _share(parsed: ParsingMap, names: Sequence[str], side: int) -> Raster:
    """How much of each pixel (side, side) belongs to classes of a map."""
    return np.clip(resized(parsed.share(names), side), 0, 1)


def _colour_lost(difference: Raster, shared: Raster, skin: Raster) -> Raster:
    """What to add to a head (R, R, 3) so that its skin has the photo's colour.

    `difference` (R, R, 3) is what the photo has more, averaged widely where both show skin
    (`shared`): the light of the photo and the person's complexion, not wrinkles or features.
    """
    wide = 0.12 * len(shared)
    weight = shared[..., None]
    whole = (difference * weight).sum((0, 1)) / (shared.sum() + 1e-3)
    near = (blurred(difference * weight, wide) + 0.02 * whole) / (blurred(weight, wide) + 0.02)
    return near * np.clip(blurred(skin, 1.0), 0, 1)[..., None]


def _agreement(aged: Raster, photo: Raster, old: Raster, new: Raster) -> Raster:
    """How much of the photo's detail fits an aged head, 0 to 1: (R, R).

    By the local correlation of their luminance and by how little is left of the photo's contrast,
    so that a smoothed skin gets no wrinkles back; none where one head is and the other is not.
    """
    near = 1.6
    mean_aged, mean_photo = blurred(aged, near), blurred(photo, near)
    energy_aged = np.maximum(blurred(np.square(aged - mean_aged), near), 0) + NOISE
    energy_photo = np.maximum(blurred(np.square(photo - mean_photo), near), 0) + NOISE
    common = blurred((aged - mean_aged) * (photo - mean_photo), near) + NOISE
    kept = np.minimum(np.sqrt(energy_aged / energy_photo), 1)
    agreed = _ramp(common / np.sqrt(energy_aged * energy_photo), 0.1, 0.5) * kept
    agreed = agreed * (1 - np.clip(2 * blurred(np.abs(old - new), 0.7) - 0.2, 0, 1))
    return blurred(np.maximum(agreed, LEAST_DETAIL * kept * old * new), 0.8)


def _grain_of(photo: NDArray[np.uint8], alignment: Alignment) -> float:
    """Standard deviation of the photo's noise near a face, in levels (Immerkaer 1996)."""
    height, width = photo.shape[:2]
    x, y = alignment.corners().mean(0)
    left, top = (
        int(np.clip(x - 256, 0, max(0, width - 512))),
        int(np.clip(y - 256, 0, max(0, height - 512))),
    )
    part = photo[top : top + 512, left : left + 512].astype(np.float32) @ LUMINANCE
    if min(part.shape) < 3:
        return 0.0
    across = part[:, 2:] - 2 * part[:, 1:-1] + part[:, :-2]
    second = across[2:] - 2 * across[1:-1] + across[:-2]
    return min(float(np.median(np.abs(second))) / 0.6745 / 6, MOST_GRAIN)


def _noise(x: NDArray[np.int64], y: NDArray[np.int64]) -> Raster:
    """Noise of mean 0 and deviation 1 that depends on the photo pixel alone."""
    state = (x.astype(np.uint32) * np.uint32(0x9E3779B1)) ^ (
        y.astype(np.uint32) * np.uint32(0x85EBCA77)
    )
    total = np.zeros(len(x), np.float32)
    for _ in range(3):
        state = state ^ (state >> np.uint32(15))
        state = state * np.uint32(0x2C1B3C6D)
        state = state ^ (state >> np.uint32(12))
        total += state.astype(np.float32) / np.float32(2**32) - np.float32(0.5)
    return 2 * total


def _grown(mask: NDArray[np.bool_], reach: int) -> Raster:
    """The mask (N, N) grown by a square of `reach` pixels to each side, 0 or 1."""
    grown = mask.astype(np.float32)
    padded = np.pad(grown, reach)
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0)
    padded = np.pad(windows.max(-1)[:, reach:-reach], ((0, 0), (reach, reach)))
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=1).max(-1)


def _outside(ground: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """What of the ground (N, N) is connected with its border: a head may be as grey inside."""
    framed = Image.fromarray(np.pad(ground, 1, constant_values=True).astype(np.uint8)).copy()
    ImageDraw.floodfill(framed, (0, 0), 2)
    return np.asarray(framed)[1:-1, 1:-1] == 2


def _down(side: int) -> Raster:
    """How far down each row (S, 1) lies, from 0 to 1."""
    return ((np.arange(side, dtype=np.float32) + 0.5) / side)[:, None]


def _chin(head: Raster) -> float:
    """How far down a head (S, S) ends, from 0 to 1."""
    rows = np.flatnonzero(head.max(1) > 0.5)
    return max(0.6, rows[-1] / len(head)) if len(rows) else 0.8


def _ramp(values: Raster, low: float, high: float) -> Raster:
    """0 up to `low`, 1 from `high` on, linear between."""
    return np.clip((values - low) / (high - low), 0, 1)


def _smooth(values: Raster) -> Raster:
    """From 0 to 1 with level ends."""
    values = np.clip(values, 0, 1)
    return values * values * (3 - 2 * values)
