import torch

from training.means import Means
from training.processes import Processes

ALONE = Processes()


def filled(*values):
    means = Means()
    for value in values:
        means.add({name: torch.tensor(number) for name, number in value.items()})
    return means


def test_a_mean_is_over_the_steps_in_which_its_name_came():
    means = filled({"a": 1.0, "b": 5.0}, {"a": 3.0})
    assert means.of(ALONE) == {"a": 2.0, "b": 5.0}


def test_means_go_on_from_their_state():
    values = [{"a": 0.1 * i} for i in range(10)]
    begun = Means(filled(*values[:4]).state(ALONE))
    for value in values[4:]:
        begun.add({name: torch.tensor(number) for name, number in value.items()})
    assert begun.of(ALONE) == filled(*values).of(ALONE)


def test_nothing_added_means_nothing():
    assert Means().of(ALONE) == {}
