from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.ages import Pace
from model.bundle import Manifest
from service import targets
from service.errors import (
    AgeOutOfRange,
    InvalidFaceTarget,
    InvalidRequest,
    InvalidWeights,
    NotContinuous,
    UnknownAnchor,
    UnknownGroup,
)
from tests.bundles import ANCHORS, write_tiny_bundle


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return write_tiny_bundle(tmp_path_factory.mktemp("bundle") / "tiny").manifest


@pytest.fixture(scope="module")
def anchors_only(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    path: Path = tmp_path_factory.mktemp("bundle") / "tiny"
    return write_tiny_bundle(path, continuous=False).manifest


def test_an_anchor_is_its_own_centre(manifest: Manifest):
    target = targets.of_anchor(manifest, "50-69")
    assert target.weights == (0, 0, 0, 0, 0, 1)
    assert (target.effective_age_years, target.label, target.anchor) == (59.5, "50-69", 5)


def test_an_age_between_anchors_mixes_the_two(manifest: Manifest):
    target = targets.of_age(manifest, 40.0)
    assert np.count_nonzero(target.weights) == 2
    assert target.effective_age_years == 40
    assert target.label == "40.0"


@pytest.mark.parametrize(("asked", "effective"), [(0, 1.0), (69, 59.5), (1, 1.0), (12, 12)])
def test_ages_beyond_the_outer_centres_show_those(
    manifest: Manifest, asked: float, effective: float
):
    assert targets.of_age(manifest, asked).effective_age_years == effective


@pytest.mark.parametrize("asked", [-1, 69.5, 300, float("nan"), float("inf")])
def test_an_age_out_of_range_names_the_range(manifest: Manifest, asked: float):
    with pytest.raises(AgeOutOfRange, match="0 to 69 years") as caught:
        targets.of_age(manifest, asked)
    assert caught.value.members == {"low_years": 0, "high_years": 69}


def test_an_unknown_anchor_lists_those_there_are(manifest: Manifest):
    with pytest.raises(UnknownAnchor) as caught:
        targets.of_anchor(manifest, "80-99")
    assert list(caught.value.members["anchors"]) == ANCHORS


@pytest.mark.parametrize(
    "text",
    ["", "1", "1,0,0,0,0", "a,0,0,0,0,1", "0.5,0,0,0,0,0.4", "2,-1,0,0,0,0", "nan,0,0,0,0,1"],
)
def test_weights_that_are_no_mix_are_refused(manifest: Manifest, text: str):
    with pytest.raises(InvalidWeights):
        targets.of_weights(manifest, text)


def test_weights_have_the_mean_age_as_effective_age(manifest: Manifest):
    target = targets.of_weights(manifest, "0.5, 0, 0, 0, 0, 0.5")
    assert target.effective_age_years == pytest.approx((1 + 59.5) / 2)


def test_weights_almost_of_sum_one_are_brought_to_it(manifest: Manifest):
    assert sum(targets.of_weights(manifest, "0.3333,0.3333,0.3333,0,0,0").weights) == 1.0


def test_nothing_asked_is_every_anchor(manifest: Manifest):
    assert [target.name for target in targets.chosen(manifest, [], [], [])] == ANCHORS


def test_targets_keep_the_order_anchors_ages_weights(manifest: Manifest):
    asked = targets.chosen(manifest, ["7-9", "all"], [25.0], ["0,0,0,0,0,1"])
    assert [target.name for target in asked] == ["7-9", *ANCHORS, None, None]
    assert asked[7].age_years == 25


@pytest.mark.parametrize(
    ("pace", "wanted"),
    [
        (Pace.YEARS, np.linspace(1, 59.5, 11)),
        (Pace.ANCHORS, [1, 2.75, 4.5, 6.25, 8, 12.5, 17, 25.75, 34.5, 47, 59.5]),
    ],
)
def test_a_sequence_has_even_steps_and_both_ends(
    manifest: Manifest, pace: Pace, wanted: list[float]
):
    frames = targets.between(manifest, "0-2", "61", 11, pace)
    ages = [frame.effective_age_years for frame in frames]
    assert ages == pytest.approx(wanted)


def test_a_sequence_may_run_backwards(manifest: Manifest):
    frames = targets.between(manifest, "50-69", "0-2", 3)
    assert frames[0].effective_age_years > frames[-1].effective_age_years


def test_a_sequence_of_one_frame_is_refused(manifest: Manifest):
    with pytest.raises(InvalidRequest):
        targets.between(manifest, None, None, 1)


def test_a_model_of_anchors_alone_refuses_what_lies_between(anchors_only: Manifest):
    assert len(targets.chosen(anchors_only, ["all"], [], [])) == 6
    with pytest.raises(NotContinuous):
        targets.of_age(anchors_only, 12)
    with pytest.raises(NotContinuous):
        targets.of_weights(anchors_only, "0.5,0.5,0,0,0,0")
    assert targets.of_weights(anchors_only, "0,1,0,0,0,0").anchor == 1
    with pytest.raises(NotContinuous):
        targets.between(anchors_only, None, None, 24)


def test_faces_have_targets_of_their_own_in_the_order_asked(manifest: Manifest):
    found = targets.of_faces(manifest, ["2:50-69", "0:7.5"])
    assert list(found) == [2, 0]
    assert (found[2].name, found[0].age_years) == ("50-69", 7.5)


@pytest.mark.parametrize("text", ["50-69", "0:", ":50-69", "-1:50-69", "a:50-69", "²:0-2", ""])
def test_a_face_target_without_face_or_target_is_refused(manifest: Manifest, text: str):
    with pytest.raises(InvalidFaceTarget):
        targets.of_faces(manifest, [text])


def test_a_face_has_one_target_and_one_that_exists(manifest: Manifest):
    with pytest.raises(InvalidFaceTarget, match="two targets"):
        targets.of_faces(manifest, ["1:0-2", "01:3-6"])
    with pytest.raises(UnknownAnchor):
        targets.of_faces(manifest, ["1:old"])
    with pytest.raises(AgeOutOfRange):
        targets.of_faces(manifest, ["1:300"])


def test_no_group_is_the_default_one(manifest: Manifest):
    assert targets.group_of(manifest, None) == "neutral"
    with pytest.raises(UnknownGroup):
        targets.group_of(manifest, "everybody")


@given(age=st.floats(0, 69))
def test_every_age_in_range_is_a_convex_mix_near_it(manifest: Manifest, age: float):
    target = targets.of_age(manifest, age)
    assert sum(target.weights) == pytest.approx(1, abs=1e-5)
    assert min(target.weights) >= 0
    centres = [anchor.centre_years for anchor in manifest.anchors]
    assert np.dot(target.weights, centres) == pytest.approx(target.effective_age_years, abs=1e-3)
