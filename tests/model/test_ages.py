import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ages import (
    LIFESPAN_CLUSTERS,
    AgeCluster,
    Pace,
    age_codes,
    age_range_years,
    anchor_weights,
    check_clusters,
    cluster_of_age,
    film_ages,
)


def test_the_six_clusters_are_the_published_ones():
    names = [cluster.name for cluster in LIFESPAN_CLUSTERS]
    assert names == ["0-2", "3-6", "7-9", "15-19", "30-39", "50-69"]
    centres = [cluster.centre_years for cluster in LIFESPAN_CLUSTERS]
    assert centres == [1.0, 4.5, 8.0, 17.0, 34.5, 59.5]


def test_an_anchor_centre_weighs_its_own_anchor_alone():
    centres = [cluster.centre_years for cluster in LIFESPAN_CLUSTERS]
    np.testing.assert_array_equal(anchor_weights(centres), np.eye(6, dtype=np.float32))


def test_an_age_halfway_between_centres_weighs_both_anchors_alike():
    np.testing.assert_allclose(anchor_weights(47.0), [0, 0, 0, 0, 0.5, 0.5])


def test_ages_beyond_the_outer_centres_weigh_the_outer_anchors():
    weights = anchor_weights([0.0, 69.0])
    np.testing.assert_array_equal(weights[:, [0, -1]], [[1, 0], [0, 1]])


@given(st.floats(0, 69))
def test_weights_are_convex_and_touch_at_most_two_neighbours(age):
    weights = anchor_weights(age)
    assert weights.sum() == pytest.approx(1, abs=1e-6)
    used = np.flatnonzero(weights)
    assert (weights >= 0).all()
    assert len(used) <= 2
    assert used[-1] - used[0] <= 1


@given(st.floats(0, 69), st.floats(0, 69))
def test_a_greater_age_never_moves_weight_to_a_younger_anchor(first, second):
    younger, older = sorted((first, second))
    position = anchor_weights([younger, older]) @ np.arange(6)
    assert position[1] >= position[0] - 1e-5


def test_weights_keep_the_shape_of_the_ages():
    assert anchor_weights(np.zeros((2, 3))).shape == (2, 3, 6)


def test_an_age_belongs_to_its_cluster_up_to_the_next_birthday():
    assert cluster_of_age(2.9, LIFESPAN_CLUSTERS) == 0
    assert cluster_of_age(3.0, LIFESPAN_CLUSTERS) == 1
    assert cluster_of_age(12.0, LIFESPAN_CLUSTERS) is None


def test_the_range_goes_from_the_first_low_to_the_last_high_bound():
    assert age_range_years(LIFESPAN_CLUSTERS) == (0.0, 69.0)


@pytest.mark.parametrize(
    "bounds", [[(0, 2)], [(0, 5), (5, 9)], [(10, 20), (0, 5)]], ids=["one", "overlap", "order"]
)
def test_clusters_that_are_no_sequence_are_refused(bounds):
    with pytest.raises(ValueError):
        check_clusters([AgeCluster.between(*pair) for pair in bounds])


def test_codes_of_one_population_are_the_published_ones():
    codes = age_codes(6)
    assert codes.shape == (1, 6, 300)
    np.testing.assert_array_equal(codes[0, 2], np.repeat(np.eye(6)[2], 50))


def test_the_neutral_code_is_the_mean_of_the_populations():
    codes = age_codes(6, populations=2, elements=3)
    assert codes.shape == (3, 6, 36)
    np.testing.assert_array_equal(codes[2], codes[:2].mean(0))
    assert codes[0, 1].sum() == codes[2, 1].sum() == 3


def test_a_film_has_as_many_frames_between_any_two_anchors_and_both_ends():
    ages = film_ages(0, 69, 11)
    assert ages.tolist() == pytest.approx([0, 2.75, 4.5, 6.25, 8, 12.5, 17, 25.75, 34.5, 47, 69])
    assert film_ages(69, 0, 11).tolist() == ages[::-1].tolist()


def test_a_film_of_years_has_as_many_frames_for_each():
    assert film_ages(20, 60, 5, pace=Pace.YEARS).tolist() == [20, 30, 40, 50, 60]


def test_a_film_within_two_anchors_goes_evenly():
    assert film_ages(20, 30, 3).tolist() == pytest.approx([20, 25, 30])


def test_a_film_before_the_first_anchor_stays_between_its_ends():
    assert film_ages(0, 0.5, 3).tolist() == [0, 0.5, 0.5]
