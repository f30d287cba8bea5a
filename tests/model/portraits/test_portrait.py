import numpy as np
import pytest
from skimage import data

from model.portraits.align import Alignment
from model.portraits.classes import CLASSES, REMOVED
from model.portraits.parse import Parser
from model.portraits.portrait import cut_portrait


@pytest.fixture
def seen():
    """Sizes of what the parser was given."""
    return []


@pytest.fixture
def parser(seen):
    """Says that the left half is background and the right half skin, at 32 px."""

    def run(image):
        seen.append(image.shape)
        probability = np.zeros((1, len(CLASSES), 32, 32), np.uint8)
        probability[:, CLASSES.index("background"), :, :16] = 255
        probability[:, CLASSES.index("skin"), :, 16:] = 255
        return probability

    return Parser(run, 32)


def test_a_small_portrait_is_parsed_at_the_parsers_size(parser, seen):
    portrait = cut_portrait(data.astronaut(), Alignment(16, 100, 50, 10, 0), parser, REMOVED)
    assert seen == [(1, 32, 32, 3)]
    assert portrait.pixels.shape == (16, 16, 3)
    assert portrait.kept.shape == (16, 16)
    np.testing.assert_allclose(portrait.kept[:, [0, 15]], [[0, 1]] * 16)


def test_a_small_portrait_is_the_mean_of_the_pixels_that_were_parsed(parser):
    alignment = Alignment(16, 100, 50, 10, 0)
    small = cut_portrait(data.astronaut(), alignment, parser, REMOVED).pixels.astype(float)
    fine = cut_portrait(data.astronaut(), alignment.at(32), parser, REMOVED).pixels.astype(float)
    blocks = fine.reshape(16, 2, 16, 2, 3).mean((1, 3))
    assert np.abs(small - blocks).max() <= 1


@pytest.mark.parametrize("resolution", [24, 32, 48])
def test_any_resolution_gives_a_portrait_of_its_size(parser, resolution):
    alignment = Alignment(resolution, 100, 50, 3, 0)
    portrait = cut_portrait(data.astronaut(), alignment, parser, REMOVED)
    assert portrait.pixels.shape == (resolution, resolution, 3)
    assert portrait.kept.dtype == np.float32


def test_what_lies_beyond_the_photo_is_not_kept(parser):
    right = Alignment(32, 512 - 24 * 4, 100, 4, 0)
    kept = cut_portrait(data.astronaut(), right, parser, REMOVED).kept
    assert kept[:, 25:].max() == 0
    assert kept[:, 17:23].min() == 1
