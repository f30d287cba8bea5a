import pytest
import torch

from model.networks.greying import (
    NATURAL,
    STRANDS,
    TINT,
    WHITE,
    greyed,
    ungreyed,
    white_hair,
)
from model.networks.layers import luma


def plain(*colour):
    return torch.tensor(colour).view(1, -1, 1, 1).expand(1, 3, 4, 4)


def share(value):
    return torch.full((1, 1, 4, 4), value)


def test_white_hair_is_nearly_as_bright_as_cheeks_and_takes_a_part_of_their_colour():
    for colour in ((0.5, 0.5, 0.5), (0.8, 0.5, 0.3)):
        cheeks = plain(*colour)
        white = white_hair(cheeks)
        torch.testing.assert_close(luma(white), WHITE * luma(cheeks))
        chroma = (white - luma(white)) / (WHITE * TINT)
        torch.testing.assert_close(chroma, cheeks - luma(cheeks))


def test_where_no_hair_is_white_nothing_changes():
    light = torch.rand(1, 3, 4, 4)
    lighter, strands = greyed(light, share(0.0), plain(0.6))
    torch.testing.assert_close(lighter, light, atol=0, rtol=0)
    torch.testing.assert_close(strands, torch.ones(1, 1, 4, 4), atol=0, rtol=0)


def test_a_share_of_dark_hair_goes_white_and_its_strands_show():
    dark, white = plain(0.3), plain(0.7)
    half, strands = greyed(dark, share(0.5), white)
    assert half.mean().item() == pytest.approx(0.5, abs=0.01)
    assert strands.mean().item() == pytest.approx(0.5 / 0.3, abs=0.05)
    _, most = greyed(plain(0.1), share(0.8), white)
    torch.testing.assert_close(most, share(STRANDS))


def test_hair_that_lies_in_shadow_stays():
    white = plain(0.7)
    shares = []
    for dark in (0.01, 0.05, 0.3):
        grey, _ = greyed(plain(dark), share(0.5), white)
        shares.append(((grey.mean() - dark) / (0.7 - dark)).item())
    assert shares == pytest.approx([0.5 / 26, 0.25, 0.5 * 36 / 37], abs=0.01)


def test_hair_that_is_lighter_than_white_pales_and_gets_no_darker():
    blond = plain(0.9, 0.7, 0.3)
    grey, strands = greyed(blond, share(0.5), plain(0.5))
    torch.testing.assert_close(luma(grey), luma(blond))
    torch.testing.assert_close(grey - luma(grey), 0.5 * (blond - luma(blond)), atol=0.02, rtol=0)
    torch.testing.assert_close(strands, torch.ones(1, 1, 4, 4))


SKIN = (0.7, 0.5, 0.35)


def coloured(light, colours=1.0, cheeks=SKIN, hair=None):
    """Hair of this light after it has got its colour back."""
    hair = share(1.0) if hair is None else hair
    logs = ungreyed(light, hair, plain(*cheeks).log(), torch.full((1, 1, 1, 1), colours))
    return light * logs.exp()


def test_white_hair_becomes_dark_and_as_warm_as_skin():
    was = coloured(white_hair(plain(*SKIN)))
    logs, skin = was.log(), plain(*SKIN).log()
    torch.testing.assert_close(logs - luma(logs), skin - luma(skin), atol=1e-4, rtol=0)
    torch.testing.assert_close(luma(was), NATURAL * luma(plain(*SKIN)), atol=0, rtol=0.05)


def test_hair_that_is_half_as_light_as_white_becomes_half_as_much_darker():
    dull = coloured(0.5 * white_hair(plain(0.6, 0.6, 0.6)), colours=0.0, cheeks=(0.6,) * 3)
    torch.testing.assert_close(dull, plain(0.27) * (NATURAL / WHITE) ** 0.5, atol=1e-4, rtol=0)


@pytest.mark.parametrize("brightness", [0.3, 1.2])
def test_fair_and_brown_hair_keep_their_colour(brightness):
    given = brightness * plain(*SKIN)
    torch.testing.assert_close(coloured(given), given)


def test_in_black_and_white_light_hair_is_white_hair():
    was = coloured(plain(0.5, 0.5, 0.5), colours=0.0, cheeks=(0.5,) * 3)
    torch.testing.assert_close(was, plain(0.5) * NATURAL / WHITE)


def test_where_no_hair_is_none_gets_a_colour():
    given = 0.2 + 0.6 * torch.rand(1, 1, 4, 4).expand(1, 3, 4, 4)
    left = share(1.0).clone()
    left[..., 2:] = 0
    was = coloured(given, hair=left)
    torch.testing.assert_close(was[..., 2:], given[..., 2:], atol=0, rtol=0)
    assert (was[..., :2] < 0.9 * given[..., :2]).all()


def test_strands_of_white_hair_stay():
    strands = plain(0.5).clone()
    strands[..., 1::2] = 0.4
    hair = torch.ones(1, 1, 64, 64)
    given = strands.tile(1, 1, 16, 16)
    cheeks = torch.full((1, 3, 64, 64), 0.5).log()
    logs = ungreyed(given, hair, cheeks, torch.zeros(1, 1, 1, 1))[..., 8:56, 8:56]
    assert logs.std() < 0.05 < -logs.mean()
