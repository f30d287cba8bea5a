import pytest
import torch

from training.draws import Draws


def numbers(draws):
    return torch.cat([draws.uniform(3), draws.normal(2), draws.integers(9, 2).float()], dim=1)


def test_the_parts_of_a_batch_draw_what_the_whole_would():
    whole = numbers(Draws(0, 5, 8))
    for part in range(2):
        torch.testing.assert_close(numbers(Draws(0, 5, 8, part=part, parts=2)), whole[part::2])


@pytest.mark.parametrize("other", [(0, 6), (1, 5)])
def test_another_step_or_seed_draws_other_numbers(other):
    assert not torch.equal(numbers(Draws(0, 5, 8)), numbers(Draws(*other, 8)))


def test_all_parts_toss_the_same_coin():
    tosses = [
        [Draws(0, step, 4, part=part, parts=4).coin(0.3) for step in range(400)]
        for part in range(4)
    ]
    assert all(toss == tosses[0] for toss in tosses)
    assert 0.2 < sum(tosses[0]) / 400 < 0.4
    assert not Draws(0, 0, 4).coin(0.0)
    assert Draws(0, 0, 4).coin(1.0)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="3 parts"):
        Draws(0, 0, 8, parts=3)
