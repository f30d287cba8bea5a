"""Where a portrait lies in its photo: the FFHQ crop (Karras et al. 2019) and its inverse.

Coordinates are (x, y) and continuous: pixel (i, j) covers [i, i + 1) x [j, j + 1), so its centre
is (i + 0.5, j + 0.5), in photos and in portraits alike.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from model.portraits.errors import FaceTooSmall, ImplausibleFace

LEFT_EYE = slice(36, 42)
RIGHT_EYE = slice(42, 48)
MOUTH_CORNERS = [48, 54]


@dataclass(frozen=True)
class Geometry:
    """How much of the photo a portrait shows.

    `scale` 1 is FFHQ's own crop; above 1 is wider. `shift` moves the centre from between the eyes
    towards the mouth, in eye-to-mouth distances.
    """

    resolution: int
    scale: float = 1.0
    shift: float = 0.1

    def __post_init__(self) -> None:
        if self.resolution < 1 or not self.scale > 0:
            raise ValueError("a geometry needs a positive resolution and a positive scale")


@dataclass(frozen=True)
class Alignment:
    """The similarity that takes portrait pixels, 0 to `resolution`, to photo pixels.

    `left`, `top` is where the portrait's top left corner lies in the photo; `step_x`, `step_y` is
    how far one portrait pixel to the right moves in the photo.
    """

    resolution: int
    left: float
    top: float
    step_x: float
    step_y: float

    def __post_init__(self) -> None:
        numbers = (self.left, self.top, self.step_x, self.step_y)
        if self.resolution < 1 or not all(map(math.isfinite, numbers)) or not self.side_px > 0:
            raise ValueError("an alignment needs a positive resolution and a finite, positive size")

    @classmethod
    def of_aligned(cls, width: int, height: int, resolution: int) -> Self:
        """The centred square of a picture that is a portrait already, `width` x `height` px."""
        return cls.around((width / 2, height / 2), min(width, height), 0.0, resolution)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """The inverse of `to_dict`. Raises TypeError for a missing or an unknown field."""
        return cls(**fields)

    def to_dict(self) -> dict[str, Any]:
        """JSON-friendly fields."""
        return asdict(self)

    @classmethod
    def around(
        cls, centre: tuple[float, float], side_px: float, degrees: float, resolution: int
    ) -> Self:
        """The square of `side_px` around a photo point, turned clockwise by `degrees`."""
        step_x = side_px / resolution * math.cos(math.radians(degrees))
        step_y = side_px / resolution * math.sin(math.radians(degrees))
        left = centre[0] - (step_x - step_y) * resolution / 2
        top = centre[1] - (step_x + step_y) * resolution / 2
        return cls(resolution, left, top, step_x, step_y)

    @property
    def step_px(self) -> float:
        """Photo pixels per portrait pixel."""
        return math.hypot(self.step_x, self.step_y)

    @property
    def side_px(self) -> float:
        """Side of the portrait's square in photo pixels."""
        return self.resolution * self.step_px

    @property
    def angle(self) -> float:
        """Clockwise turn of the portrait in the photo, in degrees, -180 to 180."""
        return math.degrees(math.atan2(self.step_y, self.step_x))

    def at(self, resolution: int) -> Self:
        """The same square of the photo with another number of portrait pixels."""
        ratio = self.resolution / resolution
        return replace(
            self, resolution=resolution, step_x=self.step_x * ratio, step_y=self.step_y * ratio
        )

    def scaled(self, factor: float) -> Self:
        """The same square in the photo made `factor` times as large."""
        return replace(
            self,
            left=self.left * factor,
            top=self.top * factor,
            step_x=self.step_x * factor,
            step_y=self.step_y * factor,
        )

    def to_photo(self, points: ArrayLike) -> NDArray[np.float64]:
        """Portrait points (..., 2) -> photo points (..., 2)."""
        x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        return np.stack(
            [
                self.left + self.step_x * x - self.step_y * y,
                self.top + self.step_y * x + self.step_x * y,
            ],
            axis=-1,
        )

    def to_portrait(self, points: ArrayLike) -> NDArray[np.float64]:
        """Photo points (..., 2) -> portrait points (..., 2)."""
        x, y = np.moveaxis(np.asarray(points, np.float64) - (self.left, self.top), -1, 0)
        square = self.step_x**2 + self.step_y**2
        return np.stack(
            [
                (self.step_x * x + self.step_y * y) / square,
                (self.step_x * y - self.step_y * x) / square,
            ],
            axis=-1,
        )

    def corners(self) -> NDArray[np.float64]:
        """The portrait's corners in the photo (4, 2), clockwise from the top left."""
        side = self.resolution
        return self.to_photo([(0, 0), (side, 0), (side, side), (0, side)])


def align(landmarks: NDArray[np.float64], geometry: Geometry) -> Alignment:
    """The FFHQ square of a face's 68 iBUG landmarks, (68, 2) in photo coordinates.

    Raises ImplausibleFace where eyes and mouth coincide, so that there is no face to measure.
    """
    left_eye, right_eye = landmarks[LEFT_EYE].mean(0), landmarks[RIGHT_EYE].mean(0)
    eyes = (left_eye + right_eye) / 2
    eye_to_eye = right_eye - left_eye
    eye_to_mouth = landmarks[MOUTH_CORNERS].mean(0) - eyes

    across = eye_to_eye - _quarter_turn(eye_to_mouth)
    half = max(2.0 * np.hypot(*eye_to_eye), 1.8 * np.hypot(*eye_to_mouth)) * geometry.scale
    length = np.hypot(*across)
    if not length > 0:
        raise ImplausibleFace
    across = across / length * half
    down = _quarter_turn(across)
    left, top = eyes + geometry.shift * eye_to_mouth - across - down
    step_x, step_y = 2 * across / geometry.resolution
    return Alignment(geometry.resolution, float(left), float(top), float(step_x), float(step_y))


