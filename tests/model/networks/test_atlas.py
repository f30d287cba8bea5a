import math

import pytest
import torch

from model.networks.atlas import (
    FLAT,
    MIDDLE,
    TURNED,
    Atlas,
    behind,
    on_turned,
    unstretched,
    without_lips,
    worn,
)
from model.networks.departure import BRIGHTER, DARKER, LARGE, PALER, UNLIKE
from model.networks.greying import NATURAL, WHITE
from model.networks.layers import LUMA
from model.networks.reader import Reading

SIDE = Atlas.SIDE
SPOT = (slice(40, 48), slice(24, 40))


@pytest.fixture
def atlas(monkeypatch):
    """Two groups and three clusters, all faces alike, a face that goes all over the picture."""
    monkeypatch.setattr("model.networks.departure.UNLIKE", 1e6)
    torch.manual_seed(0)
    atlas = Atlas(8, 2, 3)
    above = ((torch.arange(SIDE) < 32)[:, None] * torch.ones(SIDE, SIDE)).flatten()
    atlas.cheeks.copy_(above)
    atlas.seen.copy_(above)
    atlas.own.fill_(1.0)
    return atlas


@torch.no_grad()
def looks(atlas, light, cluster, target, place=None, hair=None, short=(0.0, 0.0, 0.0)):
    """What someone of `cluster` gets on the way to `target`, an affine mix of clusters."""
    atlas.asked.weight.zero_()
    atlas.asked.bias.copy_(torch.as_tensor(target))
    people = torch.full((1, 6), -100.0)
    people[0, cluster] = 100.0
    place = torch.zeros(1, 2, 16, 16) if place is None else place
    hair = torch.full((1, 1, 32, 32), -100.0) if hair is None else hair
    bare = torch.full((1, 1, 32, 32), -100.0)
    reading = Reading(place, people, hair, torch.tensor([short]), bare)
    return atlas.looks(torch.zeros(1, 8), reading, light)


def looked(*given, **further):
    return looks(*given, **further).shades


def face(dark=0.5, spot=SPOT):
    """A grey face with a spot of `dark` times its light."""
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    light[(..., *spot)] *= dark
    return light


def test_a_mean_face_without_lips_has_the_skin_around_them(atlas):
    """And in the light of that place, where `face` says that skin is."""
    face, mouth = torch.zeros(SIDE, SIDE), torch.zeros(SIDE, SIDE)
    face[8:56, 8:56], mouth[36:44, 24:40] = 1, 1
    skin = torch.linspace(-1, 0, SIDE).expand(1, 3, SIDE, SIDE).clone()
    given = skin.clone()
    given[..., 37:43, 25:39] -= 1
    given[..., :8] = 5  # hair
    found = without_lips(given, face, mouth)
    torch.testing.assert_close(found[..., 28:36, 36], found[..., 44:52, 36], atol=1e-5, rtol=0)
    torch.testing.assert_close(found[..., 36:44, 24:40], skin[..., 36:44, 24:40], atol=0.06, rtol=0)
    torch.testing.assert_close(found[..., :36, :], given[..., :36, :], atol=0, rtol=0)
    nowhere = without_lips(given, 0 * face, mouth)
    torch.testing.assert_close(nowhere, given)


def test_a_laugh_that_is_shaved_has_no_lips_around_its_own(atlas):
    """The mean face's lie where skin is seen: it is dark there, as a beard is."""
    atlas.own.fill_(1.0)
    means = atlas.means.view(6, 3, SIDE, SIDE)
    means[..., 40:46, 28:36] = -0.7
    atlas.mouth.view(SIDE, SIDE)[38:48, 26:38] = 1
    atlas.beards.view(SIDE, SIDE)[38:48, 26:38] = 1
    light = face(0.3, (slice(38, 48), slice(26, 38)))
    skin = looks(atlas, light, 5, [0.0, 1.0, 0.0]).skin[0, :, 38:48, 26:38]
    around = looks(atlas, light, 5, [0.0, 1.0, 0.0]).skin[0, :, 30:34, 30:34].mean()
    torch.testing.assert_close(skin, around.expand_as(skin), atol=0.1, rtol=0)


