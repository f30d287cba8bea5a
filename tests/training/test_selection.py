from pathlib import Path

import numpy as np
import pytest
import torch

from model.ages import LIFESPAN_CLUSTERS
from training.config import config_of
from training.data import PortraitSet, PreparedSet, Row, split_rows
from training.judge import Verdict
from training.selection import Score, Selection

SETTINGS = {"resolution": 32, "groups": ["everybody"]}
CENTRES = np.array([1, 4.5, 8, 17, 34.5, 59.5], np.float32)


class ColourJudge:
    """Reads the cluster from how blue the middle is, as the fixture's portraits have it."""

    def __call__(self, pictures):
        middle = pictures[:, 8:24, 8:24].astype(np.float32).mean((1, 2))
        # red falls by 25 a cluster from 200 and blue rises by 30 from 40
        cluster = np.clip(((middle[:, 2] - middle[:, 0] + 160) / 55).round(), 0, 5).astype(int)
        return Verdict(CENTRES[cluster], np.zeros((len(pictures), 2)), middle)


class Renders:
    """A recipe whose generator is a function of portraits and one anchor; it rebuilds as told."""

    def __init__(self, render, rebuild):
        self.render, self.rebuild = render, rebuild

    def anchors(self, generator, image, group):
        assert group == 0, "the last group is asked for"
        return torch.stack([self.render(image, place) for place in range(6)], 1)

    def reconstruction(self, generator, image, cluster):
        return self.rebuild(image)


@pytest.fixture(scope="module")
def tinted():
    """Seventy-two portraits, blotched, that are redder when young and bluer when old."""
    random = np.random.default_rng(0)
    rows, images = [], []
    for cluster in np.repeat(np.arange(6), 12):
        colour = np.array([200 - 25 * cluster, 120, 40 + 30 * cluster])
        blotches = random.normal(0, 25, (8, 8, 1)).repeat(4, 0).repeat(4, 1)
        blotches[2:6] -= blotches[2:6].mean((0, 1))
        images.append(np.clip(colour + random.normal(0, 4, 3) + blotches, 0, 255))
        age = LIFESPAN_CLUSTERS[cluster].low_years
        rows.append(Row(len(rows), f"{len(rows)}.png", age, "female", "made", "train"))
    kept = np.full((len(rows), 32, 32), 255, np.uint8)
    return PreparedSet(Path(), np.stack(images).astype(np.uint8), kept, tuple(rows), {})


@pytest.fixture(scope="module")
def portraits(tinted):
    return held_out(tinted, 2)


def held_out(data, share):
    config = config_of(SETTINGS | {"held_out": share})
    _, selection, _ = split_rows(data, config.held_out)
    return PortraitSet(data, config, selection, torch.device("cpu"), balanced=False)


def scored(portraits, render, rebuild=lambda image: image):
    return Selection(Renders(render, rebuild), portraits, ColourJudge()).score(torch.nn.Identity())


def of_the_wanted_age(portraits):
    """Other portraits, of the cluster that is wanted, in turn."""
    taken = [0] * 6

    def render(image, place):
        rows = torch.nonzero(portraits.clusters == place).flatten()
        taken[place] += len(image)
        return portraits.portraits(rows[(torch.arange(len(image)) + taken[place]) % len(rows)])

    return render


def test_pictures_of_the_wanted_age_and_faithful_portraits_score_near_one(portraits):
    score = scored(portraits, of_the_wanted_age(portraits))
    assert score.faithful == pytest.approx(1)
    assert score.aged > 0.8
    assert score.natural > 0.9
    assert score.value > 0.9


def test_unchanged_portraits_are_faithful_and_score_low(portraits):
    score = scored(portraits, lambda image, place: image)
    assert score.faithful == pytest.approx(1)
    assert score.aged < 0.2
    assert score.natural < 0.9
    assert score.value < 0.4


def test_grey_pictures_score_low(portraits):
    score = scored(portraits, lambda image, place: torch.zeros_like(image), torch.zeros_like)
    assert score.value < 0.2
    assert score.natural < 0.5


def test_a_score_is_zero_where_one_of_its_parts_is():
    assert Score(faithful=1, aged=0, natural=1).value == 0
    assert Score(faithful=-0.1, aged=1, natural=1).value == 0
    assert Score(faithful=1, aged=0.5, natural=1).value == pytest.approx(0.75)


def test_every_cluster_counts_the_same_and_a_portraits_own_anchor_is_left_out(portraits):
    only_last = scored(portraits, lambda image, place: of_the_wanted_age(portraits)(image, 5))
    assert only_last.aged == pytest.approx(1 / 6, abs=0.04)


def test_a_cluster_with_too_few_portraits_has_no_score(tinted, portraits):
    assert Selection.possible(portraits)
    assert not Selection.possible(held_out(tinted, 5))
