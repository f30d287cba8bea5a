import math

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.portraits.align import Alignment, Geometry, align, crop
from model.portraits.composite import composite, soften
from model.portraits.detect import Face


def psnr(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return 10 * math.log10(255**2 / np.square(one.astype(float) - other).mean())


def disc(side: int, radius: float = 0.35) -> NDArray[np.float32]:
    x, y = np.meshgrid(*[(np.arange(side) + 0.5) / side - 0.5] * 2)
    return (np.hypot(x, y) < radius).astype(np.float32)


def photo_mask(alignment: Alignment, radius: float, side: int = 512) -> NDArray[np.bool_]:
    """Where the photo's pixel centres are within `radius` portrait sides of the square's centre."""
    x, y = np.meshgrid(*[np.arange(side) + 0.5] * 2)
    points = alignment.to_portrait(np.stack([x, y], -1)) / alignment.resolution - 0.5
    return np.hypot(points[..., 0], points[..., 1]) < radius


@pytest.mark.parametrize("resolution", [64, 128, 256])
def test_a_crop_pasted_back_is_the_photo_at_the_portraits_resolution(
    astronaut: NDArray[np.uint8], face: Face, resolution: int
) -> None:
    alignment = align(face.landmarks, Geometry(resolution))
    result = composite(astronaut, crop(astronaut, alignment), disc(resolution), alignment)
    outside, inside = ~photo_mask(alignment, 0.38), photo_mask(alignment, 0.3)
    np.testing.assert_array_equal(result[outside], astronaut[outside])

    photo = Image.fromarray(astronaut)
    shrunk = round(512 / max(1, alignment.step_px))
    low = photo.resize((shrunk, shrunk), Image.Resampling.LANCZOS).resize(
        (512, 512), Image.Resampling.BICUBIC
    )
    assert psnr(result[inside], np.asarray(low)[inside]) >= 35


def test_a_turned_portrait_lands_where_its_alignment_says() -> None:
    photo = np.zeros((300, 400, 3), np.uint8)
    alignment = Alignment.around((230, 140), 160, 30, 64)
    portrait = np.zeros((64, 64, 3), np.uint8)
    portrait[16:20, 40:44] = 255
    result = composite(photo, portrait, np.ones((64, 64), np.float32), alignment)
    weight = result[..., 0].astype(float)
    rows, columns = np.indices(weight.shape) + 0.5
    centre = [(weight * columns).sum() / weight.sum(), (weight * rows).sum() / weight.sum()]
    np.testing.assert_allclose(centre, alignment.to_photo((42, 18)), atol=0.3)


def test_the_crops_border_never_shows_even_where_the_mask_reaches_it(
    astronaut: NDArray[np.uint8], face: Face
) -> None:
    alignment = align(face.landmarks, Geometry(128))
    white = np.full((128, 128, 3), 255, np.uint8)
    result = composite(astronaut, white, np.ones((128, 128), np.float32), alignment)
    change = np.abs(result.astype(int) - astronaut).max(-1)
    assert (result[100:140, 200:250] == 255).all()
    x, y = np.meshgrid(*[np.arange(512) + 0.5] * 2)
    points = alignment.to_portrait(np.stack([x, y], -1))
    at_border = (np.minimum(points, 128 - points) < 1).any(-1)
    assert change[at_border].max() == 0


def test_an_empty_mask_leaves_the_photo_alone(astronaut: NDArray[np.uint8], face: Face) -> None:
    alignment = align(face.landmarks, Geometry(128))
    portrait = np.zeros((128, 128, 3), np.uint8)
    before = astronaut.copy()
    result = composite(astronaut, portrait, np.zeros((128, 128), np.float32), alignment)
    np.testing.assert_array_equal(result, astronaut)
    assert result is not astronaut
    composite(astronaut, portrait, np.ones((128, 128), np.float32), alignment)
    np.testing.assert_array_equal(astronaut, before)


def test_a_large_portrait_shrinks_into_a_small_face_without_aliasing() -> None:
    photo = np.full((100, 100, 3), 127, np.uint8)
    checkers = (np.indices((256, 256)).sum(0) % 2 * 255).astype(np.uint8)
    portrait = np.repeat(checkers[..., None], 3, axis=2)
    alignment = Alignment.around((50, 50), 60, 10, 256)
    result = composite(photo, portrait, np.ones((256, 256), np.float32), alignment)
    assert np.abs(result.astype(int) - 127).max() <= 3


@pytest.mark.parametrize("centre", [(0.0, 50.0), (99.0, 99.0), (-300.0, 50.0)])
def test_a_square_that_leaves_the_photo_is_pasted_as_far_as_it_goes(
    centre: tuple[float, float],
) -> None:
    photo = np.zeros((100, 100, 3), np.uint8)
    white = np.full((64, 64, 3), 255, np.uint8)
    alignment = Alignment.around(centre, 80, 15, 64)
    result = composite(photo, white, np.ones((64, 64), np.float32), alignment)
    assert result.shape == photo.shape
    assert result.any() == (centre[0] >= 0)


def test_the_portrait_may_have_another_resolution_than_the_alignment(
    astronaut: NDArray[np.uint8], face: Face
) -> None:
    alignment = align(face.landmarks, Geometry(64))
    portrait = crop(astronaut, alignment.at(256))
    result = composite(astronaut, portrait, disc(256), alignment)
    assert psnr(result, astronaut) > 40


def test_softening_moves_the_edge_inwards() -> None:
    alpha = disc(128)
    softened = soften(alpha, 1 / 64)
    assert softened.max() == 1
    assert softened[alpha == 0].max() < 0.1
    assert softened[disc(128, 0.36) == 0].max() == 0
    assert softened[disc(128, 0.3) == 1].min() > 0.9
