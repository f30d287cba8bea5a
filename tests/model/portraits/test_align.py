import json
import math
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.portraits.align import Alignment, Geometry, align, check_size, crop, inside
from model.portraits.detect import Face
from model.portraits.errors import FaceTooSmall, ImplausibleFace

SQUARE = [(0, 0), (128, 0), (128, 128), (0, 128)]


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return 10 * math.log10(255**2 / np.square(one.astype(float) - other).mean())


def simple_landmarks() -> NDArray[np.float64]:
    """Eyes 40 px apart around (100, 80) and a mouth 50 px below; the other points do not count."""
    landmarks = np.full((68, 2), np.nan)
    landmarks[36:42] = (80, 80)
    landmarks[42:48] = (120, 80)
    landmarks[48], landmarks[54] = (85, 130), (115, 130)
    return landmarks


def test_an_upright_face_gets_the_square_of_the_ffhq_recipe() -> None:
    alignment = align(simple_landmarks(), Geometry(128))
    half = max(2.0 * 40, 1.8 * 50)
    centre = np.array([100, 80 + 0.1 * 50])
    np.testing.assert_allclose(alignment.corners()[0], centre - half)
    np.testing.assert_allclose(alignment.corners()[2], centre + half)
    assert alignment.side_px == pytest.approx(2 * half)
    assert alignment.angle == pytest.approx(0)


def test_scale_widens_the_square_around_the_same_centre() -> None:
    near, wide = (align(simple_landmarks(), Geometry(128, scale)) for scale in (1.0, 2.2 / 1.8))
    assert wide.side_px == pytest.approx(near.side_px * 2.2 / 1.8)
    np.testing.assert_allclose(wide.to_photo([64, 64]), near.to_photo([64, 64]))


def test_turning_the_face_turns_the_square() -> None:
    angle = math.radians(30)
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    upright = align(simple_landmarks(), Geometry(128))
    turned = align(simple_landmarks() @ turn.T, Geometry(128))
    np.testing.assert_allclose(turned.corners(), upright.corners() @ turn.T, atol=1e-9)
    assert turned.angle == pytest.approx(30)


def test_landmarks_in_one_place_are_refused() -> None:
    with pytest.raises(ImplausibleFace):
        align(np.full((68, 2), 5.0), Geometry(128))


def test_points_go_to_the_photo_and_back() -> None:
    alignment = Alignment(256, -31.7, 812.4, 1.7, -0.9)
    points = np.random.default_rng(0).uniform(-400, 4000, (50, 2))
    np.testing.assert_allclose(alignment.to_portrait(alignment.to_photo(points)), points, atol=1e-6)
    np.testing.assert_allclose(alignment.to_photo(alignment.to_portrait(points)), points, atol=1e-6)


def test_corners_invert_within_a_hundredth_of_a_pixel(face: Face) -> None:
    alignment = align(face.landmarks, Geometry(128))
    assert np.abs(alignment.to_portrait(alignment.corners()) - SQUARE).max() < 0.01


def test_fields_survive_json() -> None:
    alignment = Alignment(256, -31.7, 812.4, 1.7, -0.9)
    assert Alignment.from_dict(json.loads(json.dumps(alignment.to_dict()))) == alignment
    with pytest.raises(TypeError):
        Alignment.from_dict({"resolution": 256})


@pytest.mark.parametrize("fields", [(0, 0, 0, 1, 0), (8, 0, 0, 0, 0), (8, math.nan, 0, 1, 0)])
def test_an_alignment_without_a_size_is_refused(
    fields: tuple[int, float, float, float, float],
) -> None:
    with pytest.raises(ValueError, match="alignment"):
        Alignment(*fields)


@pytest.mark.parametrize(("resolution", "scale"), [(0, 1.0), (128, 0.0), (128, math.nan)])
def test_a_geometry_without_a_size_is_refused(resolution: int, scale: float) -> None:
    with pytest.raises(ValueError, match="geometry"):
        Geometry(resolution, scale)


def test_another_resolution_shows_the_same_square(face: Face) -> None:
    alignment = align(face.landmarks, Geometry(128))
    np.testing.assert_allclose(alignment.at(256).corners(), alignment.corners())
    np.testing.assert_allclose(align(face.landmarks, Geometry(256)).corners(), alignment.corners())


def test_a_scaled_alignment_lies_in_the_photo_made_larger(face: Face) -> None:
    alignment = align(face.landmarks, Geometry(64))
    larger = align(face.landmarks * 2.5, Geometry(64))
    np.testing.assert_allclose(alignment.scaled(2.5).corners(), larger.corners(), atol=1e-6)


def test_of_aligned_is_the_centred_square() -> None:
    corners = Alignment.of_aligned(300, 200, 128).corners()
    np.testing.assert_allclose(corners, [(50, 0), (250, 0), (250, 200), (50, 200)])


