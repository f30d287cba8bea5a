import numpy as np
import pytest

from service.errors import Overloaded
from service.room import Room


def picture(rows: int) -> np.ndarray:
    return np.zeros((rows, 10, 1), np.uint8)


def test_what_does_not_fit_is_refused_until_others_are_gone():
    room = Room(100)
    first, second = picture(6), picture(4)
    room.hold(first)
    room.hold(second)
    assert room.held_bytes == 100
    third = picture(1)
    with pytest.raises(Overloaded):
        room.hold(third)
    view = first[:1]
    del first
    assert room.held_bytes == 100  # the view keeps it
    del view
    assert room.held_bytes == 40
    room.hold(third)
    assert room.held_bytes == 50


def test_a_picture_is_counted_once():
    room, pixels = Room(100), picture(6)
    room.hold(pixels)
    room.hold(pixels)
    assert room.held_bytes == 60


def test_a_picture_alone_fits_however_large():
    room, large = Room(100), picture(20)
    room.hold(large)
    with pytest.raises(Overloaded):
        room.hold(picture(1))
