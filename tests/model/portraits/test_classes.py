import pytest

from model.portraits.classes import CLASSES, MIRRORED, REMOVED, class_indices


def test_there_are_nineteen_distinct_classes_from_background() -> None:
    assert len(set(CLASSES)) == 19
    assert CLASSES[0] == "background"


def test_mirrored_pairs_are_left_and_right_of_one_thing() -> None:
    for left, right in MIRRORED:
        assert CLASSES[left].removeprefix("left_") == CLASSES[right].removeprefix("right_")


def test_indices_follow_the_names_asked_for() -> None:
    assert class_indices(["cloth", "background"]) == [18, 0]
    assert len(class_indices(REMOVED)) == len(REMOVED)


def test_an_unknown_class_is_named() -> None:
    with pytest.raises(ValueError, match="beard"):
        class_indices(["skin", "beard"])
