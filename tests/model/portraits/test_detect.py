import importlib.util
import io
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from skimage import data

from model.portraits import detect
from model.portraits.align import Geometry, align
from model.portraits.detect import DlibLandmarker, Face, landmarks_file, pick_face
from model.portraits.errors import NoSuchFace
from model.portraits.photo import read_photo

PORTRAIT = Geometry(128)


def displacement(found: Face, expected: NDArray[np.float64]) -> float:
    """Largest distance between the corners of the face's square and those expected, photo px."""
    corners = align(found.landmarks, PORTRAIT).corners()
    return float(np.hypot(*(corners - expected).T).max())


@pytest.fixture(scope="session")
def corners(face: Face) -> NDArray[np.float64]:
    return align(face.landmarks, PORTRAIT).corners()


def test_the_astronaut_has_one_face_where_it_is(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8]
) -> None:
    (face,) = landmarker.detect(astronaut)
    left, top, right, bottom = face.box
    assert left < 224 < right
    assert top < 120 < bottom
    assert face.landmarks.shape == (68, 2)
    eyes = face.landmarks[36:42].mean(0), face.landmarks[42:48].mean(0)
    np.testing.assert_allclose(eyes, [(204, 102), (247, 104)], atol=3)


@pytest.mark.parametrize("side", [200, 1024, 3000])
def test_size_hardly_moves_the_alignment(
    landmarker: DlibLandmarker,
    astronaut: NDArray[np.uint8],
    corners: NDArray[np.float64],
    side: int,
) -> None:
    photo = Image.fromarray(astronaut).resize((side, side), Image.Resampling.LANCZOS)
    (face,) = landmarker.detect(np.asarray(photo))
    assert displacement(face, corners * side / 512) < 0.01 * 173 * side / 512


def test_a_small_face_is_found_by_the_larger_search(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8]
) -> None:
    photo = np.pad(astronaut, ((300, 500), (700, 300), (0, 0)), constant_values=90)
    (face,) = landmarker.detect(photo)
    left, top, right, bottom = face.box
    assert left < 924 < right
    assert top < 420 < bottom


@pytest.mark.parametrize("degrees", [20, -20, 45, -45])
def test_a_tilted_face_is_aligned_with_its_tilt(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8], face: Face, degrees: int
) -> None:
    turned = Image.fromarray(astronaut).rotate(-degrees, Image.Resampling.BICUBIC)
    (found,) = landmarker.detect(np.asarray(turned))
    expected = align(face.landmarks, PORTRAIT).angle + degrees
    assert align(found.landmarks, PORTRAIT).angle == pytest.approx(expected, abs=2)


@pytest.mark.parametrize(("left", "top"), [(0, 80), (190, 0)])
def test_a_face_cut_by_the_border_is_found_and_aligned(
    landmarker: DlibLandmarker,
    astronaut: NDArray[np.uint8],
    corners: NDArray[np.float64],
    left: int,
    top: int,
) -> None:
    (face,) = landmarker.detect(np.ascontiguousarray(astronaut[top:, left:]))
    assert displacement(face, corners - (left, top)) < 0.03 * 173


def test_a_photo_stored_sideways_gives_the_same_alignment(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8], corners: NDArray[np.float64]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    stored = Image.fromarray(astronaut).transpose(Image.Transpose.ROTATE_90)
    stored.save(buffer, "PNG", exif=exif)
    (face,) = landmarker.detect(read_photo(buffer.getvalue()).pixels)
    assert displacement(face, corners) < 0.01


def test_the_largest_face_comes_first(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8]
) -> None:
    head = astronaut[:256, 96:352]
    large = np.asarray(Image.fromarray(head).resize((384, 384), Image.Resampling.LANCZOS))
    photo = np.full((384, 640, 3), 90, np.uint8)
    photo[:256, :256], photo[:, 256:] = head, large
    first, second = landmarker.detect(photo)
    assert first.box[0] > 256 > second.box[2]
    assert first.area_px > second.area_px


@pytest.mark.parametrize("name", ["coffee", "chelsea"])
def test_a_photo_without_people_has_no_face(landmarker: DlibLandmarker, name: str) -> None:
    assert landmarker.detect(getattr(data, name)()) == []


@pytest.mark.parametrize("shape", [(1, 1), (2, 900), (30, 20)])
def test_odd_sizes_have_no_face(landmarker: DlibLandmarker, shape: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    assert landmarker.detect(noise) == []


def test_threads_share_a_landmarker(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8], face: Face
) -> None:
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(landmarker.detect, [astronaut] * 12))
    for faces in found:
        np.testing.assert_array_equal(faces[0].landmarks, face.landmarks)


def test_a_face_outside_the_list_is_refused(face: Face) -> None:
    assert pick_face([face], 0) is face
    for index in (-1, 1):
        with pytest.raises(NoSuchFace) as caught:
            pick_face([face], index)
        assert (caught.value.index, caught.value.count) == (index, 1)


def test_a_missing_model_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(FileNotFoundError, match="no landmark model"):
        DlibLandmarker(tmp_path / "absent.dat")
    monkeypatch.setattr(detect, "MODELS_PACKAGE", "a_package_that_is_not_there")
    with pytest.raises(FileNotFoundError, match="pip install face-recognition-models"):
        DlibLandmarker()


def test_the_model_is_located_without_importing_its_package() -> None:
    assert landmarks_file().is_file()
    assert importlib.util.find_spec(detect.MODELS_PACKAGE) is not None
    assert detect.MODELS_PACKAGE not in sys.modules


@pytest.mark.parametrize("shape", [(1, 20_000), (20_000, 1), (7, 2000), (1, 1), (9, 9), (20, 900)])
def test_a_picture_too_narrow_for_a_face_is_not_searched(
    landmarker: DlibLandmarker, shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def search(pixels: NDArray[np.uint8]) -> Any:
        raise AssertionError("it was searched")

    monkeypatch.setattr(landmarker, "_views", search)
    assert landmarker.detect(np.full((*shape, 3), 128, np.uint8)) == []


def test_a_face_in_a_narrow_strip_is_found(
    landmarker: DlibLandmarker, astronaut: NDArray[np.uint8]
) -> None:
    strip = np.full((240, 1600, 3), 128, np.uint8)
    strip[:, 900:1140] = astronaut[:240, 100:340]
    (face,) = landmarker.detect(strip)
    assert 900 < face.box[0] < face.box[2] < 1140
