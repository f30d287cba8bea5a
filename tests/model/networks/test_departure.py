import math

import pytest
import torch

from model.networks.departure import (
    ASIDE,
    BEARD,
    BRIGHTER,
    CHROMA,
    DARKER,
    FEATURE,
    GREY_BEARD,
    LARGE,
    LITTLE,
    MIMIC,
    PALER,
    SHADE,
    SHADED,
    TINT,
    TINTED,
    UNLIKE,
    bounded,
    departure,
    from_aside,
    light_on,
)
from model.networks.layers import LUMA

SIDE = 64
NONE = torch.zeros(1, 3, SIDE, SIDE)
RED = torch.tensor([1.0, -LUMA[0] / LUMA[1], 0.0])[:, None, None]  # of no luma
LINE = (torch.arange(SIDE) + 0.5) / SIDE - 0.5
ROWS = LINE[:, None].expand(SIDE, SIDE)
FACE = ((LINE.square() + LINE[:, None].square()) < 0.16).float()
CHEEKS = FACE * ((ROWS > -0.1) & (ROWS < 0.1))
NOWHERE = torch.zeros(SIDE, SIDE)


def plane(across, down, level=0.0):
    """(1, 3, S, S), in all colours."""
    return (level + across * LINE + down * LINE[:, None]).expand(1, 3, SIDE, SIDE)


@pytest.mark.parametrize(("across", "down", "level"), [(0.3, 0.0, 0.4), (0.0, -0.4, 0.0)])
def test_light_is_a_plane_with_a_part_of_its_slope(across, down, level):
    lit = plane(across, down, level)
    light = light_on(lit, CHEEKS, FACE)
    torch.testing.assert_close(light[..., 32, 32], lit[..., 32, 32], atol=0.02, rtol=0)
    for axis, slope in ((-1, across), (-2, down)):
        found = light.diff(dim=axis).mean().item() * SIDE
        # Where a disk of radius 0.4 is seen, its variance is 0.04.
        assert found == pytest.approx(slope * 0.04 / 0.09, abs=0.02)


def test_each_colour_has_its_light():
    lit = torch.tensor([0.3, 0.0, -0.2])[:, None, None].expand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(light_on(lit, CHEEKS, FACE), lit, atol=1e-5, rtol=0)


def test_what_is_not_seen_says_nothing_of_the_light():
    hat = plane(0.0, 0.0, 0.2).clone()
    hat[..., :20, :] = -1.0
    seen = FACE * (LINE[20] < ROWS)
    light = light_on(hat, CHEEKS, seen)
    torch.testing.assert_close(light, torch.full_like(light, 0.2), atol=1e-4, rtol=0)


def test_what_is_seen_but_unlike_the_cheeks_says_little():
    hat = plane(0.0, 0.0, 0.2).clone()
    hat[..., :20, :] = -1.5
    light = light_on(hat, CHEEKS, FACE)
    assert (light[..., 20:60, 32] - 0.2).abs().max() < 0.1
    assert (hat * FACE).sum() / FACE.sum() / 3 < -0.1


@pytest.mark.parametrize(
    ("shade", "room", "wanted"),
    [
        (0.1, 0.0, 0.1),
        (0.5, 0.0, PALER),
        (0.5, 0.2, 0.2 + PALER),
        (0.5, 1.0, 0.5),
        (0.5, -1.0, 0.0),
        (-0.5, 0.0, -DARKER),
        (-0.5, -0.2, -0.2 - DARKER),
        (-0.5, 1.0, 0.0),
        (0.0, 1.0, 0.0),
    ],
)
def test_changes_go_little_beyond_what_is_wanted(shade, room, wanted):
    tint = 0.9 * TINTED * RED
    found = bounded(shade + tint + NONE, room + NONE)
    torch.testing.assert_close(found, wanted + tint + NONE, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("red", "room", "wanted"),
    [
        (0.5, 0.0, TINTED),
        (0.5, 0.3, 0.3 + TINTED),
        (0.5, -0.3, 0.0),  # redder already
        (-0.5, 0.0, -TINTED),
        (-0.5, 0.3, 0.0),  # teeth among lips
        (-0.5, -0.9, -0.5),
    ],
)
def test_colours_go_little_beyond_what_is_wanted(red, room, wanted):
    found = bounded(0.1 + red * RED + NONE, 0.1 + room * RED + NONE)[0, :, 0, 0]
    assert found[0].item() == pytest.approx(0.1 + wanted, abs=1e-6)
    assert found[2].item() == pytest.approx(0.1, abs=1e-6)


