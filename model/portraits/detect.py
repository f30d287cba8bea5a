"""Faces in a photo, with the 68 landmarks of iBUG 300-W.

Coordinates are continuous, as in align.py: the centre of pixel (i, j) is (i + 0.5, j + 0.5).
"""

import copy
import importlib.util
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.portraits.align import Alignment, Geometry, align, crop
from model.portraits.errors import NoSuchFace

T = TypeVar("T")

MODELS_PACKAGE = "face_recognition_models"
LANDMARKS_NAME = "shape_predictor_68_face_landmarks.dat"

PORTRAIT_PX = 256
"""Side to which smaller portraits are enlarged before their faces are sought: dlib needs faces of
80 px."""
SHORTEST_SIDE_PX = 40
"""Of the largest view, half of the detector's window: with less a face's centre does not show."""
PADDING = 0.25
TURNS_DEGREES = (-40.0, 40.0)
CLEAR_SCORE = 0.4
DISBELIEF = -0.5

UPRIGHT = Geometry(256)
UPRIGHT_BOX = (125.3, 151.8, 147.5)
UPRIGHT_SHIFTS = ((0, 0), (6, 0), (-6, 0), (0, 6), (0, -6))


@dataclass(frozen=True, eq=False)
class Face:
    """A face: `box` (left, top, right, bottom) and `landmarks` (68, 2), both in photo pixels.

    `score` is the detector's confidence: about 1.5 for a clear frontal face,
    doubtful below 0.4, never below 0.
    """

    box: tuple[float, float, float, float]
    landmarks: NDArray[np.float64]
    score: float

    @property
    def area_px(self) -> float:
        """Area of the box in square photo pixels."""
        left, top, right, bottom = self.box
        return (right - left) * (bottom - top)


class Landmarker(Protocol):
    """Finds faces; may be called from several threads at once."""

    def detect(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """Faces in an RGB photo (H, W, 3), the largest box first; empty where there is none."""
        ...


def pick_face(faces: Sequence[T], index: int) -> T:
    """The face at `index`, counted from 0. Raises NoSuchFace outside the list."""
    if not 0 <= index < len(faces):
        raise NoSuchFace(index, len(faces))
    return faces[index]


def landmarks_file() -> Path:
    """Where pip put dlib's 68-landmark model. Raises FileNotFoundError saying what to install."""
    spec = importlib.util.find_spec(MODELS_PACKAGE)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder) / "models" / LANDMARKS_NAME
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"{LANDMARKS_NAME} was not found: run `pip install face-recognition-models`, "
        "or give the path of a copy."
    )


