"""How well faces are found and aligned again after being moved, turned and scaled.

    python benchmarks/alignment.py FOLDER [--count 100] [--seed 0]

FOLDER holds portraits in FFHQ alignment. Each is pasted into a larger picture at a random place,
size and tilt; the displacement is the mean distance of the four recovered corners, in pixels of a
portrait 128 px wide, from where the portrait was pasted ("pasted") and from where the same
landmarks put it before it was moved ("unmoved"). The first includes what sets the portraits' own
landmarks apart from these; the second is what moving alone costs.
"""

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.portraits.align import Alignment, Geometry, align
from model.portraits.detect import DlibLandmarker, Face, Landmarker
from model.portraits.photo import read_photo

RESOLUTION = 128
CANVAS_PX = (720, 560)
SCALES = (0.8, 3.0)
TILT_DEGREES = 25.0
OFFSET_PX = 60.0
SURROUNDINGS = ("plain", "mirrored", "blurred")


@dataclass(frozen=True)
class Outcome:
    """Displacements in px at 128; None where the face was not found."""

    pasted: float | None
    unmoved: float | None
    at_rest: float | None
    seconds: float


def random_alignment(rng: np.random.Generator) -> Alignment:
    """Where to paste a portrait in the canvas."""
    scale = math.exp(rng.uniform(*np.log(SCALES)))
    x, y = np.array(CANVAS_PX) / 2 + rng.uniform(-OFFSET_PX, OFFSET_PX, 2)
    tilt = rng.uniform(-TILT_DEGREES, TILT_DEGREES)
    return Alignment.around((float(x), float(y)), scale * RESOLUTION, tilt, RESOLUTION)


def paste(portrait: NDArray[np.uint8], placed: Alignment, surroundings: str) -> NDArray[np.uint8]:
    """The canvas (H, W, 3) with a portrait in it, and its mirrored margin where that is asked."""
    side = min(portrait.shape[0], round(placed.side_px))
    picture = Image.fromarray(portrait).resize((side, side), Image.Resampling.LANCZOS)
    margin = side // 4 if surroundings == "mirrored" else 0
    pads = ((margin, margin), (margin, margin), (0, 0))
    picture = Image.fromarray(np.pad(np.asarray(picture), pads, mode="reflect"))
    canvas = Image.new("RGB", CANVAS_PX, (140, 120, 100))
    if surroundings == "blurred":
        canvas = picture.resize(CANVAS_PX).filter(ImageFilter.GaussianBlur(40))

    start, right, down = placed.at(side).to_portrait([(0, 0), (1, 0), (0, 1)])
    across, along, start = right - start, down - start, start + margin
    inverse = (across[0], along[0], start[0], across[1], along[1], start[1])
    mask = Image.new("L", picture.size, 255)
    affine = Image.Transform.AFFINE
    moved = picture.transform(CANVAS_PX, affine, inverse, Image.Resampling.BICUBIC)
    canvas.paste(moved, (0, 0), mask.transform(CANVAS_PX, affine, inverse))
    return np.asarray(canvas)


def displacement(found: Alignment, truth: Alignment, expected: NDArray[np.float64]) -> float:
    """Mean distance of the found corners from `expected` (4, 2), both in portrait pixels."""
    return float(np.hypot(*(truth.to_portrait(found.corners()) - expected).T).mean())


def nearest(faces: list[Face], point: NDArray[np.float64]) -> Face | None:
    """The face whose box is centred closest to a point."""

    def distance(face: Face) -> float:
        left, top, right, bottom = face.box
        return math.hypot((left + right) / 2 - point[0], (top + bottom) / 2 - point[1])

    return min(faces, key=distance, default=None)


def measure(
    portrait: NDArray[np.uint8], placed: Alignment, surroundings: str, landmarker: Landmarker
) -> Outcome:
    """Moves one portrait and finds it again."""
    geometry = Geometry(RESOLUTION)
    rest = Alignment.of_aligned(portrait.shape[1], portrait.shape[0], RESOLUTION)
    centre = np.array([RESOLUTION / 2, RESOLUTION / 2])
    before = nearest(landmarker.detect(portrait), rest.to_photo(centre))
    canvas = paste(portrait, placed, surroundings)
    started = time.perf_counter()
    after = nearest(landmarker.detect(canvas), placed.to_photo(centre))
    seconds = time.perf_counter() - started

    square = rest.to_portrait(rest.corners())
    pasted = unmoved = at_rest = None
    if before is not None:
        own = rest.to_portrait(align(before.landmarks, geometry).corners())
        at_rest = float(np.hypot(*(own - square).T).mean())
        if after is not None:
            unmoved = displacement(align(after.landmarks, geometry), placed, own)
    if after is not None:
        pasted = displacement(align(after.landmarks, geometry), placed, square)
    return Outcome(pasted, unmoved, at_rest, seconds)


def report(outcomes: list[Outcome]) -> str:
    """A table of medians and 90th percentiles."""
    lines = [f"{'displacement, px at 128':28}{'median':>8}{'90th':>8}{'found':>9}"]
    for name, label in (
        ("pasted", "moved, from where pasted"),
        ("unmoved", "moved, from unmoved"),
        ("at_rest", "unmoved, from its own crop"),
    ):
        values = [getattr(outcome, name) for outcome in outcomes]
        found = [value for value in values if value is not None]
        middle, high = np.percentile(found, (50, 90)) if found else (math.nan, math.nan)
        lines.append(f"{label:28}{middle:8.2f}{high:8.2f}{len(found) / len(values):9.1%}")
    milliseconds = 1e3 * np.median([outcome.seconds for outcome in outcomes])
    lines.append(f"{CANVAS_PX[0]} x {CANVAS_PX[1]} px: {milliseconds:.0f} ms a photo (median)")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    suffixes = {".jpg", ".jpeg", ".png", ".webp"}
    files = sorted(p for p in arguments.folder.iterdir() if p.suffix.lower() in suffixes)
    if not files:
        parser.error("the folder holds no portraits")
    landmarker = DlibLandmarker()
    outcomes = []
    for index, file in enumerate(rng.permutation(np.array(files, object))[: arguments.count]):
        portrait = read_photo(file.read_bytes()).pixels
        surroundings = SURROUNDINGS[index % len(SURROUNDINGS)]
        outcomes.append(measure(portrait, random_alignment(rng), surroundings, landmarker))
    print(f"{len(outcomes)} portraits, {SCALES[0]} to {SCALES[1]} x, +-{TILT_DEGREES:.0f} degrees")
    print(report(outcomes))


if __name__ == "__main__":
    main()