def test_what_is_brighter_than_a_dark_feature_of_the_mean_face_stays():
    """Eyes are dark in it; those that are nearly closed are not."""
    means = NONE.clone()
    means[..., 10:20, 10:30], means[..., 10:20, 40:60] = -FEATURE / 2, -1.2 * FEATURE
    own = departure(NONE, means, CHEEKS, CHEEKS, NOWHERE).own[0, 0, 15]
    wanted = BRIGHTER / 2 * LARGE * math.tanh(FEATURE / 2 / LARGE)
    torch.testing.assert_close(own[15:25], torch.full((10,), wanted), atol=1e-3, rtol=0)
    torch.testing.assert_close(own[45:55], torch.zeros(10), atol=1e-3, rtol=0)


@pytest.mark.parametrize("rows", [64, 32, 3, 0])
def test_light_from_one_side_falls_where_columns_are_seen(rows):
    shadow = NONE.clone()
    shadow[:, :, :, 32:] = torch.tensor([-0.4, -0.6, -0.8])[:, None, None]
    seen = torch.zeros(1, 1, SIDE, SIDE)
    seen[:, :, :rows] = 1.0
    light = from_aside(shadow, seen)
    assert light.shape == (1, 3, 1, SIDE)
    share = rows / SIDE / (rows / SIDE + LITTLE)
    edge = round(ASIDE * SIDE) + 1
    inner = slice(32 + edge, SIDE - edge)
    torch.testing.assert_close(light[..., inner], share * shadow[:, :, :1, inner])
    torch.testing.assert_close(light[..., : 32 - edge], NONE[:, :, :1, : 32 - edge])
    assert (light[0, 0, 0, 32 - edge : 32 + edge].diff() <= 1e-6).all()


def test_a_half_of_a_face_in_shadow_is_no_beard():
    colours = NONE.clone()
    colours[..., 32:] = -0.8
    found = departure(colours, NONE, CHEEKS, FACE * (ROWS < 0.1), NOWHERE)
    lit, dark = (found.beard[..., 50:, x].mean().item() for x in (slice(12, 24), slice(40, 52)))
    assert dark == pytest.approx(lit, abs=0.3)
    assert dark < 0.8
    assert found.apart[..., 40:52].abs().mean() < 0.2


def test_a_face_of_which_nothing_is_seen_has_no_light():
    light = light_on(plane(0.2, 0.1, 0.5), CHEEKS, torch.zeros(1, 1, SIDE, SIDE))
    assert light.isfinite().all()
    assert light.abs().max() < 1e-3


def test_a_face_like_the_mean_one_departs_in_nothing():
    means = torch.rand(1, 3, SIDE, SIDE)
    found = departure(means + 0.3, means, CHEEKS, FACE, FACE)
    torch.testing.assert_close(found.own, NONE, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.skin, means + 0.3, atol=1e-5, rtol=0)
    torch.testing.assert_close(found.alike, torch.ones(1, 1, SIDE, SIDE), atol=1e-5, rtol=0)


