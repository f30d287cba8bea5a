import math
from dataclasses import replace

import pytest
import torch

from model.networks.atlas import Atlas
from model.networks.greying import WHITE
from model.networks.lifespan import LifespanGenerator, LifespanShape
from model.networks.overlay import (
    BRIGHT_SIDES,
    OVEREXPOSED,
    RUDDY,
    STRONG,
    Overlay,
    overexposed,
    ruddiness,
)
from model.networks.reader import Reader

SHAPE = LifespanShape(4, 12, 8, overlay=True, detail=2, softness=2, prototypes=(2, 3))
SIDE = 32
"""Of portraits; half as many pixels are drawn."""


def shades(values):
    """Faces of an atlas of two groups and three clusters whose shades are `values` everywhere."""
    maps = torch.zeros(6, 5, Atlas.SIDE, Atlas.SIDE)
    maps[:, :3] = torch.tensor(values).view(6, 1, 1, 1)
    return maps.flatten(1)


@torch.no_grad()
def sure(generator, group, cluster, target):
    """Has someone of `group` and `cluster` read from portraits, without hair, `target` asked."""
    reader, asked = generator.identity_encoder.reader, generator.decoder.overlay.atlas.asked
    for layer in (reader.people, reader.places, reader.hair[3], reader.eyeglasses[3], asked):
        layer.weight.zero_()
        layer.bias.zero_()
    reader.hair[3].bias.fill_(-100.0)
    reader.eyeglasses[3].bias.fill_(-100.0)
    reader.people.bias[group * 3 + cluster] = 100.0
    asked.bias.copy_(torch.as_tensor(target))


@pytest.fixture
def generator():
    torch.manual_seed(0)
    made = LifespanGenerator(SHAPE).eval()
    made.decoder.overlay.to_mask.bias.data.fill_(-100.0)
    return made


@pytest.fixture
def atlas(generator, monkeypatch):
    monkeypatch.setattr("model.networks.departure.UNLIKE", 1e6)
    atlas = generator.decoder.overlay.atlas
    faces = shades([0.0, 0.1, 0.3, 0.0, 0.2, 0.5])
    atlas.faces.copy_(faces)
    # Far apart, so that nothing goes too far beyond them.
    atlas.means.copy_(20 * faces[:, : 3 * Atlas.SIDE**2])
    atlas.cheeks.fill_(1.0)
    atlas.seen.fill_(1.0)
    return atlas


def images(count, seed=0):
    shape = (count, 3, SIDE, SIDE)
    # Darker than what lies behind a head.
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) * 0.8 - 0.9


@torch.no_grad()
def changed(generator, image):
    return generator(image, torch.ones(len(image), 12))


def light(image):
    return (image + 1) / 2


@pytest.mark.parametrize(
    ("group", "cluster", "target", "ratio"),
    [
        (0, 0, [0.0, 0.0, 1.0], 0.3),
        (1, 0, [0.0, 0.0, 1.0], 0.5),
        (1, 2, [0.0, 1.0, 0.0], -0.3),
        (0, 1, [0.0, 1.0, 0.0], 0.0),
        (0, 0, [0.0, 0.5, 0.5], 0.2),
        (0, 0, [-0.5, 0.0, 1.5], 0.45),
    ],
)
def test_the_light_changes_by_the_ratio_of_two_mean_faces(
    generator, atlas, group, cluster, target, ratio
):
    sure(generator, group, cluster, target)
    image = images(2)
    wanted = light(image) * torch.tensor(ratio).exp()
    torch.testing.assert_close(light(changed(generator, image)), wanted, atol=1e-5, rtol=0)