def squeezed(share, size=16):
    """Places of a face of which the mean face is `share` as wide right of the middle."""
    column = (torch.arange(size) + 0.5) / size * 2 - 1
    across = torch.where(column > 0, share * column, column) - column
    return torch.stack([across.expand(size, size), torch.zeros(size, size)])[None]


@pytest.mark.parametrize(("share", "told"), [(0.1, 0.0), (0.375, 0.5), (0.6, 1.0), (1.5, 1.0)])
def test_little_is_told_where_the_mean_face_is_stretched(atlas, share, told):
    found = unstretched(squeezed(share))
    torch.testing.assert_close(found[..., 10:], torch.full((1, 1, 16, 6), told))
    torch.testing.assert_close(found[..., :6], torch.ones(1, 1, 16, 6))
    atlas.own.zero_()
    faces = atlas.faces.view(6, 5, SIDE, SIDE)
    faces[2] = 0.2
    atlas.means.view(6, 3, SIDE, SIDE)[2] = 0.2
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    change = looks(atlas, light, 0, [0.0, 0.0, 1.0], squeezed(share))
    for map_ in (change.shades, change.fine, change.wide):
        assert map_[0, 0, 32, 50].item() == pytest.approx(0.2 * told, abs=0.01)
        assert map_[0, 0, 32, 12].item() == pytest.approx(0.2, abs=0.01)
    faces[2, 3:] = -0.2
    change = looks(atlas, light, 0, [0.0, 0.0, 1.0], squeezed(share))
    assert change.fine[0, 0, 32, 50].item() == pytest.approx(-0.2, abs=0.01)  # lines fade


def test_no_lines_are_drawn_where_the_mean_face_is_stretched(atlas):
    atlas.lines[2] = -0.3
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    lines = looks(atlas, light, 0, [0.0, 0.0, 1.0], squeezed(0.1)).lines[0, 0, 64]
    assert lines[100].item() == pytest.approx(0, abs=1e-4)
    assert lines[20].item() == pytest.approx(-0.3, abs=1e-4)


def test_what_lies_behind_a_head_keeps_its_colour(atlas):
    atlas.hair_colours[2] = 0.5
    hair = torch.full((1, 1, 32, 32), -100.0)
    hair[..., :16] = 100  # on the left
    plain = torch.full((1, 3, SIDE, SIDE), 0.4)
    shades = looked(atlas, plain, 0, [0.0, 0.0, 1.0], hair=hair)[0, 0, 20]
    torch.testing.assert_close(shades[:28], 0.5 * torch.ones(28), atol=1e-5, rtol=0)
    torch.testing.assert_close(shades[32:], torch.zeros(32), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("tint", "share"), [(0.0, 0.0), (0.01, 0.0), (0.02, 0.5), (0.1, 1.0)])
def test_a_portrait_in_black_and_white_gets_no_colours(atlas, tint, share):
    atlas.own.zero_()
    red = torch.tensor([0.3, 0.0, 0.0])
    maps = torch.zeros(6, 5, SIDE, SIDE)
    maps[2, :3] = red[:, None, None]
    atlas.faces.copy_(maps.flatten(1))
    atlas.means.copy_(maps[:, :3].flatten(1))
    way = torch.tensor([1.0, -1.0, 1.0])
    way = way - (way * torch.tensor(LUMA)).sum()
    way = way / way.abs().mean()
    colour = (torch.tensor(0.35).log() + tint * way).exp() - Atlas.OFFSET
    shades = looked(atlas, colour.view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE), 0, [0.0, 0.0, 1.0])
    grey = 0.3 * LUMA[0]
    wanted = grey + share * (red - grey)
    torch.testing.assert_close(shades[0, :, 20, 20], wanted, atol=3e-3, rtol=0)