def test_large_departures_bright_ones_and_those_of_colour_count_less():
    spot = (slice(None), slice(None), slice(60, 62), slice(30, 32))

    def own(colour):
        colours = NONE.clone()
        colours[spot] = colour
        return departure(colours, NONE, CHEEKS, FACE, NOWHERE).own[0, :, 60, 30]

    grey = torch.ones(3, 1, 1)
    for dark in (0.1, 1.0, 4.0):
        wanted = -LARGE * torch.tanh(torch.tensor(dark / LARGE)).expand(3)
        torch.testing.assert_close(own(-dark * grey), wanted, atol=1e-3, rtol=0)
        torch.testing.assert_close(own(dark * grey), -BRIGHTER * wanted, atol=1e-3, rtol=0)
    red = torch.tensor([0.2, -0.1019, 0.0])[:, None, None]  # of no luma
    torch.testing.assert_close(own(red), 0.3 * red.flatten(), atol=1e-3, rtol=0)
    assert own(9 * red).abs().max() <= 0.3 * TINT + 0.01
    for dark, share in ((SHADE, (CHROMA + SHADED) / 2), (3 * SHADE, 0.25 * CHROMA + 0.75 * SHADED)):
        dim = LARGE * math.atanh(dark / LARGE)  # so that `dark` of it counts
        found = own(red / 2 - dim) + dark
        torch.testing.assert_close(found, share * red.flatten() / 2, atol=2e-3, rtol=0)


@pytest.mark.parametrize(("darker", "beard"), [(2 * BEARD, 1.0), (0.0, 0.5), (-2 * BEARD, 0.0)])
def test_a_beard_is_darker_than_the_skin_beside_it(darker, beard):
    colours = NONE.clone()
    colours[..., 46:, :] = -darker
    found = departure(colours, NONE, CHEEKS, FACE * (ROWS < 0.1), NOWHERE)
    torch.testing.assert_close(found.beard[..., 50:, :].mean().item(), beard, atol=1e-3, rtol=0)
    torch.testing.assert_close(found.skin, NONE, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("share", "beard"), [(0.0, 0.0), (0.5, 0.5), (1.0, 1.0), (2.0, 1.0)])
def test_a_grey_beard_is_bluer_than_the_skin_beside_it_and_no_darker(share, beard):
    least, most = GREY_BEARD
    colours = NONE + BEARD
    colours[:, 2, 46:] += least + share * (most - least)
    colours[..., :46, :] = 0
    found = departure(colours, NONE, CHEEKS, FACE * (ROWS < 0.1), NOWHERE)
    torch.testing.assert_close(found.beard[..., 50:, :].mean().item(), beard, atol=1e-3, rtol=0)


@pytest.mark.parametrize(("mouth", "half"), [(0.0, UNLIKE), (1.0, MIMIC)])
def test_what_is_unlike_the_mean_face_changes_less_than_it(mouth, half):
    """At the mouth a smaller departure counts as much; one beside it counts in part."""
    colours = NONE.clone()
    colours[..., 46:, :] = -half
    found = departure(colours, NONE, CHEEKS, FACE * (ROWS < 0.1), torch.full_like(ROWS, mouth))
    far, near = (1 / (1 + (half / x) ** 2) for x in (UNLIKE, MIMIC))
    wanted = far * (near if mouth else 1)
    assert found.alike.shape == (1, 1, SIDE, SIDE)
    torch.testing.assert_close(
        found.alike[0, 0, 50:], torch.full((14, SIDE), wanted), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(found.alike[0, 0, :40], torch.ones(40, SIDE), atol=1e-3, rtol=0)
    edge = found.alike[0, 0, 42:50, 32]
    assert (edge.diff() < 1e-4).all()
    assert edge[0] > edge[-1] + 0.2


def test_lips_are_no_beard():
    """They are as bright as skin in red."""
    colours = NONE.clone()
    colours[:, 1:, 46:] = -2 * BEARD
    found = departure(colours, NONE, CHEEKS, FACE * (ROWS < 0.1), NOWHERE)
    torch.testing.assert_close(found.beard[..., 50:, :].mean().item(), 0.5, atol=1e-3, rtol=0)
