import dataclasses

import numpy as np
import pytest
import torch

from training.data import PreparedSet, Row
from training.suspects import edge_histograms, judge_labels, looks_of, same_photographs


def portrait(age_years, random):
    """A ring of 32 px that is wider the older, somewhere near the middle, in noise."""
    y, x = np.mgrid[:32, :32] - 15.5 + random.normal(0, 0.7, (2, 1, 1))
    radius = 4 + 2 * np.log(age_years + 5) + random.normal(0, 0.4)
    ring = np.abs(np.hypot(x, y) - radius) < 1.5
    image = 60 + 100 * ring[..., None] * random.uniform(0.7, 1, 3)
    return np.clip(image + random.normal(0, 12, image.shape), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    """A set of 300 portraits whose looks tell their age, with some error."""
    random = np.random.default_rng(3)
    ages = random.choice([1, 4, 8, 17, 35, 60], 300)
    rows = tuple(
        Row(i, f"{i}.png", float(age), "female", "rings", "train") for i, age in enumerate(ages)
    )
    images = np.stack([portrait(age, random) for age in ages])
    kept = np.full(images.shape[:3], 255, np.uint8)
    return PreparedSet(tmp_path_factory.mktemp("rings"), images, kept, rows, {})


def test_most_labels_that_were_planted_wrong_are_suspects_and_few_others(rings):
    ages = np.array([row.age_years for row in rings.rows])
    young, old = np.flatnonzero(ages == 1)[:5], np.flatnonzero(ages == 60)[:5]
    ages[young], ages[old] = 60, 1
    judgement = judge_labels(looks_of(rings).features, ages)
    planted = {int(i) for i in (*young, *old)}
    assert judgement.believed
    assert len(planted & set(judgement.suspects)) >= 8
    assert len(set(judgement.suspects) - planted) <= 6
    assert judgement.suspects[0] in planted


def test_labels_without_any_bearing_on_looks_are_not_judged(rings):
    shuffled = np.random.default_rng(0).permutation([row.age_years for row in rings.rows])
    assert not judge_labels(looks_of(rings).features, shuffled).believed


def test_a_mirrored_portrait_looks_the_same(rings):
    some = dataclasses.replace(rings, rows=rings.rows[:20])
    mirrored = dataclasses.replace(some, portraits=rings.portraits[:, :, ::-1].copy())
    difference = looks_of(some).features - looks_of(mirrored).features
    assert np.abs(difference).max() < 1e-4


def test_an_upright_edge_votes_for_its_own_direction():
    image = torch.zeros(1, 3, 64, 64)
    image[..., 29:] = 255
    votes = edge_histograms(image).unflatten(1, (4, 8)).sum((0, 1, 3, 4))
    assert votes.argmax() == 0
    assert votes[1:].sum() == 0


def test_copies_of_a_photograph_are_found_though_compressed_otherwise(rings):
    random = np.random.default_rng(4)
    images = rings.portraits[:40].copy()
    noisy = np.clip(images[7] + random.normal(0, 4, images[7].shape), 0, 255)
    images[33] = noisy.astype(np.uint8)
    images[12] = images[30]
    some = dataclasses.replace(rings, portraits=images, rows=rings.rows[:40])
    assert same_photographs(looks_of(some).thumbnails) == [[7, 33], [12, 30]]


def test_a_portrait_that_was_never_written_is_blank(rings):
    images = rings.portraits[:8].copy()
    images[5] = 0
    some = dataclasses.replace(rings, portraits=images, rows=rings.rows[:8])
    assert np.flatnonzero(looks_of(some).blank).tolist() == [5]