@pytest.mark.parametrize(("tint", "share"), [(0.0, 0.0), (0.1, 1.0)])
def test_skin_under_a_beard_is_grey_in_a_portrait_in_black_and_white(atlas, tint, share):
    red = torch.tensor([0.3, 0.0, 0.0])
    atlas.means.view(6, 3, SIDE, SIDE)[:, :, *SPOT] = red[:, None, None]
    way = torch.tensor([1.0, 0.0, -1.0])
    colour = (torch.tensor(0.35).log() + tint * way).exp() - Atlas.OFFSET
    plain = colour.view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
    skin = looks(atlas, plain, 0, [0.0, 0.0, 1.0]).skin[0]
    found = skin[:, 44, 32] - skin[:, 20, 20]
    grey = 0.3 * LUMA[0]
    torch.testing.assert_close(found, grey + share * (red - grey), atol=0.01, rtol=0)


@pytest.mark.parametrize(
    ("red", "blue", "warmth"),
    [(0.1, -0.1, 1.0), (0.0, 0.0, 0.0), (0.05, 0.1, 0.5), (-0.1, 0.1, 0)],
)
def test_skin_in_shadow_is_red_but_in_portraits_that_are_blue_or_grey(atlas, red, blue, warmth):
    light = (torch.tensor([red, 0.0, blue]) - 0.8).exp() - Atlas.OFFSET
    light = light.view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
    found = looks(atlas, light, 0, [0.0, 0.0, 1.0]).warm
    assert found.shape == (1, 1, 1, 1)
    assert found.item() == pytest.approx(warmth, abs=0.15)


def test_mean_faces_change_nothing_behind_a_head(atlas):
    atlas.own.zero_()
    atlas.faces[2] = atlas.means[2] = 0.5
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    light[..., 40:] = 0.5
    shades = looked(atlas, light, 0, [0.0, 0.0, 1.0])[0]
    torch.testing.assert_close(shades[..., :39], torch.full((3, SIDE, 39), 0.5), atol=1e-5, rtol=0)
    assert not shades[..., 40:].any()


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("apart", [0.0, -0.15])
def test_nothing_changes_far_beyond_the_targets_mean_face(atlas, sign, apart):
    """Mean faces differ by 0.2, amplified by 1."""
    atlas.own.zero_()
    atlas.faces.view(6, 5, SIDE, SIDE)[(2, slice(0, 3), *SPOT)] = sign
    atlas.means.view(6, 3, SIDE, SIDE)[(2, slice(None), *SPOT)] = 0.2 * sign
    dark = (0.45 * math.exp(apart) - Atlas.OFFSET) / 0.4
    change = looked(atlas, face(dark), 0, [0.0, 0.0, 1.0])[0, :, 44, 32]
    most = 0.2 * sign - apart + (PALER if sign > 0 else -DARKER)
    torch.testing.assert_close(change, torch.full((3,), most), atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("cluster", "target", "grey", "shade"),
    [
        (0, [0.0, 0.0, 1.0], 0.4, 0.2),
        (1, [0.0, 0.0, 1.0], 0.4, 0.0),
        (0, [0.0, 1.0, 0.0], 0.0, 0.2),
        (0, [0.0, 0.5, 0.5], 0.2, 0.2),
        (0, [0.0, -2.0, 3.0], Atlas.GREYEST, 0.2),
        (0, [-1.0, 2.0, 0.0], 0.0, 0.2),
        (2, [1.0, 0.0, 0.0], 0.0, math.log(NATURAL / WHITE) - 0.2),
        (2, [0.0, 1.0, 0.0], 0.0, math.log(NATURAL / WHITE)),
        (2, [0.0, 0.0, 1.0], 0.0, 0.0),
        (3, [0.0, 0.0, 1.0], 0.0, 0.0),
    ],
)
def test_hair_goes_grey_with_age_and_gets_its_colour_back(atlas, cluster, target, grey, shade):
    """White hair is no colour of the mean hair's, which a factor would give it; no further than to
    it goes what the mean hair changes by."""
    atlas.hair_colours[1], atlas.hair_colours[2], atlas.greys[2] = 0.2, 0.3, 0.4
    atlas.own.zero_()
    hair = torch.full((1, 1, 32, 32), -100.0)
    hair[..., :16] = 100  # on the left
    plain = torch.full((1, 3, SIDE, SIDE), 0.4)
    found = looks(atlas, plain, cluster, target, hair=hair)
    for map_, wanted in ((found.grey[0, 0, 20], grey), (found.shades[0, 0, 20], shade)):
        torch.testing.assert_close(map_[:28], torch.full((28,), wanted), atol=0.02, rtol=0)
        torch.testing.assert_close(map_[34:], torch.zeros(30), atol=1e-5, rtol=0)