def test_a_small_face_is_refused_with_both_sizes() -> None:
    alignment = Alignment(128, 0, 0, 0.25, 0)
    check_size(alignment, 32)
    with pytest.raises(FaceTooSmall) as caught:
        check_size(alignment, 33)
    assert (caught.value.side_px, caught.value.minimum_px) == (32, 33)


def test_cropping_an_aligned_portrait_at_its_own_size_changes_nothing(
    astronaut: NDArray[np.uint8],
) -> None:
    portrait = astronaut[:128, 150:278]
    same = crop(portrait, Alignment.of_aligned(128, 128, 128))
    np.testing.assert_array_equal(same, portrait)


def test_cropping_a_part_of_the_photo_takes_those_pixels(astronaut: NDArray[np.uint8]) -> None:
    part = crop(astronaut, Alignment(96, 150, 40, 1, 0))
    np.testing.assert_array_equal(part, astronaut[40:136, 150:246])


@pytest.mark.parametrize("side", [512, 384, 320, 200])
def test_shrinking_equals_a_lanczos_resize(astronaut: NDArray[np.uint8], side: int) -> None:
    photo = np.ascontiguousarray(astronaut[:side, :side])
    expected = np.asarray(Image.fromarray(photo).resize((128, 128), Image.Resampling.LANCZOS))
    upright = Alignment.of_aligned(side, side, 128)
    np.testing.assert_array_equal(crop(photo, upright), expected)
    turned_a_little = replace(upright, step_y=1e-9)
    assert psnr(crop(photo, turned_a_little), expected) > 36


@pytest.mark.parametrize("step", [0.5, 0.9, 1.3, 3.1])
def test_an_upright_square_shows_what_one_turned_by_a_hair_does(
    astronaut: NDArray[np.uint8], step: float
) -> None:
    upright = Alignment(64, 150.3, 40.7, step, 0.0)
    agreement = psnr(crop(astronaut, upright), crop(astronaut, replace(upright, step_y=1e-9)))
    assert agreement > 36


@pytest.mark.parametrize("degrees", [0.0, 30.0])
def test_detail_finer_than_the_portrait_averages_out(degrees: float) -> None:
    checkers = np.indices((1024, 1024)).sum(0) % 2 * 255
    photo = np.repeat(checkers[..., None], 3, axis=2).astype(np.uint8)
    portrait = crop(photo, Alignment.around((512, 512), 600, degrees, 128))
    assert np.abs(portrait.astype(int) - 127).max() <= 12


@pytest.mark.parametrize(
    ("side_px", "resolution"), [(40.0, 64), (63.0, 64), (90.0, 64), (160.0, 32), (170.0, 16)]
)
def test_a_ramp_lies_where_the_alignment_says(side_px: float, resolution: int) -> None:
    across, down = np.meshgrid(np.arange(256), np.arange(256))
    photo = np.stack([across, down, 0 * down], axis=-1).astype(np.uint8)
    alignment = Alignment.around((130, 120), side_px, 25, resolution)
    portrait = crop(photo, alignment)
    columns, rows = np.meshgrid(*[np.arange(resolution) + 0.5] * 2)
    expected = alignment.to_photo(np.stack([columns, rows], axis=-1)) - 0.5
    error = (portrait[..., :2] - expected)[3:-3, 3:-3]
    assert np.abs(error).max() < 1.5
    assert np.abs(error.mean((0, 1))).max() < 0.3


def test_beyond_the_photo_it_is_mirrored(astronaut: NDArray[np.uint8]) -> None:
    portrait = crop(astronaut, Alignment(96, -40, 200, 1, 0))
    np.testing.assert_array_equal(portrait[:, 40:], astronaut[200:296, :56])
    np.testing.assert_array_equal(portrait[:, :40], astronaut[200:296, 1:41][:, ::-1])


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (3, 2)])
def test_any_photo_can_be_cropped_from_anywhere(shape: tuple[int, int]) -> None:
    photo = np.full((*shape, 3), 90, np.uint8)
    for centre in ((0.5, 0.5), (-500.0, 40.0)):
        portrait = crop(photo, Alignment.around(centre, 900, 20, 32))
        assert portrait.shape == (32, 32, 3)
        assert (portrait == 90).all()


def test_inside_tells_the_photo_from_its_mirrored_surroundings() -> None:
    covered = inside(Alignment(100, -40, -10.5, 1, 0), 30, 400)
    assert covered.dtype == np.float32
    expected = np.zeros((100, 100))
    expected[11:, 40:70] = 1
    expected[10, 40:70] = 0.5
    np.testing.assert_allclose(covered, expected, atol=1e-6)
    assert (inside(Alignment.around((200, 200), 100, 30, 64), 400, 400) == 1).all()