class DlibLandmarker:
    """dlib's HOG face detector and its 68-landmark regression trees (Kazemi and Sullivan 2014).

    The photo is searched at `search_px` on its long side, where a face must be about 80 px wide;
    only when no clear face is found, again at `retry_px`, then with mirrored borders (faces that
    the photo cuts), then turned by 40 degrees either way. Doubtful faces are given only where no
    view shows a clear one; a face's score is the mean of what the detector says of it as it lies
    in the photo and set upright. Landmarks are the mean of a few predictions on an upright crop,
    so they hardly depend on the face's size and tilt in the photo.

    Threads may share one: each gets its own copy of the detector, which runs without the GIL.

    The landmark model was trained on iBUG 300-W, whose terms exclude commercial use. Any
    Landmarker that gives the same 68 points can stand in for this one.
    """

    def __init__(
        self, landmarks: Path | str | None = None, search_px: int = 640, retry_px: int = 1600
    ) -> None:
        """Reads the models in about a second.

        `landmarks` is the model's path, by default that of `landmarks_file()`. Raises
        FileNotFoundError where there is none.
        """
        import dlib

        path = landmarks_file() if landmarks is None else Path(landmarks)
        if not path.is_file():
            raise FileNotFoundError(f"there is no landmark model at {path}")
        self.search_px = search_px
        self.retry_px = retry_px
        self._dlib: Any = dlib
        self._predictor: Any = self._dlib.shape_predictor(str(path))
        self._detector: Any = self._dlib.get_frontal_face_detector()
        self._local = threading.local()

    def detect(self, pixels: NDArray[np.uint8]) -> list[Face]:
        """Faces in an RGB photo (H, W, 3), the largest box first; empty where there is none."""
        height, width = pixels.shape[:2]
        long, short = max(width, height), min(width, height)
        # A line of pixels would be searched for many seconds, and its borders mirrored for more.
        if short * min(self.retry_px, 4 * long) < SHORTEST_SIDE_PX * long:
            return []
        doubtful: list[Face] = []
        for view, placed in self._views(pixels):
            faces = sorted(
                self._faces(pixels, view, placed), key=lambda face: face.area_px, reverse=True
            )
            if clear := [face for face in faces if face.score >= CLEAR_SCORE]:
                return clear
            doubtful = doubtful or faces
        return doubtful

    def _faces(
        self, pixels: NDArray[np.uint8], view: NDArray[np.uint8], placed: Alignment
    ) -> Iterator[Face]:
        """Faces that a view shows inside the photo."""
        height, width = pixels.shape[:2]
        rectangles, scores, _ = self._local_detector().run(view, 0, 0.0)
        for rectangle, score in zip(rectangles, scores, strict=True):
            ends = [(rectangle.left(), rectangle.top()), (rectangle.right(), rectangle.bottom())]
            centre = placed.to_photo(np.mean(ends, axis=0) + 0.5)
            if not ((centre >= 0) & (centre < (width, height))).all():
                continue
            half = rectangle.width() * placed.step_px / 2
            box = (*(centre - half).tolist(), *(centre + half).tolist())
            upright = align(placed.to_photo(self._predict(view, rectangle)), UPRIGHT)
            portrait = crop(pixels, upright)
            landmarks = upright.to_photo(self._refine(portrait))
            score = (score + self._second_score(portrait)) / 2
            if score >= 0:
                yield Face(box, landmarks, score)

    def _views(self, pixels: NDArray[np.uint8]) -> Iterator[tuple[NDArray[np.uint8], Alignment]]:
        """Pictures to search, best first, each with the way from its pixels to the photo's."""
        height, width = pixels.shape[:2]
        long = max(width, height)
        for view_px in (min(self.search_px, 2 * long), min(self.retry_px, 4 * long)):
            step = long / view_px
            size = (max(1, round(width / step)), max(1, round(height / step)))
            view = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, reducing_gap=3)
            yield np.asarray(view), Alignment(view_px, 0.0, 0.0, step, 0.0)

        centre, side_px = (width / 2, height / 2), (1 + 2 * PADDING) * long
        resolution = round((1 + 2 * PADDING) * min(self.search_px, 2 * long))
        for degrees in (0.0, *TURNS_DEGREES):
            placed = Alignment.around(centre, side_px, degrees, resolution)
            yield crop(pixels, placed), placed

    def _local_detector(self) -> Any:
        """This thread's copy of the detector, which may not be shared."""
        if not hasattr(self._local, "detector"):
            self._local.detector = copy.deepcopy(self._detector)
        return self._local.detector

    def _predict(self, view: NDArray[np.uint8], rectangle: Any) -> NDArray[np.float64]:
        """Landmarks (68, 2) of the face in a rectangle of a view, in the view's pixels."""
        parts = self._predictor(view, rectangle).parts()
        return np.array([(part.x, part.y) for part in parts], np.float64) + 0.5

    def _refine(self, portrait: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Landmarks (68, 2) in an UPRIGHT portrait: the mean over slightly shifted boxes.

        The box is the detector's mean one in FFHQ crops; the predictor was trained on such boxes.
        """
        x, y, side = UPRIGHT_BOX
        found = []
        for right, down in UPRIGHT_SHIFTS:
            left, top = round(x + right - side / 2), round(y + down - side / 2)
            rectangle = self._dlib.rectangle(left, top, round(left + side), round(top + side))
            found.append(self._predict(portrait, rectangle))
        return np.mean(found, axis=0)

    def _second_score(self, portrait: NDArray[np.uint8]) -> float:
        """The detector's score of the face in an UPRIGHT portrait; DISBELIEF where it sees none."""
        x, y, side = UPRIGHT_BOX
        rectangles, scores, _ = self._local_detector().run(portrait, 0, DISBELIEF)
        in_place = [
            score
            for rectangle, score in zip(rectangles, scores, strict=True)
            if abs(rectangle.center().x - x) < side / 4 and abs(rectangle.center().y - y) < side / 4
        ]
        return max(in_place, default=DISBELIEF)
