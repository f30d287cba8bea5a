import dataclasses

import numpy as np
import pytest

from tests.bundles import write_tiny_bundle
from training.evaluate import FRAMES, Measurement
from training.figures import (
    ages,
    by_sharpness,
    by_skin,
    by_turn,
    chief_figures,
    distribution,
    figures,
    groups_kept,
    head_shape,
    identity,
    interpolation,
    wanted_table,
    years_outside,
)
from training.judge import Judge

CENTRES = np.array([1, 4.5, 8, 17, 34.5, 59.5])
EACH = 100
"""Portraits of each cluster, half of them of each group."""


@pytest.fixture(scope="module")
def seen(tmp_path_factory):
    """600 strangers, each made into the same person of exactly the wanted age."""
    random = np.random.default_rng(0)
    count = 6 * EACH
    clusters = np.repeat(np.arange(6), EACH)
    columns = np.concatenate([clusters[:, None], np.tile(np.arange(6), (count, 1))], 1)
    features = random.normal(size=(count, 7, 8)) + columns[..., None]
    landmarks = np.zeros((count, 7, 68, 2))
    landmarks[:, 1:, :, 0] = np.arange(6)[:, None] / 100
    person = random.normal(size=(count, 1, 128))
    return Measurement(
        bundle=write_tiny_bundle(tmp_path_factory.mktemp("figures") / "tiny", resolution=32),
        judge=Judge(),
        group="neutral",
        rows=np.arange(count),
        clusters=clusters,
        labels=np.array(["female", "male"])[np.arange(count) % 2],
        sources=np.array(["ffhq", "aaf", "aaf"])[np.arange(count) % 3],
        skin=np.where(np.arange(count) % 4, np.arange(count, 0.0, -1), np.nan),
        turn=np.tile([0.0, 0.2, 0.5, 0.5], count // 4),
        sharpness=np.arange(1.0, count + 1)[:, None] * np.ones(7),
        years=CENTRES[columns],
        kind=np.tile((np.arange(count) % 2)[:, None], (1, 7)),
        features=features,
        landmarks=landmarks,
        descriptors=np.tile(person, (1, 7, 1)),
        psnr_db=np.where(np.arange(count) < count / 3, 20.0, 30.0),
        ssim=np.full(count, 0.9),
        cycle_psnr_db=np.full((count, 6), 25.0),
        cycle_ssim=np.full((count, 6), 0.8),
        own_years=np.full((count, 6), np.nan),
        own_kind=np.full((count, 6), np.nan),
        walked=np.array([0, 1]),
        walk_years=np.tile(np.linspace(1, 60, FRAMES), (2, 1)),
        walk_steps=np.ones((2, FRAMES - 1)),
    )


def test_the_right_ages_fill_the_diagonal_and_stand_beside_real_ones(seen):
    assert wanted_table(seen)["table"] == np.eye(6).tolist()
    rows = [row for row in ages(seen) if row["label"] is None]
    assert [row["mean_years"] for row in rows] == CENTRES.tolist()
    assert [row["real"]["portraits"] for row in rows] == [EACH] * 6
    assert rows[5]["judge_mae_years"] == seen.judge.error["clusters"]["50-69"]["mae_years"]


def test_years_outside_count_from_the_bounds(seen):
    years = np.array([[4.0, 4.0, 4.0, 40.0, 35.0, 45.0]])
    outside = years_outside(years, seen.bundle.manifest.clusters)
    assert outside.tolist() == [[2, 0, 3, 21, 0, 5]]


def test_a_judge_that_errs_on_portraits_is_seen_beside_its_verdict_on_pictures(seen):
    years = seen.years.copy()
    years[:, 0] += 30
    # Of one cluster few, which count as much as all others, as they do among the pictures.
    mask = (seen.labels == "female") & ((seen.clusters != 2) | (np.arange(len(years)) % 4 == 0))
    assert 0 < (mask & (seen.clusters == 2)).sum() < (mask & (seen.clusters == 3)).sum()
    found = chief_figures(dataclasses.replace(seen, years=years), mask)
    assert found["years_outside"] == 0
    beyond = [
        max(0, centre + 30 - c.high_years)
        for centre, c in zip(CENTRES, seen.bundle.manifest.clusters, strict=True)
    ]
    assert found["real_years_outside"] == pytest.approx(np.mean(beyond), abs=0.01)


def test_a_picture_without_a_face_is_no_match_and_leaves_the_mean_distance(seen):
    descriptors = seen.descriptors.copy()
    descriptors[::2, 3] = np.nan
    row = identity(dataclasses.replace(seen, descriptors=descriptors))[2]
    assert row["distance"] == 0
    assert row["share"] == row["rank1_share"] == 0.5
    assert row["faces_not_found"] == 3 * EACH


def test_impostors_are_other_portraits_of_the_same_cluster_and_group(seen):
    descriptors = seen.descriptors.copy()
    women = (seen.clusters == 1) & (seen.labels == "female")
    descriptors[women] = descriptors[women][:1]
    rows = identity(dataclasses.replace(seen, descriptors=descriptors))
    assert rows[1]["impostor_share"] == pytest.approx(0.5)
    assert rows[1]["impostor_pairs"] == 2 * (50 * 49 // 2)
    assert rows[0]["impostor_share"] == 0


def test_sets_of_a_hundred_are_compared_and_smaller_ones_pooled(seen):
    rows = distribution(seen)
    assert [(row["anchor"], row["label"]) for row in rows] == [
        *((name, None) for name in ("0-2", "3-6", "7-9", "15-19", "30-39", "50-69")),
        (None, None),
    ]
    assert (rows[0]["real"], rows[0]["generated"]) == (EACH, 5 * EACH)
    assert all(row["distance"] < 2 * row["floor"] for row in rows)
    unchanged = seen.features.copy()
    unchanged[:, 1:] = unchanged[:, :1]
    others = distribution(dataclasses.replace(seen, features=unchanged))
    assert all(row["distance"] > 5 * row["floor"] for row in others)


def test_bins_hold_every_portrait_once(seen):
    assert [one["portraits"] for one in by_turn(seen)] == [150, 150, 300]
    soft, middling, crisp = by_sharpness(seen)
    assert [soft["psnr_db"], middling["psnr_db"], crisp["psnr_db"]] == [20, 30, 30]
    assert soft["interpolations"] == 2
    assert crisp["rank_correlation"] is None


def test_skin_is_binned_by_thirds_where_a_face_was_seen(seen):
    bins = by_skin(seen)
    assert [one["bin"] for one in bins] == ["darker", "medium", "lighter"]
    assert [one["portraits"] for one in bins] == [150] * 3, "a quarter of 600 has no face"
    # The lightest come first, and the first third is rebuilt worse.
    assert bins[2]["psnr_db"] < bins[1]["psnr_db"] <= bins[0]["psnr_db"] == 30
    unseen = dataclasses.replace(seen, skin=np.full(len(seen.rows), np.nan))
    assert [one["portraits"] for one in by_skin(unseen)] == [0] * 3


def test_groups_and_sources_have_figures_of_their_own(seen):
    details = figures(seen)["details"]
    portraits = {one["bin"]: one["portraits"] for one in details["by_label"]}
    assert portraits == {"female": 300, "male": 300}
    portraits = {one["bin"]: one["portraits"] for one in details["by_source"]}
    assert portraits == {"aaf": 400, "ffhq": 200}


def test_heads_that_change_shape_count_thrice_what_reconstruction_moves(seen):
    shape = head_shape(seen)
    assert shape["displacement_percent"] == pytest.approx(5)
    # Reconstruction moves a portrait of cluster k by k percent: 0 and 1 are under 5 / 3.
    assert shape["share_three_times"] == pytest.approx(2 / 6, abs=1e-3)
    still = dataclasses.replace(seen, landmarks=np.zeros_like(seen.landmarks))
    assert head_shape(still)["share_three_times"] == 0


def test_the_group_is_kept_where_the_judge_sees_the_labelled_one(seen):
    kind = seen.kind.copy()
    kind[:, 1] = 0
    rows = groups_kept(dataclasses.replace(seen, kind=kind))
    assert rows[0]["kept_share"] == 0.5
    assert rows[1]["kept_share"] == rows[0]["real_share"] == 1
    assert rows[0]["own_group_kept_share"] is None


def test_an_age_that_falls_back_shows_in_the_interpolation(seen):
    years = seen.walk_years.copy()
    years[:, 30:] -= 20
    fallen = interpolation(dataclasses.replace(seen, walk_years=years))
    assert interpolation(seen)["rank_correlation"] == 1
    assert fallen["rank_correlation"] < 0.9
    assert fallen["largest_fall_years"] == pytest.approx(19, abs=0.1)


def test_nothing_of_no_portraits_is_none(seen):
    nobody = chief_figures(seen, np.zeros(len(seen.rows), bool))
    assert nobody.pop("portraits") == nobody.pop("interpolations") == 0
    assert nobody.pop("faces_not_found") == 0
    assert set(nobody.values()) == {None}
