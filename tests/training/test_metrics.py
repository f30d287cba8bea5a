import numpy as np
import pytest
from skimage import data as photographs

from model.ages import LIFESPAN_CLUSTERS
from model.portraits.detect import DlibLandmarker
from training.metrics import (
    displacement,
    distances,
    head_turn,
    interval,
    judged_clusters,
    kernel_distance,
    kernel_distance_floor,
    psnr_db,
    rank_correlation,
    sharpness,
    skin_luminance,
    ssim,
)

PORTRAIT = np.ascontiguousarray(photographs.astronaut()[16:189, 138:311])


def softened(picture):
    wide = np.pad(picture.astype(float), ((1, 1), (1, 1), (0, 0)), mode="edge")
    parts = [wide[y : y + len(picture), x : x + len(picture)] for y in range(3) for x in range(3)]
    return np.mean(parts, axis=0).round().astype(np.uint8)


def test_an_age_belongs_to_the_nearest_cluster():
    ages = [-3.0, 2.4, 2.6, 11.9, 12.1, 24.4, 24.6, 44.6, 90.0]
    assert judged_clusters(ages, LIFESPAN_CLUSTERS).tolist() == [0, 0, 1, 2, 3, 3, 4, 5, 5]


def test_one_grey_level_of_error_is_48_db_and_none_at_all_has_no_ratio():
    assert psnr_db(PORTRAIT, PORTRAIT) is None
    lighter = np.full((4, 4, 3), 101, np.uint8)
    assert psnr_db(lighter, lighter - np.uint8(1)) == pytest.approx(48.13, abs=0.01)


def test_structure_is_kept_by_brightness_and_lost_by_noise():
    noise = np.random.default_rng(0).integers(-60, 60, PORTRAIT.shape)
    noisy = np.clip(PORTRAIT + noise, 0, 255).astype(np.uint8)
    darker = (PORTRAIT * 0.9).astype(np.uint8)
    assert ssim(PORTRAIT, PORTRAIT) == 1
    assert ssim(noisy, PORTRAIT) < 0.7 < ssim(darker, PORTRAIT)


def test_displacement_is_the_mean_distance():
    moved = np.zeros((68, 2))
    moved[:34] = (3, 4)
    assert displacement(np.zeros((68, 2)), moved) == 2.5


def test_distances_are_euclidean_and_unknown_where_a_row_is():
    first = np.array([[0.0, 0.0], [np.nan, 1.0]])
    table = distances(first, np.array([[3.0, 4.0], [0.0, 0.0], [0.0, 1.0]]))
    assert table[0] == pytest.approx([5, 0, 1])
    assert np.isnan(table[1]).all()


@pytest.mark.parametrize("tilt", [0.0, 0.5])
def test_a_head_turns_as_far_as_its_nose_moves_along_the_eyes(tilt):
    turned = np.zeros((68, 2))
    turned[36], turned[45], turned[30] = (-1, 0), (1, 0), (-0.5, 1)
    turn = np.array([[np.cos(tilt), np.sin(tilt)], [-np.sin(tilt), np.cos(tilt)]])
    assert head_turn(turned @ turn) == pytest.approx(0.5)
    assert head_turn(turned * (-1, 1) @ turn) == pytest.approx(0.5)


def test_the_luminance_of_skin_is_that_of_cheeks_and_nose_alone():
    photo = photographs.astronaut()
    (face,) = DlibLandmarker().detect(photo)
    landmarks = face.landmarks / len(photo)
    found = skin_luminance(photo, landmarks)
    assert 120 < found < 220
    darker = (photo * 0.5).astype(np.uint8)
    assert skin_luminance(darker, landmarks) == pytest.approx(found / 2, abs=1)
    x, y = face.landmarks.T.round().astype(int)
    painted = photo.copy()
    painted[: y[19]] = painted[y[51] : y[57], x[49] : x[53]] = 0  # hair and brows, lips
    painted[:, : x[0]] = painted[:, x[16] :] = 255
    assert skin_luminance(painted, landmarks) == pytest.approx(found, abs=1)
    assert np.isnan(skin_luminance(photo, np.full((68, 2), np.nan)))


def test_sharpness_falls_when_a_picture_is_softened_and_does_not_see_its_border():
    framed = PORTRAIT.copy()
    framed[:20], framed[:, -20:] = 255, 0
    assert sharpness(softened(PORTRAIT)) < 0.5 * sharpness(PORTRAIT)
    assert sharpness(framed) == sharpness(PORTRAIT)


def test_sets_of_one_distribution_are_at_the_floor_and_a_moved_one_is_above_it():
    random = np.random.default_rng(0)
    real, other = random.normal(size=(200, 16)), random.normal(size=(200, 16))
    floor = kernel_distance_floor([real])
    assert abs(kernel_distance(real, other)) < 2 * floor
    assert kernel_distance(real, other + 0.5) > 5 * floor


def test_the_kernel_distance_is_unbiased():
    random = np.random.default_rng(1)
    found = [kernel_distance(*random.normal(size=(2, 20, 4))) for _ in range(400)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(len(found))


def test_the_interval_holds_the_mean_and_narrows_with_more_values():
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = interval(values)
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 / 20, rel=0.15)
    assert interval([1.0]) is None


def test_rank_correlation_asks_for_order_alone():
    assert rank_correlation([1, 2, 30, 400]) == 1
    assert rank_correlation([3, 2, 1]) == -1
    assert rank_correlation([5, 5, 5]) == 0
    assert rank_correlation([1, 1, 2]) == pytest.approx(0.866, abs=1e-3)
