"""How well aged heads sit in their photographs: a table, and a sheet to look at.

    python -m benchmarks.seams -o sheet.png a.jpg b.jpg ...

Each photograph's largest face is aged to every target and set into the photograph twice: pasted,
as the service did at first (the model's picture by its softened parsing map), and composited, as
it does now. For both the table has the means over the targets of

- contrast: how far the local contrast along the seam is from the photograph's own there, in
  octaves: the mean of |log2(result / photograph)| over the seam, of the root mean square gradient
  of luminance within 1/64 of the portrait's side. The seam is the outermost 1/16 of the side of all
  that was changed. 0 is the photograph's own; 1 is twice as strong an edge, or half washed out.
- sharpness: the mean magnitude of the Laplacian of the result over that of the photograph, in all
  that was changed. 1 is as sharp as the photograph.

and of the composite how many pixels were changed outside the union of both heads, grown by
`model.portraits.composite.EDGE`; there must be none. The sheet has a row per photograph: as it
was, and for each of `--shown` pasted and composited.
"""

import argparse
import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.portraits.align import Alignment, warp
from model.portraits.composite import BORDER, EDGE, LUMINANCE, Place
from model.portraits.parse import Parser
from model.portraits.raster import resized
from service.observability import Metrics
from service.predictor import open_predictor
from service.settings import Settings
from service.targets import chosen
from training.sheets import Sheet

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def pasted(photo: Pixels, picture: Pixels, kept: NDArray[np.float32], place: Alignment) -> Pixels:
    """The picture (R, R, 3) laid over the photo by its softened map: the service's first way."""
    side = len(picture)
    blur = ImageFilter.GaussianBlur(side / 64)
    soft = Image.fromarray(np.rint(kept * 255).astype(np.uint8)).filter(blur)
    inner = np.clip(np.asarray(soft, np.float32) / 127.5 - 1, 0, 1)
    centres = np.arange(side, dtype=np.float32) + 0.5
    ramp = np.clip((np.minimum(centres, side - centres) - 1) / (BORDER * side), 0, 1)
    ramp = ramp * ramp * (3 - 2 * ramp)
    mask = Image.fromarray(np.rint(255 * inner * ramp[:, None] * ramp).astype(np.uint8))
    size = (photo.shape[1], photo.shape[0])
    placed = place.at(side)
    start, right, down = placed.to_portrait([(0, 0), (1, 0), (0, 1)])
    inverse = (start, right - start, down - start)
    result = Image.fromarray(photo)
    result.paste(warp(Image.fromarray(picture), size, inverse), mask=warp(mask, size, inverse))
    return np.asarray(result)


def measured(photo: Pixels, result: Pixels, side_px: float) -> tuple[float, float]:
    """Contrast and sharpness; see the module."""
    height, width = photo.shape[:2]
    reach = max(1, round(side_px / 64))
    where = np.nonzero((photo != result).any(-1))
    # A margin, so that what is measured at the edge of the changes has its surroundings.
    top, left = (max(0, int(each.min()) - 4 * reach) for each in where)
    bottom, right = (int(each.max()) + 1 + 4 * reach for each in where)
    part = slice(top, min(bottom, height)), slice(left, min(right, width))
    before, after = (each[part] @ LUMINANCE for each in (photo, result))
    changed = (photo[part] != result[part]).any(-1)
    # Without the holes where it happens to be the same.
    changed = _spread(_spread(changed, reach), -reach)
    seam = changed & ~_spread(changed, -4 * reach)
    one, other = _contrast(before, reach), _contrast(after, reach)
    contrast = np.abs(np.log2(other / one))[seam].mean()
    sharp = _laplacian(after)[changed].mean() / _laplacian(before)[changed].mean()
    return float(contrast), float(sharp)


def _contrast(levels: NDArray[np.floating], reach: int) -> NDArray[np.floating]:
    """Root mean square gradient around each pixel, of which half a level is never missing."""
    down, right = np.gradient(levels)
    near = Image.fromarray((np.square(down) + np.square(right)).astype(np.float32))
    # Shrinking by whole blocks and enlarging is a mean over about two of them.
    size = (max(1, round(near.width / reach)), max(1, round(near.height / reach)))
    near = near.resize(size, Image.Resampling.BOX).resize(near.size, Image.Resampling.BILINEAR)
    return np.sqrt(np.asarray(near) + 0.25)


def changed_outside(place: Place, new: NDArray[np.floating], result: Pixels) -> int:
    """Pixels that differ from the photo further than EDGE from either head."""
    alignment = place.alignment
    heads = np.maximum(place.old, resized(new, alignment.resolution)) > 1 / 32
    grid = Image.fromarray(_spread(heads, round(EDGE * alignment.resolution) + 1))
    height, width = place.photo.shape[:2]
    start, right, down = alignment.to_portrait([(0, 0), (1, 0), (0, 1)])
    right, down = right - start, down - start
    affine = (right[0], down[0], start[0], right[1], down[1], start[1])
    near = np.asarray(grid.transform((width, height), Image.Transform.AFFINE, affine))
    return int(((result != place.photo).any(-1) & ~near).sum())


