import pytest
import torch

from model.networks.greying import STRANDS, TINT, WHITE, greyed, white_hair
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
