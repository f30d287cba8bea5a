import pytest
import torch

from model.networks.reader import Reader, Reading


@pytest.fixture
def reader():
    torch.manual_seed(0)
    return Reader(6, 3, width=4)


def test_a_portrait_is_read(reader):
    reading = reader(torch.rand(3, 3, 64, 64))
    assert reading.place.shape == (3, 2, 16, 16)
    assert reading.people.shape == (3, 6)
    assert reading.hair.shape == (3, 1, 32, 32)
    assert reading.shortfall.shape == (3, 3)
    assert reading.eyeglasses.shape == (3, 1, 32, 32)


def test_every_part_of_a_reading_comes_of_the_portrait(reader):
    for part in range(3):
        image = torch.rand(1, 3, 64, 64, requires_grad=True)
        reader(image)[part].std().backward()
        assert (image.grad.abs().sum(1) > 0).float().mean() > 0.9


def test_people_are_told_by_what_is_kept(reader):
    image = torch.rand(2, 3, 64, 64)
    none = reader(image, torch.zeros(2, reader.pooled))
    torch.testing.assert_close(none.people, reader.people.bias.expand(2, 6))
    torch.testing.assert_close(
        reader(image, torch.ones(2, reader.pooled)).people, reader(image).people
    )
    torch.testing.assert_close(none.place, reader(image).place)


def test_a_reading_is_packed_into_channels_and_back(reader):
    torch.nn.init.normal_(reader.shortfall.weight)
    reading = reader(torch.rand(2, 3, 64, 64))
    channels = reading.packed(16)
    assert channels.shape == (2, 19, 16, 16)
    for before, after in zip(reading, Reading.unpacked(channels, 3), strict=True):
        torch.testing.assert_close(after, before)


def test_what_falls_short_is_learned_beside_all_else(reader):
    """0 at first, and what teaches it moves nothing that is read."""
    image = torch.rand(2, 3, 64, 64)
    assert not reader(image).shortfall.any()
    (reader(image).shortfall - 1).square().mean().backward()
    moved = {name for name, parameter in reader.named_parameters() if parameter.grad is not None}
    assert moved == {"shortfall.weight", "shortfall.bias"}
    assert reader.shortfall.weight.grad.abs().min() > 0


@pytest.mark.parametrize("side", [4, 8, 32])
def test_a_reading_fits_any_side(reader, side):
    reading = Reading(
        torch.full((1, 2, 16, 16), 0.3),
        torch.rand(1, 6),
        torch.ones(1, 1, 32, 32),
        torch.rand(1, 3),
        -torch.ones(1, 1, 32, 32),
    )
    back = Reading.unpacked(reading.packed(side), 3)
    torch.testing.assert_close(back.place, torch.full((1, 2, side, side), 0.3))
    torch.testing.assert_close(back.people, reading.people)
    torch.testing.assert_close(back.shortfall, reading.shortfall)
    torch.testing.assert_close(back.hair, torch.ones(1, 1, 2 * side, 2 * side))
    torch.testing.assert_close(back.eyeglasses, -torch.ones(1, 1, 2 * side, 2 * side))


def test_eyeglasses_are_seen_by_who_was_taught_of_them(reader):
    image = torch.rand(2, 3, 64, 64)
    untaught = reader(image).eyeglasses.sigmoid()
    assert untaught.max() < 0.01
    (reader(image).eyeglasses - image[:, :1, ::2, ::2]).square().mean().backward()
    moved = {name for name, parameter in reader.named_parameters() if parameter.grad is not None}
    assert {"eyeglasses.3.weight", "eyeglasses.3.bias"} <= moved
