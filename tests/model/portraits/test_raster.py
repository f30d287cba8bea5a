import numpy as np
import pytest
from PIL import Image, ImageFilter

from model.portraits.raster import blurred, filled, resized, sampled, sampled_at


def ramp(side: int) -> np.ndarray:
    """A raster that is its pixels' centres, (x, y)."""
    places = np.arange(side, dtype=np.float32) + np.float32(0.5)
    return np.stack(np.meshgrid(places, places), axis=-1)


def test_resizing_keeps_means_and_slopes() -> None:
    small = resized(ramp(64), 16)
    np.testing.assert_allclose(small, 4 * ramp(16), atol=1e-4)
    large = resized(ramp(16), 64)
    np.testing.assert_allclose(large[8:-8, 8:-8], ramp(64)[8:-8, 8:-8] / 4, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.8, 2.0])
def test_blurring_is_a_gaussian_that_keeps_a_constant(sigma: float) -> None:
    np.testing.assert_allclose(blurred(np.full((20, 20), 7, np.float32), sigma), 7, rtol=1e-5)
    point = np.zeros((41, 41), np.float32)
    point[20, 20] = 1
    result = blurred(point, sigma)
    y, x = np.mgrid[:41, :41] - 20
    assert (result * x**2).sum() == pytest.approx(sigma**2, rel=0.05)
    assert (result * y**2).sum() == pytest.approx(sigma**2, rel=0.05)
    both = blurred(np.stack([point, 2 * point], axis=-1), sigma)
    np.testing.assert_allclose(both[..., 1], 2 * result, atol=1e-6)


def test_a_raster_is_looked_up_where_the_shift_points() -> None:
    shift = np.full((32, 32, 2), (2.5, -1.25), np.float32)
    looked = sampled(ramp(32), shift)
    np.testing.assert_allclose(looked[4:-4, 4:-4], (ramp(32) + shift)[4:-4, 4:-4], atol=1e-4)
    assert looked.min() >= 0.5
    assert looked.max() <= 31.5


def test_points_beyond_the_edge_see_the_edge() -> None:
    raster = ramp(8)[..., 0]
    np.testing.assert_allclose(sampled_at(raster, np.array([(-5.0, 3.0), (50.0, 3.0)])), [0.5, 7.5])


def test_a_hole_is_filled_with_what_is_around_it() -> None:
    raster = ramp(60)
    known = np.ones((60, 60), np.float32)
    known[20:40, 15:45] = 0
    broken = np.where(known[..., None] == 1, raster, -1000)
    result = filled(broken.astype(np.float32), known)
    np.testing.assert_array_equal(result[known == 1], raster[known == 1])
    assert np.abs(result - raster).max() < 10


def test_a_raster_of_which_nothing_is_known_stays_finite() -> None:
    result = filled(np.full((9, 9, 3), 100, np.float32), np.zeros((9, 9), np.float32))
    assert np.isfinite(result).all()


def test_blurring_agrees_with_pillow() -> None:
    levels = np.random.default_rng(1).integers(0, 256, (50, 50)).astype(np.uint8)
    theirs = np.asarray(Image.fromarray(levels).filter(ImageFilter.GaussianBlur(2)), float)
    difference = np.abs(blurred(levels.astype(np.float32), 2.0) - theirs)
    assert difference[8:-8, 8:-8].mean() < 3
