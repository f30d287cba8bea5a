import numpy as np
from numpy.typing import NDArray

from model.portraits.classes import CLASSES
from model.portraits.parse import ParsingMap
from model.portraits.registration import features, register


def head(radius: float, eyes: float = 0.1, side: int = 128) -> NDArray[np.float32]:
    """Features of a round head with eyes `eyes` sides from the middle."""
    y, x = (np.mgrid[:side, :side] + 0.5) / side - 0.5
    skin = np.hypot(x, y) < radius
    probability = np.zeros((len(CLASSES), side, side), np.uint8)
    for name, sign in (("left_eye", 1), ("right_eye", -1)):
        eye = np.hypot(x - sign * eyes, y + 0.05) < 0.04
        probability[CLASSES.index(name), eye] = 255
        skin &= ~eye
    probability[CLASSES.index("skin"), skin] = 255
    probability[CLASSES.index("background")] = 255 - probability.sum(0)
    kept = (np.hypot(x, y) < radius).astype(np.float32)
    return features(ParsingMap(probability, side), kept, 100 * kept)


FREE = np.ones((128, 128), np.float32)


def test_equal_heads_do_not_move() -> None:
    assert np.abs(register(head(0.3), head(0.3), FREE)).max() < 1e-3


def test_a_smaller_head_is_found_by_looking_outwards() -> None:
    shift = register(head(0.36), head(0.30), FREE)
    # At the new outline, a third of a portrait to the right and above.
    assert shift[16, 16 + 9, 0] > 0.03
    assert shift[16, 16 - 10, 0] < -0.03
    assert shift[16 - 10, 16, 1] < -0.03


def test_what_may_not_move_does_not() -> None:
    free = FREE.copy()
    free[:, 64:] = 0
    shift = register(head(0.36), head(0.30), free)
    assert np.abs(shift[:, 17:]).max() == 0
    assert np.abs(shift[:, :14]).max() > 0.02


def test_features_tell_parts_outline_and_tone_apart() -> None:
    found = head(0.3)
    assert found.shape == (32, 32, 10)
    assert found[14, 16 + 3, 2] > 0.5
    assert found[16, 16, 0] > 0.9
    assert found[0, 0].max() == 0
