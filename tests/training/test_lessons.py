from dataclasses import replace

import pytest
import torch

import training.lessons
from model.networks.reader import Reader, Reading
from tests.training.test_shapes import face
from training.data import SHARES
from training.draws import Draws
from training.lessons import Lesson, alike, misread
from training.shapes import bending_flow

SIDE = 64


@pytest.fixture
def lesson():
    """Six grey portraits with a white dot at each of a few landmarks, hair on the left and
    eyeglasses on the right."""
    landmarks = face(0.9)[None].repeat(6, 1, 1) + 0.02 * torch.arange(6.0).view(6, 1, 1) - 0.05
    image = torch.zeros(6, 3, SIDE, SIDE)
    for picture, points in zip(image, landmarks, strict=True):
        for x, y in points[[30, 36, 45]] * SIDE:
            picture[:, int(y) - 1 : int(y) + 2, int(x) - 1 : int(x) + 2] = 1
    hair = torch.zeros(6, 1, SIDE, SIDE)
    hair[..., : SIDE // 2] = 1
    return Lesson(image, landmarks, torch.eye(6), hair, 1 - hair)


def draws(step=0, count=6):
    return Draws(0, step, count)


def centre(spots):
    """Centre of mass of (S, S), in shares of the side, x and y."""
    line = (torch.arange(SIDE) + 0.5) / SIDE
    return torch.stack([(spots.sum(0) * line).sum(), (spots.sum(1) * line).sum()]) / spots.sum()


def test_landmarks_move_with_what_they_lie_on(lesson, monkeypatch):
    monkeypatch.setattr(training.lessons, "HIDDEN", 0.0)
    moved = []
    for step in range(4):
        view = lesson.viewed(draws(step))
        for before, picture, points in zip(
            lesson.landmarks, view.image, view.landmarks, strict=True
        ):
            light = picture.mean(0)
            spots = ((light - light.median()) / (light.max() - light.median()) - 0.5).clamp(min=0)
            assert (centre(spots) - points[[30, 36, 45]].mean(0)).abs().max() < 0.03
            moved.append((points - before).abs().mean())
    assert max(moved) > 0.03


def test_shares_move_too_and_stay_shares(lesson):
    view = lesson.viewed(draws())
    assert 0 <= view.hair.min() < view.hair.max() <= 1
    assert (view.hair != lesson.hair).any()
    left, right = view.hair[..., : SIDE // 2 - 8], view.hair[..., SIDE // 2 + 8 :]
    assert left.mean() > 0.9
    assert right.mean() < 0.1
    torch.testing.assert_close(view.eyeglasses, 1 - view.hair)


def test_views_are_of_all_kinds_of_light(lesson):
    lit = replace(lesson, image=torch.rand(6, 3, SIDE, SIDE) * 0.4)
    views = [lit.viewed(draws(step)).image for step in range(20)]
    means = torch.cat([view.mean((1, 2, 3)) for view in views])
    assert means.std() > 0.1
    assert all(view.min() >= -1 and view.max() <= 1 for view in views)
    tints = torch.cat([view.mean((2, 3)) - view.mean((1, 2, 3))[:, None] for view in views])
    assert tints.std() > 0.01


def test_a_part_of_a_batch_is_viewed_as_in_the_whole(lesson):
    whole = lesson.viewed(draws())
    part = Lesson(lesson.image[1::2], lesson.landmarks[1::2], lesson.people[1::2])
    torch.testing.assert_close(
        part.viewed(Draws(0, 0, 6, part=1, parts=2)).image, whole.image[1::2]
    )


class Knows(torch.nn.Module):
    """A reader that says what it was told to."""

    pooled = 4

    def __init__(self, reading):
        super().__init__()
        self.reading = reading

    def forward(self, image, kept):
        self.kept = kept
        return self.reading


def known(lesson, mean):
    places = bending_flow(mean.expand_as(lesson.landmarks), lesson.landmarks - mean, 16)
    hair = torch.full((6, 1, 32, 32), -100.0)
    hair[..., :16] = 100
    people = 100 * lesson.people
    return Reading(places, people, hair, torch.zeros(6, 3), -hair)


def test_who_reads_rightly_loses_nothing(lesson):
    mean = face(0.9)
    reader = Knows(known(lesson, mean))
    loss, parts = misread(reader, lesson, mean, draws())
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert set(parts) == {"place_error", "shown", "hair", "eyeglasses"}
    assert reader.kept.max().item() == pytest.approx(2)
    assert reader.kept.min() == 0


@pytest.mark.parametrize("part", ["place", "people", "hair", "eyeglasses"])
def test_each_part_misread_costs(lesson, part):
    mean = face(0.9)
    right = known(lesson, mean)
    wrong = right._replace(**{part: torch.zeros_like(getattr(right, part))})
    loss, parts = misread(Knows(wrong), lesson, mean, draws())
    assert loss > 0.3
    name = {"place": "place_error", "people": "shown"}.get(part, part)
    assert parts[name] > 0.5
    assert sum(value > 1e-6 for value in parts.values()) == 1


@pytest.mark.parametrize("name", SHARES)
def test_portraits_without_landmarks_or_shares_teach_the_rest(lesson, name):
    mean = face(0.9)
    blind = replace(lesson, landmarks=torch.full((6, 68, 2), torch.nan), **{name: None})
    right = known(lesson, mean)
    loss, parts = misread(Knows(right), blind, mean, draws())
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert name not in parts
    assert set(parts) > set(SHARES) - {name}
    view = blind.viewed(draws())
    assert view.landmarks.isnan().all()
    assert getattr(view, name) is None


def test_a_reader_learns_what_it_is_taught(lesson):
    torch.manual_seed(0)
    reader, mean = Reader(6, 3, width=8), face(0.9)
    lit = replace(lesson, image=lesson.image + 0.1 * torch.arange(6.0).view(6, 1, 1, 1))
    optimiser = torch.optim.RAdam(reader.parameters(), 4e-3)
    losses = []
    for step in range(140):
        loss, _ = misread(reader, lit, mean, draws(step))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert sum(losses[-10:]) < 0.5 * sum(losses[:10])


def test_neighbours_in_age_pass_for_each_other():
    shares = alike(2, 3, torch.device("cpu"))
    assert shares.shape == (6, 6)
    torch.testing.assert_close(shares.sum(1), torch.ones(6))
    assert shares[1, 0] == shares[1, 2] == pytest.approx(0.096)
    assert shares[0, 1] == pytest.approx(0.096)
    assert shares[0, 2] == 0
    assert shares[1, 4] == pytest.approx(0.032)
    assert (shares.argmax(1) == torch.arange(6)).all()
    torch.testing.assert_close(alike(1, 1, torch.device("cpu")), torch.ones(1, 1))


def test_of_most_views_a_part_is_hidden(lesson):
    """A rectangle of one colour, anywhere, on a picture of noise."""
    noisy = replace(lesson, image=torch.rand(6, 3, SIDE, SIDE) * 2 - 1)
    shares = []
    for step in range(10):
        light = noisy.viewed(draws(step)).image
        flat = (light.diff(dim=-1)[..., 1:, :] == 0) & (light.diff(dim=-2)[..., 1:] == 0)
        shares += flat.all(1).float().mean((1, 2)).tolist()
    assert sum(share > 0 for share in shares) > 40
    assert 0.02 < sum(shares) / len(shares) < 0.08
    assert max(shares) < 0.2