def _spread(mask: Mask, reach: int) -> Mask:
    """The mask grown by `reach` pixels to each side, or shrunk where that is negative."""
    if reach < 0:
        return ~_spread(~mask, -reach)
    for axis in (0, 1):
        sides = [(0, 0), (0, 0)]
        sides[axis] = (reach + 1, reach)
        sums = np.cumsum(np.pad(mask.astype(np.int32), sides), axis=axis)
        ends = sums.take(range(2 * reach + 1, sums.shape[axis]), axis)
        mask = ends > sums.take(range(ends.shape[axis]), axis)
    return mask


def _laplacian(levels: NDArray[np.floating]) -> NDArray[np.floating]:
    padded = np.pad(levels, 1, mode="edge")
    around = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return np.abs(around - 4 * levels)


@dataclass
class Row:
    """What one photograph gave, each number per target."""

    name: str
    side_px: float
    before: list[tuple[float, float]]
    after: list[tuple[float, float]]
    outside: int
    seconds: float
    pictures: list[Pixels]

    def line(self) -> str:
        numbers = [f"{x:.2f}" for pair in (self.before, self.after) for x in np.mean(pair, 0)]
        cells = [self.name, f"{self.side_px:.0f}", *numbers, str(self.outside)]
        return "| " + " | ".join(cells) + " |"


async def rows_of(paths: Sequence[Path], names: Sequence[str], shown: Sequence[str]) -> list[Row]:
    """Every photograph aged to anchors `names`; those in `shown` come as pictures too."""
    settings = Settings.load({"provider": "cpu", "max_batch": "1", "measuring_s": "0"})
    rows = []
    async with open_predictor(settings, Metrics()) as predictor:
        await predictor.warm_up()
        parser = Parser.open(settings.parser, threads=1)
        model = predictor.model(None)
        targets = chosen(model.manifest, names, [], [])
        for path in paths:
            taken = await predictor.take_in(path.read_bytes())
            made = predictor.pictures(taken, model, model.manifest.default_group, targets, _same)
            place = await predictor.place(taken, model)
            photo, alignment = place.photo, place.alignment
            row = Row(path.stem, alignment.side_px, [], [], 0, 0, [_around(photo, alignment)])
            async for target, picture in made:
                parsed = parser.parse(picture)
                plain = pasted(photo, picture, parsed.kept(place.removed), alignment)
                started = time.perf_counter()
                result = place.composite(picture, parsed)
                row.seconds += (time.perf_counter() - started) / len(targets)
                row.before.append(measured(photo, plain, row.side_px))
                row.after.append(measured(photo, result, row.side_px))
                row.outside += changed_outside(place, place.new_head(picture, parsed), result)
                if target.name in shown:
                    row.pictures += [_around(plain, alignment), _around(result, alignment)]
            rows.append(row)
    return rows


def _same(picture: Pixels) -> Pixels:
    return picture


def _around(photo: Pixels, alignment: Alignment) -> Pixels:
    """The face with some of its surroundings, square, black beyond the photo."""
    half, (x, y) = 0.62 * alignment.side_px, alignment.corners().mean(0)
    left, top, side = round(float(x - half)), round(float(y - half)), round(2 * half)
    return np.asarray(Image.fromarray(photo).crop((left, top, left + side, top + side)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--target", nargs="+", default=["all"])
    parser.add_argument("--shown", nargs="+", default=["0-2", "15-19", "50-69"])
    parser.add_argument("--cell", type=int, default=256)
    parser.add_argument("-o", "--output", type=Path)
    arguments = parser.parse_args()
    rows = asyncio.run(rows_of(arguments.photos, arguments.target, arguments.shown))
    print("| Photograph | Side, px | Pasted: contrast | sharpness |", end=" ")
    print("Composited: contrast | sharpness | Changed outside |")
    print("| --- " * 7 + "|")
    for row in rows:
        print(row.line())
    every = [
        np.mean([np.mean(pair, 0) for pair in kind], 0).tolist()
        for kind in ([row.before for row in rows], [row.after for row in rows])
    ]
    numbers = " | ".join(f"{x:.2f}" for pair in every for x in pair)
    print(f"| mean | | {numbers} | {sum(row.outside for row in rows)} |")
    print(f"{1000 * np.mean([row.seconds for row in rows]):.0f} ms a composite")
    if arguments.output is not None:
        sheet = Sheet(len(rows[0].pictures), len(rows), arguments.cell)
        for place, row in enumerate(rows):
            for column, picture in enumerate(row.pictures):
                sheet.put(place, column, picture)
        sheet.image.save(arguments.output)


if __name__ == "__main__":
    main()
