"""A portrait: the aligned crop of a face and how much of each pixel belongs to the head."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.portraits.align import Alignment, crop, inside
from model.portraits.parse import Parser, ParsingMap


@dataclass(frozen=True, eq=False)
class Portrait:
    """`pixels` uint8 (R, R, 3) RGB, not masked; `kept` float32 (R, R) from 0 to 1."""

    pixels: NDArray[np.uint8]
    kept: NDArray[np.float32]
    alignment: Alignment

    @property
    def levels(self) -> NDArray[np.uint8]:
        """`kept` as uint8, 255 = all."""
        return np.rint(self.kept * 255).astype(np.uint8)


def cut_portrait(
    photo: NDArray[np.uint8], alignment: Alignment, parser: Parser, removed: Sequence[str]
) -> Portrait:
    """Cuts and parses the portrait that lies at `alignment` in a photo (H, W, 3) RGB."""
    return parsed_portrait(photo, alignment, parser, removed)[0]


def parsed_portrait(
    photo: NDArray[np.uint8], alignment: Alignment, parser: Parser, removed: Sequence[str]
) -> tuple[Portrait, ParsingMap]:
    """The portrait of `cut_portrait`, and the map that it was cut by.

    It is parsed at the parser's size or its own, whichever is larger, so that a small portrait
    gets as good a map as a large one. What was mirrored beyond the photo's edge is not kept.
    """
    resolution = alignment.resolution
    fine = crop(photo, alignment.at(max(resolution, parser.resolution)))
    parsing = replace(parser.parse(fine), resolution=resolution)
    kept = parsing.kept(removed)
    height, width = photo.shape[:2]
    kept = kept * inside(alignment, width, height)
    portrait = Portrait(_reduced(fine, resolution), kept.astype(np.float32), alignment)
    return portrait, parsing


def _reduced(pixels: NDArray[np.uint8], resolution: int) -> NDArray[np.uint8]:
    """A square picture at `resolution`: means of whole blocks, as training makes them."""
    if len(pixels) == resolution:
        return pixels
    factor, rest = divmod(len(pixels), resolution)
    if rest == 0:
        return np.asarray(Image.fromarray(pixels).reduce(factor))
    return np.asarray(
        Image.fromarray(pixels).resize((resolution, resolution), Image.Resampling.LANCZOS)
    )