@pytest.mark.parametrize(("old", "share"), [(0.1, 0.0), (0.325, 0.5), (0.6, 1.0)])
@torch.no_grad()
def test_hair_is_white_by_age_in_who_is_likely_as_old(atlas, old, share):
    """Others have fair hair, and keep it."""
    atlas.greys[2] = 0.4
    atlas.own.zero_()
    atlas.asked.weight.zero_()
    atlas.asked.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
    people = torch.full((1, 6), -100.0)
    people[0, 1:3] = torch.tensor([1 - old, old]).log() / Atlas.SURENESS
    bare = torch.full((1, 1, 32, 32), -100.0)
    hair = bare.clone()
    hair[..., :16] = 100  # on the left
    reading = Reading(torch.zeros(1, 2, 16, 16), people, hair, torch.zeros(1, 3), bare)
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    found = atlas.looks(torch.zeros(1, 8), reading, light).shades[..., 20, 8]
    wanted = torch.full((1, 3), share * math.log(NATURAL / WHITE))
    torch.testing.assert_close(found, wanted, atol=0.03, rtol=0)


def test_white_hair_lies_in_the_light_that_is_on_the_face(atlas):
    ramp = torch.linspace(0.2, 0.6, SIDE).expand(1, 3, SIDE, SIDE)
    white = looks(atlas, ramp, 0, [0.0, 0.0, 1.0]).white[0, 0, SIDE // 2]
    assert white[-1] > 1.5 * white[0]
    assert white[SIDE // 2].item() == pytest.approx(WHITE * (0.4 + Atlas.OFFSET), abs=0.03)


@torch.no_grad()
def test_a_reading_counts_as_surer_than_it_is(atlas):
    atlas.faces[0] = atlas.means[0] = 1.0
    atlas.asked.weight.zero_()
    atlas.asked.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    people = torch.full((1, 6), -100.0)
    people[0, :2] = torch.tensor([0.25, 0.75]).log()
    hair = torch.full((1, 1, 32, 32), -100.0)
    reading = Reading(torch.zeros(1, 2, 16, 16), people, hair, torch.zeros(1, 3), hair)
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    shades = atlas.looks(torch.zeros(1, 8), reading, light).shades
    young, old = 0.25**Atlas.SURENESS, 0.75**Atlas.SURENESS
    assert shades.mean().item() == pytest.approx(-young / (young + old), abs=1e-4)


def test_an_atlas_learns_what_a_latent_asks_for(atlas):
    place, hair, eyeglasses = torch.zeros(2, 2, 4, 4), *torch.rand(2, 2, 1, 8, 8)
    reading = Reading(place, torch.rand(2, 6), hair, torch.rand(2, 3), eyeglasses)
    for faces in atlas.buffers():
        faces.normal_()
    looks = atlas.looks(torch.rand(2, 8), reading, torch.rand(2, 3, 16, 16))
    assert looks.shades.shape == (2, 3, 16, 16)
    assert looks.fine.shape == looks.wide.shape == (2, 1, 16, 16)
    assert looks.flow.shape == (2, 2, 16, 16)
    sum(map(torch.mean, looks)).backward()
    for name, parameter in atlas.named_parameters():
        assert parameter.grad.abs().sum() > 0, name


def test_mean_faces_weigh_nothing_in_all(atlas):
    """What all of them are like is no change, however much in all a latent asks for."""
    torch.manual_seed(0)
    atlas.faces.normal_()
    atlas.own.zero_()
    plain = face(1.0)
    wanted = looked(atlas, plain, 1, [0.1, -0.1, 1.0])
    for faces in (atlas.faces, atlas.faces + 5.0):
        atlas.faces.copy_(faces)
        for much in (-0.02, 0.0, 0.05):
            asked = [0.1 + much / 3, -0.1 + much / 3, 1.0 + much / 3]
            torch.testing.assert_close(looked(atlas, plain, 1, asked), wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("cluster", "target", "share"),
    [
        (2, [1.0, 0.0, 0.0], Atlas.YOUNGER),
        (2, [0.0, 1.0, 0.0], Atlas.YOUNGER),
        (0, [0.0, 0.0, 1.0], Atlas.OLDER),
        (1, [0.0, 1.0, 0.0], 0.0),
        (1, [0.5, 0.5, 0.0], Atlas.YOUNGER / 2),
        (1, [0.5, 0.0, 0.5], (Atlas.YOUNGER + Atlas.OLDER) / 2),
        (2, [1.5, 0.0, -0.5], Atlas.YOUNGER),
    ],
)
def test_what_is_a_portraits_own_goes_with_its_age(atlas, cluster, target, share):
    light = face()
    shades = looked(atlas, light, cluster, target)
    apart = ((0.2 + Atlas.OFFSET) / (0.4 + Atlas.OFFSET)) ** torch.ones(3)
    wanted = -share * LARGE * torch.tanh(apart.log() / LARGE)
    torch.testing.assert_close(shades[0, :, 44, 32], wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(shades[0, :, :38], torch.zeros(3, 38, SIDE), atol=1e-4, rtol=0)


def test_what_those_of_an_age_have_in_common_is_not_a_portraits_own(atlas):
    means = torch.zeros(6, 3, SIDE, SIDE)
    means[(1, slice(None), *SPOT)] = torch.tensor(0.35 / 0.45).log()
    atlas.means.copy_(means.flatten(1))
    shades = looked(atlas, face(0.75), 1, [1.0, 0.0, 0.0])
    torch.testing.assert_close(shades, torch.zeros_like(shades), atol=1e-4, rtol=0)
    spot = looked(atlas, face(1.0), 1, [1.0, 0.0, 0.0])[(..., *SPOT)]
    assert spot.max() < -0.1 * BRIGHTER


def test_what_is_a_portraits_own_goes_where_its_face_is_and_not_from_hair(atlas):
    atlas.own.copy_((torch.arange(SIDE) < 28).float().expand(SIDE, SIDE).flatten())
    light = face(spot=(slice(40, 48), slice(28, 36)))
    right = torch.zeros(1, 2, 16, 16)
    right[:, 0] = -0.25  # the face lies an eighth of the side further right
    shades = looked(atlas, light, 2, [1.0, 0.0, 0.0], right)
    assert shades[0, 0, 44, 32] > 0.4
    assert looked(atlas, light, 2, [1.0, 0.0, 0.0])[0, 0, 44, 32] == pytest.approx(0, abs=1e-4)
    hair = torch.full((1, 1, 32, 32), 100.0)
    covered = looked(atlas, light, 2, [1.0, 0.0, 0.0], right, hair)
    torch.testing.assert_close(covered, torch.zeros_like(covered), atol=1e-4, rtol=0)


CHIN = (slice(None), slice(50, 56), slice(28, 36))


@pytest.fixture
def bearded(atlas):
    """The same where beards grow below the cheeks, on faces of the first group's last cluster."""
    atlas.own.zero_()
    atlas.beards.copy_(((torch.arange(SIDE) > 40)[:, None] * torch.ones(SIDE, SIDE)).flatten())
    atlas.bare.copy_(torch.tensor([1.0, 1.0, 0.0, 1.0, 1.0, 1.0]))
    atlas.means.fill_(-1.0)
    return atlas


@pytest.mark.parametrize(
    ("cluster", "target", "shaven"),
    [
        (2, [1.0, 0.0, 0.0], 1.0),
        (2, [0.0, 1.2, -0.2], 1.0),
        (2, [0.0, 0.4, 0.6], 0.4),
        (2, [0.0, 0.0, 1.0], 0.0),
        (1, [1.0, 0.0, 0.0], 0.0),
        (5, [1.0, 0.0, 0.0], 0.0),
    ],
)
def test_men_are_shaved_on_the_way_to_an_age_without_beards(bearded, cluster, target, shaven):
    light = face(spot=(slice(44, 64), slice(0, 64)))
    found = looks(bearded, light, cluster, target)
    beard = found.beard[0][CHIN]
    torch.testing.assert_close(beard, torch.full_like(beard, shaven), atol=1e-4, rtol=0)
    assert found.beard[..., :36, :].abs().max() < 1e-4
    # The skin under it is the mean face's in the light of the cheeks.
    skin = (found.skin.exp() - Atlas.OFFSET)[0][CHIN]
    torch.testing.assert_close(skin, torch.full_like(skin, 0.4), atol=2e-3, rtol=0)


def test_men_are_shaved_to_the_rim_of_their_head(atlas):
    """But for the pixels that are blurred with what lies behind it."""
    atlas.own.zero_()
    atlas.bare[3] = 1
    atlas.beards.view(SIDE, SIDE)[40:56, 20:44] = 1
    light = face(0.4, (slice(40, 56), slice(20, 44)))
    light[..., 40:] = 0.5  # what lies behind
    light[:, 0, :, :40] += 0.05
    beard = looks(atlas, light, 5, [1.0, 0.0, 0.0]).beard[0, 0, 48]
    assert beard[30:39].min() > 0.9
    assert beard[39:].max() < 0.1


def test_below_the_jaw_only_grey_beards_are_shaved(bearded):
    light = face(0.5, (slice(44, 64), slice(0, 64)))
    grey = light.clone()
    grey[:, 2, 44:] *= 1.5
    for share, dark, hoary in ((1.0, 1.0, 1.0), (0.5, 0.0, 1.0), (0.0, 0.0, 0.0)):
        bearded.beards.copy_(
            share * (torch.arange(SIDE) > 40).float()[:, None].expand(SIDE, SIDE).flatten()
        )
        for picture, wanted in ((light, dark), (grey, hoary)):
            beard = looks(bearded, picture, 2, [1.0, 0.0, 0.0]).beard[0][CHIN]
            torch.testing.assert_close(beard, torch.full_like(beard, wanted), atol=1e-4, rtol=0)


def test_skin_under_a_beard_grows_younger_as_the_face_does(bearded):
    shades = torch.zeros(6, 5, SIDE, SIDE)
    shades[::3, :3] = 0.2
    bearded.faces.copy_(shades.flatten(1))
    light = face(spot=(slice(44, 64), slice(0, 64)))
    skins = [looks(bearded, light, 2, target).skin[0][CHIN].mean()
             for target in ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0])]  # fmt: skip
    assert (skins[0] - skins[1]).item() == pytest.approx(0.2, abs=1e-4)


def test_neither_skin_nor_hair_nor_what_lies_behind_a_head_is_shaved(bearded):
    bright = face(1.4, (slice(44, 64), slice(0, 64)))
    assert looks(bearded, bright, 2, [1.0, 0.0, 0.0]).beard[0][CHIN].max() < 1e-4
    light = face(spot=(slice(44, 64), slice(0, 64)))
    hair = torch.full((1, 1, 32, 32), 100.0)
    assert looks(bearded, light, 2, [1.0, 0.0, 0.0], hair=hair).beard.max() < 1e-4
    light[..., 44:, :] = 0.5
    light[..., :44, :] = 0.9
    assert looks(bearded, light, 2, [1.0, 0.0, 0.0]).beard[0][CHIN].max() < 1e-4


@pytest.mark.parametrize("strength", [-3.0, -0.3, 0.4])
def test_a_nose_keeps_half_of_its_lines(atlas, strength):
    maps = torch.zeros(6, 5, SIDE, SIDE)
    maps[0, 3:] = strength
    atlas.faces.copy_(maps.flatten(1))
    nose = torch.zeros(SIDE, SIDE)
    nose[SPOT] = 1.0
    atlas.nose.copy_(nose.flatten())
    found = looks(atlas, torch.full((1, 3, SIDE, SIDE), 0.4), 2, [1.0, 0.0, 0.0])
    at_nose, elsewhere = (max(strength, math.log(x)) for x in (Atlas.NOSE, Atlas.LEAST))
    for kind in (found.fine, found.wide):
        wanted = elsewhere + (at_nose - elsewhere) * nose
        torch.testing.assert_close(kind[0, 0], wanted, atol=1e-4, rtol=0)


def test_what_is_unlike_the_mean_face_changes_less_than_it(atlas, monkeypatch):
    atlas.own.zero_()
    shades = torch.zeros(6, 5, SIDE, SIDE)
    shades[0, :3] = 0.1
    atlas.faces.copy_(shades.flatten(1))
    atlas.means.view(6, 3, -1)[0] = 0.1
    light = face(0.5, (slice(40, 64), slice(0, 64)))
    plain = looked(atlas, light, 2, [1.0, 0.0, 0.0])
    monkeypatch.setattr("model.networks.departure.UNLIKE", UNLIKE)
    found = looked(atlas, light, 2, [1.0, 0.0, 0.0])
    torch.testing.assert_close(found[..., :36, :], plain[..., :36, :], atol=1e-4, rtol=0)
    apart = math.log((0.2 + Atlas.OFFSET) / (0.4 + Atlas.OFFSET))
    wanted = plain[..., 48:, :] / (1 + (apart / UNLIKE) ** 2)
    torch.testing.assert_close(found[..., 48:, :], wanted, atol=1e-4, rtol=0)
    atlas.mouth.fill_(1.0)
    assert looked(atlas, light, 2, [1.0, 0.0, 0.0])[0, 0, 56, 32] < 0.5 * found[0, 0, 56, 32]


def test_behind_a_head_all_is_grey():
    light = torch.full((1, 3, 16, 16), 0.5)
    light[:, :, :, 8:] = torch.tensor([0.5, 0.4, 0.5])[:, None, None]
    ground = behind(light)
    assert (ground[..., :9] == 1).all()
    assert (ground[..., 9:] == 0).all()


def test_a_line_of_grey_skin_is_not_behind_a_head():
    """Skin in black and white that gets darker is as grey as what lies there in between."""
    light = torch.linspace(0.1, 0.9, 64).expand(1, 3, 64, 64).clone()
    assert behind(light).max() == 0
    light[..., : FLAT - 1] = 0.5
    light[..., 20 : 20 + FLAT, 40 : 40 + FLAT] = 0.5
    ground = behind(light)[0, 0]
    assert ground[20, 40] == 1
    assert ground[:, FLAT:30].max() == 0


@pytest.mark.parametrize(
    ("aside", "drawn"), [(0.0, 1.0), (TURNED[0], 1.0), (sum(TURNED) / 2, 0.5), (0.3, 0.0)]
)
@pytest.mark.parametrize("size", [16, 32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_lines_are_drawn_along_the_middle_of_a_turned_face(aside, drawn, size, sign):
    """Its nose lies further aside than its cheeks; one that is moved as a whole is not turned."""
    place = torch.full((1, 2, size, size), 0.2)
    place[:, 0, :, 3 * size // 8 : 5 * size // 8] += sign * aside
    shares = on_turned(place, 200)[0, 0, 0]
    near, far = (round(200 * (0.5 + x)) for x in MIDDLE)
    torch.testing.assert_close(shares[100 : near - 1], torch.full((near - 101,), drawn))
    torch.testing.assert_close(shares[far + 1 :], torch.ones(199 - far))
    torch.testing.assert_close(shares, shares.flip(0))


def test_an_atlas_draws_fewer_lines_on_a_turned_face(atlas):
    atlas.lines[1].fill_(-0.1)
    plain = torch.full((1, 3, SIDE, SIDE), 0.4)
    place = torch.zeros(1, 2, 16, 16)
    place[:, 0, :, 6:10] = 0.3
    lines = looks(atlas, plain, 0, [0.0, 1.0, 0.0], place).lines[0, 0]
    wanted = -0.1 * on_turned(place, Atlas.LINES)[0, 0].expand(Atlas.LINES, -1)
    assert lines.max() > -0.02
    torch.testing.assert_close(lines[:, :30], wanted[:, :30], atol=1e-3, rtol=0)
    assert lines.mean().item() == pytest.approx(wanted.mean().item(), abs=0.02)


def test_thin_rims_are_seen_where_others_are_surely():
    """What is doubtful alone is eyeglasses in a portrait that has some."""
    logits = torch.full((1, 1, 32, 32), -100.0)
    logits[..., 8:12, 4:12] = 0.0
    alone = worn(logits)[0, 0, 10, 8].item()
    logits[..., 8:12, 18:28] = 5.0
    both = worn(logits)[0, 0]
    sure, least = Atlas.WORN
    assert both[10, 8].item() == pytest.approx(
        1 / (1 + math.exp(sure * (least - Atlas.ANYWHERE[1]))), abs=1e-3
    )
    assert alone < both[10, 8].item() - 0.2
    assert both[20, 20] == 0


@pytest.mark.parametrize(
    ("cluster", "target", "short", "asked"),
    [
        (2, [0.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.25, 1.0, -0.25]),
        (2, [1.0, 0.0, 0.0], [0.5, 0.0, 0.0], [1.5, -0.5, 0.0]),
        (0, [0.0, 0.0, 1.0], [0.0, 0.0, -0.5], [0.0, -0.5, 1.5]),
        (2, [0.5, 0.5, 0.0], [0.4, 0.2, 0.0], [0.725, 0.35, -0.075]),
        (2, [0.0, 1.0, 0.0], [0.0, 9.0, 0.0], [0.35, 1.0, -0.35]),
        (1, [0.0, 1.0, 0.0], [0.0, 0.5, 0.0], [0.0, 1.0, 0.0]),
        (2, [0.0, 1.0, 0.0], [0.5, 0.0, 0.5], [0.0, 1.0, 0.0]),
    ],
)
def test_more_is_asked_for_where_a_portrait_falls_short(atlas, cluster, target, short, asked):
    atlas.own.zero_()
    values = torch.tensor([0.0, 0.3, 1.0, 0.0, 0.3, 1.0])
    atlas.faces.copy_(values[:, None].expand(6, 5 * SIDE**2))
    atlas.means.copy_(values[:, None].expand(6, 3 * SIDE**2))
    shades = looked(atlas, face(1.0), cluster, target, short=short)
    wanted = values[:3] @ torch.tensor(asked) - values[cluster]
    torch.testing.assert_close(shades, wanted.expand_as(shades), atol=1e-4, rtol=0)