def test_doubt_about_a_person_mixes_what_all_are_like(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    with torch.no_grad():
        generator.identity_encoder.reader.people.bias[3] = 100.0  # or of the other group
    image = images(1)
    wanted = light(image) * torch.tensor((0.3 + 0.5) / 2).exp()
    torch.testing.assert_close(light(changed(generator, image)), wanted, atol=1e-5, rtol=0)


def test_lines_grow_stronger_within_limits_and_flat_skin_stays(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    maps = torch.zeros(6, 5, Atlas.SIDE, Atlas.SIDE)
    flat = torch.full((1, 3, SIDE, SIDE), 0.1)
    stripes = flat + 0.1 * torch.tensor([1.0, -1.0]).repeat(SIDE // 2)
    for strength, factor in ((1.4, 1.4), (9.0, Overlay.MOST), (0.1, Overlay.LEAST)):
        maps[2, 3] = torch.tensor(strength).log()
        atlas.faces.copy_(maps.flatten(1))
        torch.testing.assert_close(changed(generator, flat), flat, atol=1e-5, rtol=0)
        more = max(factor - 1, 0) / (1 + (0.05 / STRONG) ** 2)
        found, lines = changed(generator, stripes) - flat, stripes - flat
        wanted = min(factor, 1) * lines + torch.where(lines > 0, BRIGHT_SIDES, 1.0) * more * lines
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)


def test_colour_in_lines_is_noise_that_grows_no_stronger(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    maps = torch.zeros(6, 5, Atlas.SIDE, Atlas.SIDE)
    specks = torch.tensor([1.0, -1.0]).repeat(SIDE // 2) * torch.tensor([0.1, 0.0, 0.0])[:, None]
    image = specks[None, :, None].expand(1, 3, SIDE, SIDE)
    luma = 0.1 * 0.299
    # Half of them are bright.
    more = 1 / (1 + (luma / 2 / STRONG) ** 2)
    for strength, grey, colour in (
        (1.5, 1 + (0.25 + BRIGHT_SIDES / 4) * more, 1.0),
        (0.5, 0.5, 0.5),
    ):
        maps[2, 3] = torch.tensor(strength).log()
        atlas.faces.copy_(maps.flatten(1))
        found = changed(generator, image)[0, :, SIDE // 2].abs().mean(1)
        wanted = grey * luma + colour * (torch.tensor([0.1, 0.0, 0.0]) - luma)
        torch.testing.assert_close(found, wanted.abs(), atol=1e-3, rtol=0.02)


def test_with_mean_faces_what_is_learned_smooths_little(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 0.0])
    image = images(1)
    flat = changed(generator, image)
    generator.decoder.overlay.to_gain.bias.data.fill_(-100.0)
    ratio = (changed(generator, image) - flat).std() / flat.std()
    assert ratio == pytest.approx(0.01, rel=0.4)


def test_with_mean_faces_what_is_learned_makes_strong_lines_little_stronger(generator, atlas):
    """Bright sides half as much as dark ones, as the mean faces do."""
    sure(generator, 0, 0, [0.0, 0.0, 0.0])
    stripes = torch.tensor([1.0, -1.0]).repeat(SIDE // 2).expand(1, 3, SIDE, SIDE)
    for height, wanted in ((0.01, 1 + (1 + BRIGHT_SIDES) / 2), (0.6, 1.06)):
        generator.decoder.overlay.to_gain.bias.data.fill_(0.0)
        flat = changed(generator, height * stripes).std()
        generator.decoder.overlay.to_gain.bias.data.fill_(100.0)
        found = changed(generator, height * stripes).std() / flat
        assert found == pytest.approx(wanted, rel=0.05)


def test_wide_lines_grow_stronger_too(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    maps = torch.zeros(6, 5, Atlas.SIDE, Atlas.SIDE)
    maps[2, 4] = torch.tensor(1.8).log()
    atlas.faces.copy_(maps.flatten(1))
    waves = 0.04 * torch.sin(torch.arange(SIDE) * 2 * torch.pi / 16).expand(1, 3, SIDE, SIDE)
    found = changed(generator, waves).std() / waves.std()
    assert 1.1 < found < 1 + 0.8 * (1 + BRIGHT_SIDES) / 2


def test_strong_lines_grow_little_stronger_but_fade_alike(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    maps = torch.zeros(6, 5, Atlas.SIDE, Atlas.SIDE)
    stripes = torch.tensor([1.0, -1.0]).repeat(SIDE // 2).expand(1, 3, SIDE, SIDE)
    for strength, faint, strong in ((1.8, 1.6, 1.02), (0.5, 0.5, 0.5)):
        maps[2, 3] = torch.tensor(strength).log()
        atlas.faces.copy_(maps.flatten(1))
        for height, wanted in ((0.01, faint), (0.6, strong)):
            found = changed(generator, height * stripes)[..., 4:-4].std() / (height * stripes).std()
            assert found == pytest.approx(wanted, abs=0.06)


@pytest.mark.parametrize("behind", [False, True])
def test_nothing_is_done_to_what_is_seen_through_eyeglasses(generator, atlas, behind):
    sure(generator, 1, 2, [1.0, 0.0, 0.0])
    atlas.faces.zero_()
    atlas.own.fill_(1.0)
    atlas.fades[5] = 0.6
    image = torch.full((1, 3, SIDE, SIDE), -0.2)
    image[..., 14:18, 8:24] = -0.7
    with torch.no_grad():
        generator.identity_encoder.reader.eyeglasses[3].bias.fill_(100.0 if behind else -100.0)
    found = light(changed(generator, image))
    if behind:
        torch.testing.assert_close(found, light(image), atol=1e-4, rtol=0)
    else:
        assert found[..., 15:17, 12:20].mean() > 0.2  # of 0.15


@pytest.mark.parametrize(("grey", "lost"), [(0.96, 1.0), (0.85, 0.5), (0.6, 0.0)])
def test_overexposed_skin_gets_its_colour_as_it_darkens(generator, atlas, grey, lost):
    sure(generator, 1, 0, [0.0, 0.0, 1.0])
    image = (
        2 * grey * torch.tensor([1.04, 0.99, 0.95]).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE) - 1
    )
    atlas.faces.copy_(-shades([0.0, 0.1, 0.3, 0.0, 0.2, 0.5]))
    atlas.means.copy_(20 * atlas.faces[:, : 3 * Atlas.SIDE**2])
    ratio = (light(changed(generator, image)) / light(image)).log()[0, :, 16, 16]
    coloured = min(torch.tensor([1.04, 0.99, 0.95]).log().abs().mean().item() / 0.03, 1)
    wanted = -0.5 * (1 - lost * coloured * torch.tensor(RUDDY))
    torch.testing.assert_close(ratio, wanted, atol=0.03, rtol=0)


def test_what_was_overexposed_is_told_by_its_luma():
    greys = torch.tensor([0.2, OVEREXPOSED[0], sum(OVEREXPOSED) / 2, OVEREXPOSED[1], 1.0])
    found = ruddiness(overexposed(greys.view(5, 1, 1, 1).expand(5, 3, 1, 1)))[..., 0, 0]
    wanted = torch.tensor([0.0, 0.0, 0.5, 1.0, 1.0])[:, None] * torch.tensor(RUDDY)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=0)


def test_a_place_says_where_in_the_mean_face_a_pixel_lies(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    maps = torch.zeros(6, 5, Atlas.SIDE, Atlas.SIDE)
    maps[2, :3, :, :32] = 0.5
    atlas.faces.copy_(maps.flatten(1))
    flat = torch.full((1, 3, SIDE, SIDE), -0.2)
    with torch.no_grad():
        generator.identity_encoder.reader.places.bias[:256] = 0.25 / Reader.GAIN
    found = light(changed(generator, flat))[0, 0, SIDE // 2]
    # A quarter of half the picture: the left half of the mean face ends so much further left.
    edge = SIDE // 2 - SIDE // 8
    assert (found[: edge - 3] > 0.64).all()
    assert (found[edge + 3 :] < 0.41).all()


def test_hair_changes_its_colour_and_skin_does_not(generator, atlas):
    sure(generator, 1, 0, [0.0, 0.0, 1.0])
    atlas.faces.zero_()
    colours = torch.tensor([0.4, 0.3, 0.1])
    atlas.hair_colours[5] = colours
    atlas.cheeks.fill_(1.0)
    atlas.seen.fill_(1.0)
    image = 2 * light(images(1)) * torch.tensor([1.0, 0.8, 0.6])[:, None, None] - 1
    torch.testing.assert_close(changed(generator, image), image, atol=1e-5, rtol=0)
    with torch.no_grad():
        generator.identity_encoder.reader.hair[3].bias.fill_(8.0)
    wanted = light(image) * colours.exp()[:, None, None]
    torch.testing.assert_close(light(changed(generator, image)), wanted, atol=1e-3, rtol=0)


def test_hair_goes_grey_and_its_strands_show(generator, atlas):
    sure(generator, 1, 0, [0.0, 0.0, 1.0])
    atlas.faces.zero_()
    atlas.greys[5] = 0.5
    atlas.means.fill_(-1.0)
    above = torch.arange(Atlas.SIDE)[:, None].expand(Atlas.SIDE, Atlas.SIDE).flatten() < 16
    atlas.cheeks.copy_(above)
    atlas.seen.copy_(above)
    stripes = -0.6 + 0.02 * torch.tensor([1.0, -1.0]).repeat(SIDE // 2).expand(1, 3, SIDE, SIDE)
    torch.testing.assert_close(changed(generator, stripes), stripes, atol=1e-5, rtol=0)
    with torch.no_grad():
        generator.identity_encoder.reader.hair[3].bias.zero_()  # half of it
    grey = changed(generator, stripes)[..., 4:-4]
    white = WHITE * 0.25 * math.e  # the mean face's colours are 1 / e of its cheeks'
    assert light(grey).mean().item() == pytest.approx(0.2 + (white - 0.2) / 4, abs=0.02)
    assert grey.std() > 1.3 * stripes.std()


def drawn_lines():
    """A dark stripe that the second cluster of the second group gets, and another of the third."""
    lines = torch.zeros(6, Atlas.LINES, Atlas.LINES)
    lines[4, :, 32:64] = -0.2
    lines[5, :, 64:96] = -0.4
    return lines.flatten(1)


@pytest.mark.parametrize(
    ("cluster", "target", "first", "second"),
    [
        (0, [0.0, 0.0, 1.0], -0.2, -0.4),
        (0, [0.0, 1.0, 0.0], -0.2, 0.0),
        (1, [0.0, 0.0, 1.0], 0.0, -0.4),
        (0, [0.0, 0.5, 0.5], -0.2, -0.2),
        (2, [1.0, 0.0, 0.0], 0.0, 0.0),
        (1, [1.0, 0.0, 0.0], 0.0, 0.0),
        (2, [0.0, 0.0, 1.0], 0.0, 0.0),
        (2, [0.0, -0.5, 1.5], 0.0, -0.2),
    ],
)
def test_lines_come_with_age_and_do_not_go_again(generator, atlas, cluster, target, first, second):
    sure(generator, 1, cluster, target)
    atlas.faces.zero_()
    atlas.lines.copy_(drawn_lines())
    image = images(1)
    ratio = light(changed(generator, image)) / light(image)
    for place, wanted in ((4, 0.0), (12, first), (20, second), (28, 0.0)):
        found = ratio[..., place].log()
        torch.testing.assert_close(found, torch.full_like(found, wanted), atol=1e-3, rtol=0)


@pytest.mark.parametrize(
    ("cluster", "target", "factor"),
    [
        (2, [0.0, 1.0, 0.0], -0.6),
        (2, [1.0, 0.0, 0.0], -0.9),
        (1, [1.0, 0.0, 0.0], -0.3),
        (0, [0.0, 0.0, 1.0], 0.0),
        (2, [0.0, 0.0, 1.0], 0.0),
        (0, [1.0, 0.0, 0.0], 0.0),
    ],
)
def test_lines_fade_with_youth_and_grow_no_stronger_with_age(
    generator, atlas, cluster, target, factor
):
    sure(generator, 1, cluster, target)
    atlas.faces.zero_()
    atlas.fades[4], atlas.fades[5] = 0.3, 0.6
    stripes = 0.1 + 0.1 * torch.tensor([1.0, -1.0]).repeat(SIDE // 2).expand(1, 3, SIDE, SIDE)
    inner = changed(generator, stripes)[..., 4:-4]
    assert inner.mean().item() == pytest.approx(0.1, abs=1e-4)
    assert (inner.std() / stripes.std()).log().item() == pytest.approx(factor, abs=0.03)


def test_lines_are_not_drawn_on_hair(generator, atlas):
    sure(generator, 1, 0, [0.0, 0.0, 1.0])
    atlas.faces.zero_()
    atlas.lines.copy_(drawn_lines())
    with torch.no_grad():
        generator.identity_encoder.reader.hair[3].bias.fill_(100.0)
    image = images(1)
    torch.testing.assert_close(changed(generator, image), image, atol=1e-5, rtol=0)


def test_what_is_drawn_is_laid_over_what_the_mean_faces_say(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    image = images(2)
    identity = generator.identity_encoder(image)
    with torch.no_grad():
        layers = generator.decoder.layers(identity, torch.ones(2, 8))
        torch.testing.assert_close(layers.image, layers.bent, atol=1e-5, rtol=0)
        torch.testing.assert_close(light(layers.bent), light(image) * 1.3499, atol=1e-3, rtol=0)
        generator.decoder.overlay.to_mask.bias.fill_(100.0)
        drawn = generator.decoder.layers(identity, torch.ones(2, 8))
    assert (drawn.image - layers.image).abs().mean() > 0.03
    # It relights: all colours of a pixel by one factor, near 1.
    ratio = light(drawn.image) / light(drawn.bent)
    torch.testing.assert_close(ratio, ratio[:, :1].expand_as(ratio), atol=1e-3, rtol=0)
    assert Overlay.RELIT < (ratio - 1).abs().max() < Overlay.RELIT_OLDER + 1e-3


@pytest.mark.parametrize(
    ("cluster", "target", "most"),
    [
        (0, [0.0, 0.0, 1.0], Overlay.RELIT_OLDER),
        (1, [0.0, 0.5, 0.5], (Overlay.RELIT + Overlay.RELIT_OLDER) / 2),
        (1, [0.0, 1.0, 0.0], Overlay.RELIT),
        (2, [1.0, 0.0, 0.0], Overlay.RELIT),
    ],
)
def test_what_is_drawn_takes_light_where_it_wants(generator, atlas, cluster, target, most):
    sure(generator, 0, cluster, target)
    atlas.faces.zero_()
    decoder = generator.decoder
    grey, wanted = 0.4, 0.7
    with torch.no_grad():
        decoder.to_rgb.weight.zero_()
        decoder.to_rgb.bias.fill_(math.atanh(2 * wanted - 1))
        for open_, share in ((-100.0, 0.0), (0.0, 0.5), (100.0, 1.0)):
            decoder.overlay.to_mask.bias.fill_(open_)
            image = changed(generator, torch.full((1, 3, SIDE, SIDE), 2 * grey - 1))
            relit = share * (wanted - grey) / (grey + Overlay.DARK / 2)
            relit = grey * (1 + most * math.tanh(relit / most))
            assert light(image).mean().item() == pytest.approx(relit, abs=2e-3)


def test_where_what_is_drawn_darkens_overexposed_skin_it_is_red(generator, atlas):
    sure(generator, 1, 0, [0.0, 0.0, 1.0])
    atlas.faces.zero_()
    skin = torch.tensor([1.04, 0.99, 0.95]).view(1, 3, 1, 1).expand(1, 3, SIDE, SIDE)
    decoder = generator.decoder
    changes = []
    for grey in (0.96, 0.6):
        before = changed(generator, 2 * grey * skin - 1)
        with torch.no_grad():
            decoder.to_rgb.weight.zero_()
            decoder.to_rgb.bias.fill_(-0.5)
            decoder.overlay.to_mask.bias.fill_(100.0)
        after = changed(generator, 2 * grey * skin - 1)
        with torch.no_grad():
            decoder.overlay.to_mask.bias.fill_(-100.0)
        changes.append((light(after) / light(before)).log().mean((0, 2, 3)))
    bright, plain = changes
    assert plain.max() < -0.1
    torch.testing.assert_close(plain, plain.mean().expand(3), atol=1e-3, rtol=0)
    share = min(torch.tensor([1.04, 0.99, 0.95]).log().abs().mean().item() / 0.03, 1)
    wanted = 1 - share * torch.tensor(RUDDY)
    torch.testing.assert_close(bright / (bright / wanted).mean(), wanted, atol=0.02, rtol=0)


def test_what_is_drawn_casts_no_halo_behind_a_head(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 0.0])
    atlas.faces.zero_()
    decoder = generator.decoder
    image = torch.full((1, 3, SIDE, SIDE), -0.4)
    image[..., SIDE // 2 :] = 0.0  # as what lies behind a head is
    with torch.no_grad():
        decoder.to_rgb.weight.zero_()
        decoder.to_rgb.bias.fill_(0.9)
        decoder.overlay.to_mask.bias.fill_(100.0)
        found = changed(generator, image)
    torch.testing.assert_close(
        found[..., SIDE // 2 + 2 :], image[..., SIDE // 2 + 2 :], atol=2e-3, rtol=0
    )
    assert (found - image)[..., : SIDE // 2 - 6].min() > 0.03


def test_a_portrait_bends_as_the_mean_faces_do_where_its_face_is(generator, atlas):
    sure(generator, 0, 0, [0.0, 0.0, 1.0])
    atlas.faces.zero_()
    bends = torch.zeros(3, 2, 16, 16)
    bends[2, 0, :, :4] = 0.25  # what lies left in the mean face comes from an eighth further right
    bends[0, 0, :, :4] = 0.125
    atlas.bends.copy_(bends.flatten(1))
    ramp = (torch.arange(SIDE) / SIDE - 0.5).expand(1, 3, SIDE, SIDE)
    moved = (changed(generator, ramp) - ramp)[0, 0, SIDE // 2]
    assert moved[2:5] == pytest.approx(torch.full((3,), 0.0625), abs=0.005)
    assert moved[10:] == pytest.approx(torch.zeros(SIDE - 10), abs=0.005)
    with torch.no_grad():
        generator.identity_encoder.reader.places.bias[:256] = (
            -0.25 / Reader.GAIN
        )  # the face lies further right
    moved = (changed(generator, ramp) - ramp)[0, 0, SIDE // 2]
    assert moved[2:9] == pytest.approx(torch.full((7,), 0.0625), abs=0.005)
    assert moved[15:] == pytest.approx(torch.zeros(SIDE - 15), abs=0.005)


def test_nothing_made_of_an_identity_moves_what_reads_it(generator, atlas):
    atlas.faces.normal_()
    generator(images(2), torch.rand(2, 12)).mean().backward()
    reader = generator.identity_encoder.reader
    assert all(parameter.grad is None for parameter in reader.parameters())
    assert all(parameter.grad is not None for parameter in atlas.parameters())


def test_an_overlay_without_mean_faces_has_no_atlas():
    plain = LifespanGenerator(replace(SHAPE, prototypes=(0, 0)))
    assert plain.decoder.overlay.atlas is None


def test_a_shaved_place_shows_smooth_skin(generator, atlas):
    """Lines as fine as pixels go with a beard; beside it they stay."""
    sure(generator, 0, 2, [1.0, 0.0, 0.0])
    atlas.faces.zero_()
    line = torch.arange(Atlas.SIDE)[:, None].expand(Atlas.SIDE, Atlas.SIDE).flatten()
    atlas.cheeks.copy_(line < Atlas.SIDE // 4)
    atlas.seen.copy_(line < Atlas.SIDE // 4)
    atlas.beards.copy_(line >= Atlas.SIDE // 2)
    atlas.bare.copy_(torch.tensor([1.0, 1.0, 0.0]).repeat(2))
    image = torch.full((1, 3, SIDE, SIDE), 0.4)
    image[..., SIDE // 2 :, :] = -0.4
    image[..., ::2] += 0.1
    shaved = changed(generator, image)[0]
    chin = shaved[:, SIDE - 8 : SIDE - 2]
    torch.testing.assert_close(chin, torch.full_like(chin, 0.45), atol=0.03, rtol=0)
    torch.testing.assert_close(shaved[:, :8], image[0, :, :8], atol=2e-3, rtol=0)
    sure(generator, 0, 2, [0.0, 0.0, 1.0])
    torch.testing.assert_close(changed(generator, image), image, atol=2e-3, rtol=0)
