import pytest
import torch

from model.networks.atlas import BRIGHTER, DEPARTURE, TINT, Atlas, departure, light_planes
from model.networks.reader import Reading

SIDE = Atlas.SIDE
SPOT = (slice(40, 48), slice(24, 40))


@pytest.fixture
def atlas():
    """Two groups and three clusters, all faces alike, a face that goes all over the picture."""
    torch.manual_seed(0)
    atlas = Atlas(8, 2, 3)
    atlas.planes.copy_(light_planes(torch.ones(SIDE, SIDE) * (torch.arange(SIDE) < 32)[:, None]))
    atlas.own.fill_(1.0)
    return atlas


@torch.no_grad()
def looked(atlas, light, cluster, target, place=None, hair=None):
    """Shades that someone of `cluster` gets on the way to `target`, an affine mix of clusters."""
    atlas.asked.weight.zero_()
    atlas.asked.bias.copy_(torch.as_tensor(target))
    people = torch.full((1, 6), -100.0)
    people[0, cluster] = 100.0
    place = torch.zeros(1, 2, 16, 16) if place is None else place
    hair = torch.full((1, 1, 32, 32), -100.0) if hair is None else hair
    return atlas.looks(torch.zeros(1, 8), Reading(place, people, hair), light).shades


def face(dark=0.5, spot=SPOT):
    """A grey face with a spot of `dark` times its light."""
    light = torch.full((1, 3, SIDE, SIDE), 0.4)
    light[(..., *spot)] *= dark
    return light


def test_what_lies_behind_a_head_keeps_its_colour(atlas):
    atlas.hair_colours[2] = 0.5
    hair = torch.full((1, 1, 32, 32), -100.0)
    hair[..., :16] = 100  # on the left
    plain = torch.full((1, 3, SIDE, SIDE), 0.4)
    shades = looked(atlas, plain, 0, [0.0, 0.0, 1.0], hair=hair)[0, 0, 20]
    torch.testing.assert_close(shades[:28], 0.5 * torch.ones(28), atol=1e-5, rtol=0)
    torch.testing.assert_close(shades[32:], torch.zeros(32), atol=1e-5, rtol=0)


def test_an_atlas_learns_what_a_latent_asks_for(atlas):
    reading = Reading(torch.zeros(2, 2, 4, 4), torch.rand(2, 6), torch.rand(2, 1, 8, 8))
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
    wanted = -share * DEPARTURE * torch.tanh(apart.log() / DEPARTURE)
    torch.testing.assert_close(shades[0, :, 44, 32], wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(shades[0, :, :38], torch.zeros(3, 38, SIDE), atol=1e-4, rtol=0)


def test_what_those_of_an_age_have_in_common_is_not_a_portraits_own(atlas):
    means = torch.zeros(6, 3, SIDE, SIDE)
    means[(1, slice(None), *SPOT)] = torch.tensor(0.25 / 0.45).log()
    atlas.means.copy_(means.flatten(1))
    shades = looked(atlas, face(), 1, [1.0, 0.0, 0.0])
    torch.testing.assert_close(shades, torch.zeros_like(shades), atol=1e-4, rtol=0)
    spot = looked(atlas, face(1.0), 1, [1.0, 0.0, 0.0])[(..., *SPOT)]
    assert spot.max() < -0.4 * BRIGHTER


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


def test_light_is_not_a_portraits_own():
    line = torch.arange(SIDE) / SIDE
    lit = torch.stack(
        [line[:, None] * a + line * b + 0.3 * b for a, b in ((1, 2), (-1, 0), (0, 3))]
    )
    planes = light_planes((torch.rand(SIDE, SIDE) > 0.5).float())
    apart = departure(lit[None], torch.zeros(1, 3, SIDE, SIDE), planes)
    torch.testing.assert_close(apart, torch.zeros_like(apart), atol=1e-3, rtol=0)


def test_a_plane_is_that_of_the_places_that_count():
    seen = torch.zeros(SIDE, SIDE)
    seen[:20] = 1
    picture = torch.rand(3, SIDE, SIDE)
    picture[:, :20] = 0.5
    found = picture.flatten(1) @ light_planes(seen).T / SIDE**2
    torch.testing.assert_close(found, torch.tensor([0.5, 0.0, 0.0]).expand(3, 3), atol=1e-4, rtol=0)


def test_large_departures_bright_ones_and_those_of_colour_count_less():
    planes = torch.zeros(3, SIDE**2)
    colours = torch.zeros(1, 3, SIDE, SIDE)
    none = torch.zeros(1, 3, SIDE, SIDE)
    for dark in (0.1, 1.0, 4.0):
        wanted = -DEPARTURE * torch.tanh(torch.tensor(dark / DEPARTURE))
        apart = departure(colours - dark, none, planes)
        torch.testing.assert_close(apart, torch.full_like(apart, wanted.item()))
        apart = departure(colours + dark, none, planes)
        torch.testing.assert_close(apart, torch.full_like(apart, -BRIGHTER * wanted.item()))
    red = torch.tensor([0.2, -0.1019, 0.0])[:, None, None]  # of no luma
    small, large = (departure(colours + x * red, none, planes)[0, :, 0, 0] for x in (1.0, 9.0))
    torch.testing.assert_close(small, 0.3 * red.flatten(), atol=1e-3, rtol=0)
    assert large.abs().max() <= 0.3 * TINT + 0.01