def _quarter_turn(vector: NDArray[np.float64]) -> NDArray[np.float64]:
    """(2,) turned clockwise by 90 degrees, as the photo is seen."""
    return np.array([-vector[1], vector[0]])


def check_size(alignment: Alignment, minimum_px: float) -> None:
    """Raises FaceTooSmall where the portrait's square spans under `minimum_px` of the photo."""
    if alignment.side_px < minimum_px:
        raise FaceTooSmall(alignment.side_px, minimum_px)


def crop(pixels: NDArray[np.uint8], alignment: Alignment) -> NDArray[np.uint8]:
    """The portrait (R, R, 3) that `alignment` cuts from a photo (H, W, 3), both RGB.

    Shrinking is antialiased: Lanczos to twice the size, bicubic turn, Lanczos to the size asked.
    Enlarging is bicubic. An upright square is only shrunk or enlarged. Beyond the photo's edges it
    is mirrored, as FFHQ is but without the blur.
    """
    height, width = pixels.shape[:2]
    box = _upright_box(alignment, width, height)
    if box is not None:
        shrinks = alignment.step_px > 1
        kernel = Image.Resampling.LANCZOS if shrinks else Image.Resampling.BICUBIC
        size = (alignment.resolution, alignment.resolution)
        return np.asarray(Image.fromarray(pixels).resize(size, kernel, box, reducing_gap=3))
    oversampling = 2 if alignment.step_px > 1 else 1
    shrink = max(1.0, alignment.step_px / oversampling)
    margin = math.ceil(4 * shrink)
    corners = alignment.corners()
    low = np.floor(corners.min(0)).astype(int) - margin
    high = np.ceil(corners.max(0)).astype(int) + margin
    left, top = np.clip(low, 0, (width - 1, height - 1))
    right, bottom = np.clip(high, (left + 1, top + 1), (width, height))

    part = Image.fromarray(pixels[top:bottom, left:right])
    size = (max(1, round(part.width / shrink)), max(1, round(part.height / shrink)))
    scale = np.array([part.width / size[0], part.height / size[1]])
    if shrink > 1:
        part = part.resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
    before = np.ceil(((left, top) - np.minimum(low, (left, top))) / scale).astype(int)
    after = np.ceil((np.maximum(high, (right, bottom)) - (right, bottom)) / scale).astype(int)
    if before.any() or after.any():
        sides = ((before[1], after[1]), (before[0], after[0]), (0, 0))
        part = Image.fromarray(np.pad(np.asarray(part), sides, mode="reflect"))

    start = ((alignment.left, alignment.top) - np.array([left, top])) / scale + before
    right_step = np.array([alignment.step_x, alignment.step_y]) / scale / oversampling
    down_step = np.array([-alignment.step_y, alignment.step_x]) / scale / oversampling
    side = alignment.resolution
    size = (side * oversampling, side * oversampling)
    turned = warp(part, size, (start, right_step, down_step))
    if oversampling > 1:
        turned = turned.resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(turned)


def _upright_box(
    alignment: Alignment, width: int, height: int
) -> tuple[float, float, float, float] | None:
    """The square (left, top, right, bottom) where it is neither turned nor beyond the photo."""
    left, top = alignment.left, alignment.top
    right, bottom = left + alignment.side_px, top + alignment.side_px
    within = min(left, top) >= 0 and right <= width and bottom <= height
    upright = alignment.step_y == 0 and alignment.step_x > 0
    return (left, top, right, bottom) if within and upright else None


def inside(alignment: Alignment, width: int, height: int) -> NDArray[np.float32]:
    """How much of each portrait pixel, 0 to 1, a photo of `width` x `height` px covers: (R, R).

    The rest of a crop is mirrored, which doubles the features of a face that the photo cuts.
    """

    def share(centres: NDArray[np.floating]) -> NDArray[np.float32]:
        points = alignment.to_photo(np.stack(np.meshgrid(centres, centres), axis=-1))
        depth = np.minimum(points, (width, height) - points).min(-1) / alignment.step_px
        return np.clip(depth + 0.5, 0, 1).astype(np.float32)

    centres = np.arange(alignment.resolution) + 0.5
    # The photo is convex: where it covers the corners it covers all, as it mostly does.
    if share(centres[[0, -1]]).min() == 1:
        return np.ones((alignment.resolution,) * 2, np.float32)
    return share(centres)


def warp(
    picture: Image.Image, size: tuple[int, int], inverse: Sequence[NDArray[np.float64]]
) -> Image.Image:
    """`picture`, of 8-bit bands, bicubically at `size` (width, height); black beyond its edges.

    `inverse` is three points (2,) of the picture: where the result's top left corner lies, and
    how far one pixel to the right and one pixel down move. Values are rounded; Pillow alone would
    cut off their fractions, and darken by half a level.
    """
    start, right, down = inverse
    affine = (right[0], down[0], start[0], right[1], down[1], start[1])
    bands = []
    for band in picture.split():
        raised = Image.fromarray(np.asarray(band, np.float32) + 0.5)
        moved = raised.transform(size, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        bands.append(moved.convert("L"))
    return Image.merge(picture.mode, bands)
